"""The command line beside the SDK: what runs delivery, and what looks after it."""
