"""The demo: agents that answer questions from real files, and what the API made of their telemetry."""
