"""Who can be told apart: the largest sets of methods that cannot be, and compact letters for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence


def cliques(names: Sequence[str], told_apart: Callable[[str, str], bool]) -> list[tuple[str, ...]]:
    """The largest sets of which no two are told apart; members and sets in the order of ``names``, the best first."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(names)
    graph.add_edges_from((a, b) for i, a in enumerate(names) for b in names[i + 1 :] if not told_apart(a, b))
    place = {name: i for i, name in enumerate(names)}
    found = (sorted(clique, key=place.__getitem__) for clique in networkx.find_cliques(graph))
    return [tuple(clique) for clique in sorted(found, key=lambda clique: [place[name] for name in clique])]


def letters(names: Sequence[str], told_apart: Callable[[str, str], bool]) -> dict[str, str]:
    """Compact letters (Piepho 2004): two names share a letter exactly when they are not told apart.

    "Not told apart" is not transitive: a may be no different from b, and b from c, while a and c differ. Numbers 1, 2,
    3 would then say something false of one pair. So each of the largest sets of which no two are told apart has its
    letter, ``a`` for that of the best; a method between two sets has both, as ``ab``.
    """
    found: dict[str, str] = dict.fromkeys(names, "")
    for number, clique in enumerate(cliques(names, told_apart)):
        for name in clique:
            found[name] += _letter(number)
    return found


def shared(one: str, other: str) -> bool:
    """Whether two names' letters have one in common, so that the names are not told apart."""
    first, second = (set(re.findall("[a-z]'*", each)) for each in (one, other))
    return bool(first & second)


def _letter(number: int) -> str:
    """a, b, … z, then a', b', …"""
    return chr(ord("a") + number % 26) + "'" * (number // 26)
