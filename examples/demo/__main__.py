"""The demo, as ``python examples/demo``; ``--help`` has the options.

`command` reads them. `play` starts the processes (`children`), watches and compares. `agents` is the agents'
program (`agent`, with tools in `library`), `fleet` the part with a broker and workers. `readback` asks the
emulator what took effect, and `report` shows it.
"""

from prefactor_core.utils import run_command

if __name__ == "__main__":
    run_command("command", "the demo", "all")
