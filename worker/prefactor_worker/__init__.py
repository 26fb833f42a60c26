"""The command line beside the SDK: the demo, and what runs and looks after delivery."""
