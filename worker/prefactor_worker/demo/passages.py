"""Cutting files into passages, and passages into sentences, each with the line it stands on."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_HEADING: Final = re.compile(r"#{1,6}\s+(?P<title>.*)")
_FENCE: Final = re.compile(r"\s*(```|~~~)")
_ITEM: Final = re.compile(r"^\s*([-*+]|\d+[.)])\s+")
_FIELD: Final = re.compile(r"\s*[\w*.`]+: \S")
_LABEL: Final = re.compile(r"\s*[A-Z][\w ()]*:\s*")
_ENDED: Final = re.compile(r"[.!?;]\s*$")
_RULE: Final = re.compile(r"[\s|:=*_-]*")
_QUOTES: Final = re.compile(r"^\s*[rRbBuUfF]{0,2}(\"\"\"|'''|\"|')|(\"\"\"|'''|\"|')\s*$")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])[\"')*`]*\s+(?=[\"'(*`]*[A-Z0-9])")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, or what stands where one would.

    Attributes:
        text: The words, with single blanks between them.
        line: The line on which it begins, from 1.
    """

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A few lines that belong together: a paragraph, an item of a list, a part of a docstring.

    Attributes:
        name: The file's name.
        title: What it stands under: the heading, or the class and function.
        sentences: What it says; at least one.
    """

    name: str
    title: str
    sentences: tuple[Sentence, ...]

    @property
    def source(self) -> str:
        """Where it begins, as ``name:line``."""
        return f"{self.name}:{self.sentences[0].line}"

    @property
    def text(self) -> str:
        """All that it says, in one line."""
        return " ".join(sentence.text for sentence in self.sentences)


_Lines = list[tuple[int, str]]


def split_passages(name: str, text: str) -> list[Passage]:
    """Cut a file into passages.

    Of Python it takes the docstrings; of everything else the paragraphs, without fenced code.

    Args:
        name: The file's name; ``.py`` makes it Python, unless it does not parse.
        text: What is in it.
    """
    blocks = _python_blocks(text) if name.endswith(".py") else None
    if blocks is None:
        blocks = _text_blocks(text)
    passages = []
    for title, lines in blocks:
        sentences = tuple(_sentences(lines))
        if sentences:
            passages.append(Passage(name, title, sentences))
    return passages


def _text_blocks(text: str) -> Iterator[tuple[str, _Lines]]:
    title = ""
    fenced = False
    kept: _Lines = []
    for number, line in enumerate(text.splitlines(), 1):
        heading = _HEADING.match(line)
        if _FENCE.match(line):
            fenced = not fenced
            kept.append((number, ""))
        elif fenced:
            continue
        elif heading:
            yield from ((title, block) for block in _paragraphs(kept))
            kept = []
            title = heading["title"].strip()
        else:
            kept.append((number, line))
    yield from ((title, block) for block in _paragraphs(kept))


def _python_blocks(source: str) -> Iterator[tuple[str, _Lines]] | None:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    return _docstrings(tree, "", source.splitlines())


def _docstrings(scope: ast.AST, title: str, lines: list[str]) -> Iterator[tuple[str, _Lines]]:
    """Find the strings that are statements, with the class and function that they stand in."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(node, f"{title}.{node.name}".lstrip("."), lines)
        elif isinstance(node, ast.Expr):
            value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                numbers = range(value.lineno, (value.end_lineno or value.lineno) + 1)
                # The source's own lines, since those are what a citation points to.
                string = [(number, _QUOTES.sub("", lines[number - 1])) for number in numbers]
                yield from ((title, block) for block in _paragraphs(string))
        elif isinstance(node, ast.stmt):
            yield from _docstrings(node, title, lines)


def _paragraphs(lines: _Lines) -> Iterator[_Lines]:
    block: _Lines = []
    for number, line in lines:
        ends = not line.strip() or _RULE.fullmatch(line) or _LABEL.fullmatch(line)
        if block and (ends or _ITEM.match(line) or (_FIELD.match(line) and _ENDED.search(block[-1][1]))):
            yield block
            block = []
        if not ends:
            block.append((number, _ITEM.sub("", line, count=1)))
    if block:
        yield block


def _sentences(block: _Lines) -> Iterator[Sentence]:
    text = ""
    begins: list[tuple[int, int]] = []
    for number, line in block:
        words = " ".join(line.split())
        if words:
            text = f"{text} {words}" if text else words
            begins.append((len(text) - len(words), number))
    start = 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]:
        sentence = text[start:end].strip()
        if sentence:
            yield Sentence(sentence, max(number for offset, number in begins if offset <= start))
        start = end
