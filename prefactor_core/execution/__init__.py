"""Carrying out deliveries: lanes, outcomes, retries, dependents and disposal."""
