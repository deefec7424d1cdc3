"""Retrieval examples for the page: which queries are worth a look, what stood first, and pictures within a budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from xshot_bench.benchmarks.protocol import DIRECTIONS
from xshot_bench.benchmarks.report.spots import Spot
from xshot_bench.datasets.base import Dataset

SHOWN = 6  # queries of each kind
FIRST = 6  # results of each query
SIDE = 88  # pixels of a thumbnail's longer side
BUDGET = 2_000_000  # bytes of all thumbnails of a page


class Items:
    """The items that a page speaks of, each by its number: id, text, class, and the picture if it is to be shown."""

    def __init__(self, datasets: Mapping[str, Dataset | None]) -> None:
        self._datasets = datasets
        self._place = {
            name: {item.id: i for i, item in enumerate(dataset.items)} if dataset else {}
            for name, dataset in datasets.items()
        }
        self._number: dict[tuple[str, str], int] = {}
        self._pictured: dict[int, None] = {}
        self.rows: list[dict[str, str]] = []

    def number(self, dataset: str, item: str, pictured: bool = False) -> int:
        """The number of an item; ``pictured`` ones come first where the budget is short."""
        base = dataset.partition("/")[0]  # class splits of one dataset share its items
        if (base, item) not in self._number:
            self._number[base, item] = len(self.rows)
            place, source = self._place[dataset].get(item), self._datasets[dataset]
            known = source.items[place] if source is not None and place is not None else None
            row = {"id": item, "text": known.text, "class": known.label} if known else {"id": item}
            self.rows.append(row | {"dataset": dataset})
        number = self._number[base, item]
        if pictured:
            self._pictured.setdefault(number)
        return number

    def pictures(self) -> dict[int, str]:
        """Number -> data URI of a thumbnail, as many as the budget allows; none where a dataset cannot be opened."""
        found: dict[int, str] = {}
        left = BUDGET
        for number in self._pictured:
            row = self.rows[number]
            source, place = self._datasets[row["dataset"]], self._place[row["dataset"]].get(row["id"])
            uri = _thumbnail(source, place) if source is not None and place is not None else ""
            left -= len(uri)
            if left < 0:
                break
            if uri:
                found[number] = uri
        return found


def examples(spot: Spot, baselines: Mapping[str, str], items: Items) -> dict[str, Any]:
    """Method -> direction -> the queries that it answers worst, gains most and loses most on its baseline.

    A query is {query, ap, base, first, right, ...}: numbers of items, AP of the method and its baseline (means over
    the draws), and what stood first in one draw, with the marks of what is relevant.
    """
    found: dict[str, Any] = {}
    for method, ranked in spot.rankings.items():
        baseline = baselines.get(method, method)
        base = spot.ap.get(baseline)
        found[method] = {"baseline": baseline if base is not None and baseline != method else ""}
        for side, direction in enumerate(DIRECTIONS):
            ap = spot.ap[method][:, side]
            change = ap - base[:, side] if base is not None else np.zeros_like(ap)
            kinds = {"worst": _least(ap, np.ones_like(ap, dtype=bool))}
            if found[method]["baseline"]:
                kinds |= {"gained": _least(-change, change > 0), "lost": _least(change, change < 0)}
            columns = {method: ranked, **({baseline: spot.rankings[baseline]} if base is not None else {})}
            found[method][direction] = {
                kind: [
                    {
                        "query": items.number(spot.dataset, spot.queries[q], pictured=True),
                        "ap": {name: _permille(spot.ap[name][q, side]) for name in columns},
                        "first": {
                            name: [items.number(spot.dataset, i, True) for i in table[f"{direction}_first"][q][:FIRST]]
                            for name, table in columns.items()
                        },
                        "right": {
                            name: [int(mark) for mark in table[f"{direction}_right"][q][:FIRST]]
                            for name, table in columns.items()
                        },
                    }
                    for q in queries
                ]
                for kind, queries in kinds.items()
            }
    return found


def _least(values: np.ndarray, eligible: np.ndarray) -> list[int]:
    """The places of the ``SHOWN`` smallest of the eligible values, the smallest first; NaN is none."""
    places = np.flatnonzero(eligible & ~np.isnan(values))
    return places[np.argsort(values[places], kind="stable")][:SHOWN].tolist()


def permille(values: Iterable[float]) -> list[int | None]:
    """Fractions as whole thousandths; NaN is None."""
    return [_permille(value) for value in values]


def _permille(value: float) -> int | None:
    return None if np.isnan(value) else round(1000 * float(value))


def _thumbnail(dataset: Dataset, index: int) -> str:
    """A small WebP of an item's picture on white, as a data URI; "" where it cannot be read."""
    from PIL import Image

    try:
        picture = dataset.picture(index)
    except Exception:  # a page without a picture is better than no page; decoders raise nearly anything
        return ""
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", quality=70, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
