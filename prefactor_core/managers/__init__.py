"""The managers turn calls on instances and spans into operations."""
