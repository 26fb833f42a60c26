"""Takes the picture of a run's page that README.md shows: `scripts/picture.py [FILE]` (docs/run-page.png).

It runs the demo, and has Chromium (Debian's package ``chromium``) draw the page of its run.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parents[1]
_QUESTION: Final = "What happens to operations that do not fit into the buffer?"
_CHROMIUM: Final = [
    "chromium",
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--hide-scrollbars", "--force-device-scale-factor=2", "--window-size=1000,700"),
]


def main(target: Path) -> None:
    """Run the demo, draw the page of its run into a file, end the demo."""
    demo = [sys.executable, str(PROJECT / "examples" / "demo"), str(PROJECT / "docs"), "-q", _QUESTION]
    with (
        tempfile.TemporaryDirectory() as profile,
        tempfile.TemporaryFile() as report,
        subprocess.Popen([*demo, "--json", "--keep"], stdout=report, stderr=subprocess.PIPE) as process,
    ):
        try:
            told = process.stderr.readline().decode() if process.stderr else ""  # once the report is written
            report.seek(0)
            page = (
                f"{told.partition(' until ')[0].split()[-1]}/instances/{json.load(report)['runs'][0]['id']}"
            )
            options = [f"--user-data-dir={profile}", f"--screenshot={target}", page]
            subprocess.run([*_CHROMIUM, *options], check=True, timeout=120, stderr=subprocess.DEVNULL)
        finally:
            process.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else PROJECT / "docs" / "run-page.png").resolve())
