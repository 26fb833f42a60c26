"""What the agent's tools do: find files, split them into sentences, search those."""

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROJECT: Final = Path(__file__).parents[2]
_MAX_FILES: Final = 200
_SUFFIXES: Final = {".md", ".rst", ".txt", ".py"}
_WORD: Final = re.compile(r"[^\W_]+")
# Up to a full stop at a word's end, but not into the next paragraph, list item or heading.
_SENTENCE: Final = re.compile(r"\S(?:[^.!?\n]|[.!?](?=\S)|\n(?=[^\S\n]*[^\s#*|>-]))*[.!?]?")
_COMMON: Final = """
    a about all an and any are as at be become becomes been but by can could do does for from happen happens
    has have how if in into is it its may mean means more most must no not of on or our out over so than that
    the then there this to up was were what when where which who why will with you your
"""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, and where it stands: ``file:line``."""

    text: str
    source: str


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Return the text files under some paths, by default this project's; raise ``ValueError`` without any."""
    roots = paths or [*_PROJECT.glob("*.md"), *_PROJECT.glob("docs"), *_PROJECT.glob("*/README.md")]
    if missing := [str(root) for root in roots if not root.exists()]:
        raise ValueError(f"no such file or folder: {', '.join(missing)}")
    found = [path for root in roots for path in ([root] if root.is_file() else _texts_in(root))]
    if not 0 < len(found) <= _MAX_FILES:
        raise ValueError(f"{len(found)} text files in {', '.join(map(str, roots))}: name 1 to {_MAX_FILES}")
    return [Path(os.path.relpath(path)) for path in found]


def _texts_in(folder: Path) -> list[Path]:
    texts = (path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    return sorted(path for path in texts if "/." not in f"/{path.relative_to(folder)}")


def sentences_in(path: Path, text: str) -> list[Sentence]:
    """Return the sentences of a file's text."""
    found, line, counted = [], 1, 0
    for match in _SENTENCE.finditer(text):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        words = match.group().replace("**", "").lstrip("#*->| ").split()
        found.append(Sentence(" ".join(words), f"{path}:{line}"))
    return found


def search_terms(text: str) -> list[str]:
    """Return the stems of the words that carry meaning, each once, in their order."""
    common = _COMMON.split()
    words = (word.lower() for word in _WORD.findall(text))
    return list(dict.fromkeys(word.removesuffix("s")[:6] for word in words if word not in common))


def search(sentences: Sequence[Sentence], terms: Sequence[str], limit: int) -> list[Sentence]:
    """Return the sentences that say most about the terms. A rare term counts more, a long sentence less."""
    held = {sentence: frozenset(terms).intersection(search_terms(sentence.text)) for sentence in sentences}
    holding = Counter(term for found in held.values() for term in found)
    scores = {
        sentence: sum(math.log(1 + len(held) / holding[term]) for term in found) / (80 + len(sentence.text))
        for sentence, found in held.items()
        if found
    }
    return sorted(scores, key=lambda sentence: -scores[sentence])[:limit]
