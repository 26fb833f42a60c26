"""A local server that keeps the rules of the Prefactor HTTP API."""
