"""`python -m prefactor_worker` is `prefactor-worker`."""

from prefactor_worker.cli import main

if __name__ == "__main__":
    main()
