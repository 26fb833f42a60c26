"""The version, kept where neither importing nor packaging has to ask for it."""

__version__ = "1.0.0"

SDK_HEADER_ENTRY = f"prefactor-core@{__version__}"
"""This SDK, as the SDK header and the runtime environment name it."""
