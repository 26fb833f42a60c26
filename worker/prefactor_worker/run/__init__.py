"""`prefactor-worker run`: one worker of the fleet, from its settings to its last log line."""
