"""`python -m prefactor_worker` is `prefactor-worker`."""

from prefactor_worker.entry import main

if __name__ == "__main__":
    main()
