"""What operators ask of a fleet: ``status``, ``dead-letters`` and ``check``."""
