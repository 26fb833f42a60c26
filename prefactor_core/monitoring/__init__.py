"""What the service asks of running agents."""
