"""The version, kept where neither importing nor packaging has to ask for it."""

__version__ = "1.0.0"
