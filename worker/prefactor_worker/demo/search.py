"""Finding passages that answer a question: terms, an inverted index, BM25, and the best sentences."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from prefactor_worker.demo.passages import Passage, Sentence

_WORD: Final = re.compile(r"[^\W_]+")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SUFFIXES: Final = ("ings", "ing", "edly", "ed", "ers", "er", "ies", "ly", "es", "s", "e", "y")
_SHORTEST_STEM: Final = 3
_COMMON_WORDS: Final = """
    a about all an and any are as at be been but by can could did do does for from had has have how if in
    into is it its may more most must no nor not of on or our out over shall should so some such than that
    the their them then there these they this those to too under up was we were what when where which while
    who whom why will with would you your happen happens mean means
"""
_COMMON: Final = frozenset(_COMMON_WORDS.split())

_SATURATION: Final = 1.2
_LENGTH_WEIGHT: Final = 0.75


def stem(word: str) -> str:
    """Cut a word's ending off, so that ``delivered`` and ``deliveries`` meet.

    Crude, but the same for questions and for files.
    """
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _SHORTEST_STEM:
            return word.removesuffix(suffix)
    return word


def tokenise(text: str) -> list[str]:
    """Return the stems of a text's words; the parts of an identifier are words of their own."""
    return [stem(part.lower()) for word in _WORD.findall(text) for part in _CAMEL.split(word)]


def search_terms(question: str) -> list[str]:
    """Return what to look for: the stems of the words that carry meaning, each once, in their order."""
    words = [part for word in _WORD.findall(question) for part in _CAMEL.split(word)]
    return list(dict.fromkeys(stem(word.lower()) for word in words if word.lower() not in _COMMON))


@dataclass(frozen=True, slots=True)
class Ranked:
    """A passage and how well it fits.

    Attributes:
        passage: The passage.
        score: BM25 over the index that ranked it; above 0.
    """

    passage: Passage
    score: float


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A sentence that answers.

    Attributes:
        text: The sentence.
        source: Where it stands, as ``name:line``.
        score: How well it fits, in the search that chose it.
    """

    text: str
    source: str
    score: float


class PassageIndex:
    """An inverted index over passages. Their titles count as words of theirs.

    Args:
        passages: What is searched.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._passages = list(passages)
        self._counts = [Counter(tokenise(f"{p.title} {p.text}")) for p in self._passages]
        self._lengths = [counts.total() for counts in self._counts]
        self._average_length = sum(self._lengths) / max(1, len(self._lengths))
        self._holders: dict[str, list[int]] = {}
        for number, counts in enumerate(self._counts):
            for term in counts:
                self._holders.setdefault(term, []).append(number)

    def __len__(self) -> int:
        return len(self._passages)

    def holders(self, term: str) -> int:
        """Return how many passages hold a term."""
        return len(self._holders.get(term, ()))

    def weight(self, term: str) -> float:
        """Return how much a term tells passages apart (BM25's inverse document frequency, never negative)."""
        held = self.holders(term)
        return math.log(1 + (len(self) - held + 0.5) / (held + 0.5))

    def matching(self, terms: Iterable[str]) -> list[int]:
        """Return the numbers of the passages that hold any of the terms, in the order of the passages."""
        return sorted({number for term in terms for number in self._holders.get(term, ())})

    def rank(self, terms: Sequence[str], candidates: Iterable[int], limit: int) -> list[Ranked]:
        """Return the best of some passages by BM25, the best first; equals stay in their order.

        Args:
            terms: What to look for.
            candidates: Numbers from ``matching``.
            limit: How many to return at most.
        """
        scored = [Ranked(self._passages[number], self._score(terms, number)) for number in candidates]
        return sorted(scored, key=lambda ranked: -ranked.score)[:limit]

    def _score(self, terms: Sequence[str], number: int) -> float:
        length = 1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * self._lengths[number] / self._average_length
        score = 0.0
        for term in terms:
            count = self._counts[number][term]
            score += self.weight(term) * count * (_SATURATION + 1) / (count + _SATURATION * length)
        return score


def best_sentences(
    index: PassageIndex, terms: Sequence[str], ranked: Iterable[Ranked], limit: int
) -> list[Excerpt]:
    """Choose the sentences that say the most about the terms, the best first.

    The sentence before it and its passage's rank count too: they tell what a sentence is about.

    Args:
        index: What the passages were ranked in.
        terms: What was looked for.
        ranked: The passages to choose from.
        limit: How many to return at most; the same words are returned once.
    """
    found: dict[str, Excerpt] = {}
    for entry in ranked:
        before = 0.0
        for sentence in entry.passage.sentences:
            own = _sentence_score(index, terms, sentence)
            score = own + (before + entry.score) / 2
            before = own
            if own <= 0:
                continue
            excerpt = Excerpt(sentence.text, f"{entry.passage.name}:{sentence.line}", score)
            known = found.get(sentence.text)
            if known is None or known.score < excerpt.score:
                found[sentence.text] = excerpt
    return sorted(found.values(), key=lambda excerpt: -excerpt.score)[:limit]


def _sentence_score(index: PassageIndex, terms: Sequence[str], sentence: Sentence) -> float:
    words = tokenise(sentence.text)
    held = set(words)
    covered = sum(index.weight(term) for term in terms if term in held)
    # One word of a heading's length is no answer, and neither is half a page.
    return covered * min(1.0, len(words) / 5) / (1 + max(0, len(words) - 40) / 40)
