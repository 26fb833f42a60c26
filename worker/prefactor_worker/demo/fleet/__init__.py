"""The demo with a fleet: agents and workers as processes round a broker, one worker killed in the middle."""
