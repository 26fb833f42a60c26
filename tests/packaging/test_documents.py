"""What the documents name exists."""

import re
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parents[2]
FOLDERS: Final = [
    PROJECT / name
    for name in [
        "prefactor_core",
        "transports",
        "worker",
        "emulator",
        "examples",
        "tests",
        "benchmarks",
        "docs",
        "scripts",
    ]
]
PATH: Final = re.compile(rf"`((?:{'|'.join(folder.name for folder in FOLDERS)})/[\w./-]*)`")
LINK: Final = re.compile(r"\]\((?!https?:)([^)#]+)")


def test_every_path_in_a_document_is_there() -> None:
    documents = [*PROJECT.glob("*.md"), *(path for folder in FOLDERS for path in folder.rglob("*.md"))]
    assert len(documents) > 10
    for document in documents:
        text = document.read_text()
        named = [PROJECT / path for path in PATH.findall(text)]  # of a module, the suffix may be left out
        missing = {str(path) for path in named if not path.exists() and not path.with_suffix(".py").exists()}
        missing |= {link for link in LINK.findall(text) if not (document.parent / link).exists()}
        assert missing == set(), document
