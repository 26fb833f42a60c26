"""`python -m prefactor_emulator` is `prefactor-emulator`."""

from prefactor_emulator.entry import main

if __name__ == "__main__":
    main()
