"""Texts from names and keywords, without the class name: it would give the answer away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

EMPTY = {"a", "an", "the", "of", "and", "with", "in", "on"}  # with nothing else, a text says nothing


def words(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return re.findall(r"\w+", text.lower())


def stems(label: str) -> list[str]:
    """The words of a class name without the s of the plural: what may not occur in its items' texts."""
    return [word.removesuffix("s") for word in words(label.replace("_", " "))]


def without(phrase: str, parts: Sequence[str]) -> str:
    """The phrase without its words that hold one of the parts, as ``mail`` in ``mailbox``."""
    return " ".join(word for word in phrase.split() if not any(part in word.lower() for part in parts))


def joined(phrases: Iterable[str]) -> str:
    """The first phrase, then each that adds a word, with commas between."""
    kept: list[str] = []
    for phrase in phrases:
        if not kept or set(words(phrase)) - set(words(" ".join(kept))):
            kept.append(phrase)
    return ", ".join(filter(None, kept))


def says_something(text: str) -> bool:
    """Whether there is a word beside articles, numbers and the like."""
    return any(word not in EMPTY and not word.isdecimal() for word in words(text))
