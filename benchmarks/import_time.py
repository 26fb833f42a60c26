"""What ``import prefactor_core`` costs a process, beside the libraries that it cannot do without.

``python -m benchmarks.import_time [PROCESSES]``: fresh interpreters, one program after the other, 15 of each.
The ratios are of medians, to the libraries alone: those of the statements, and those of whole processes, in
which starting Python counts too. The last two programs also make a configuration, as every agent does.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from time import perf_counter
from typing import Final

_LIBRARIES: Final = "libraries"
_PROGRAMS: Final = {
    _LIBRARIES: "from pydantic import BaseModel; import pluggy, asyncio",
    "prefactor_core": "import prefactor_core",
    "configured": "import prefactor_core; prefactor_core.PrefactorCoreConfig(http_config={'api_token': 'x'})",
    "from_env": "import prefactor_core; prefactor_core.PrefactorCoreConfig.from_env(None)",
}
_TIMED: Final = "from time import perf_counter as _; _begin = _(); {}; print(_() - _begin)"


def _run(statement: str, environment: dict[str, str]) -> tuple[float, float]:
    """Return the seconds that a statement takes in a fresh interpreter, and those of the whole process."""
    command = [sys.executable, "-c", _TIMED.format(statement)]
    begin = perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)  # noqa: S603 -- ours
    return float(done.stdout), perf_counter() - begin


def _medians(processes: int) -> dict[str, list[float]]:
    """Return each program's two medians, in milliseconds."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in _PROGRAMS}
    with tempfile.TemporaryDirectory() as compiled:
        # What a first start has compiled is there, also where Python is told to write none of it.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for statement in _PROGRAMS.values():
            _run(statement, environment)
        for _ in range(processes):
            for name, statement in _PROGRAMS.items():
                runs[name].append(_run(statement, environment))
    columns = {name: zip(*times, strict=True) for name, times in runs.items()}
    return {name: [statistics.median(times) * 1000 for times in columns[name]] for name in runs}


def _main(processes: int) -> None:
    medians = _medians(processes)
    base = medians[_LIBRARIES]
    print(f"{'':>14}  {'import ms':>9}  {'ratio':>5}  {'process ms':>10}  {'ratio':>5}")
    for name, (alone, whole) in medians.items():
        print(f"{name:>14}  {alone:9.1f}  {alone / base[0]:5.2f}  {whole:10.1f}  {whole / base[1]:5.2f}")


if __name__ == "__main__":
    _main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
