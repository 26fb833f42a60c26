"""The version, kept where neither importing nor packaging has to ask for it."""

PACKAGE_NAME = "prefactor-core"
__version__ = "1.0.0"
PACKAGE_VERSION = __version__

SDK_HEADER_ENTRY = f"{PACKAGE_NAME}@{PACKAGE_VERSION}"
"""This SDK, as the SDK header and the runtime environment name it."""
