"""What ends the demo early."""


class DemoError(Exception):
    """The demo could not be carried through; the message is for whoever ran it."""
