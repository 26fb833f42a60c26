"""The command ``prefactor-worker``: runs workers, and inspects a fleet."""
