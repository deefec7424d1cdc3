"""Expected times: the median of what is nearest; jobs start with the longest."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xshot_bench.benchmarks.forecast import Forecast
from xshot_bench.benchmarks.provenance import provenance
from xshot_bench.benchmarks.records import Cell, Record
from xshot_bench.benchmarks.run import Job, Setup


def cell(method: str, dataset: str = "d", draw: int = 0, **parameters: float) -> Cell:
    return Cell(
        method=method, parameters=parameters, code="c", dataset=dataset, encoder="e", features="f", split="s",
        gallery="test", protocol="xshot/1", shots=1, draw=draw,
    )  # fmt: skip


def record(of: Cell, seconds: float, status: str = "done") -> Record:
    times = {"fit": seconds / 2, "score": seconds / 2}
    return Record.model_validate({"cell": of, "status": status, "seconds": times, "provenance": provenance("cpu")})


def job(*cells: Cell) -> Job:
    nothing = cast("Any", SimpleNamespace())
    return Job(Setup(nothing, Path("f"), nothing, nothing), cells)


KNOWN = Forecast(
    [
        *(record(cell("slow", "d", draw, a=1), seconds) for draw, seconds in enumerate((1.0, 2.0, 30.0))),
        record(cell("slow", "big", a=1), 50),
        record(cell("slow", "d", a=2), 100),
        record(cell("quick", "d"), 0.1),
        record(cell("broken", "d"), 9, status="failed"),
    ]
)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (cell("slow", "d", 7, a=1), 2.0),  # the same on the same data
        (cell("slow", "new", a=1), 16.0),  # the median of 1, 2, 30 and 50
        (cell("slow", "d", a=3), 30.0),  # of 1, 2, 30, 50 and 100
        (cell("slow:switched", "d", a=2), 100.0),  # by what it means, not by its name
        (cell("broken"), None),
        (cell("new"), None),
    ],
)
def test_a_cell_takes_what_the_nearest_took(asked, seconds):
    assert KNOWN.cell(asked) == seconds


def test_the_total_is_known_where_every_cell_is():
    assert KNOWN.total([job(cell("quick")), job(cell("slow", a=2), cell("quick", draw=1))]) == pytest.approx(100.2)
    assert KNOWN.total([job(cell("quick")), job(cell("new"))]) is None
    assert KNOWN.total([]) == 0


def test_the_longest_start_first_and_unknown_ones_before_them():
    quick, slow, new = job(cell("quick")), job(cell("slow", a=1)), job(cell("new"))
    many = job(*(cell("quick", draw=draw) for draw in range(30)))  # trained together: 3 s
    other = job(cell("new", draw=1))
    assert KNOWN.longest_first([quick, new, slow, many, other]) == [new, other, many, slow, quick]
