"""How long cells will take, from the times of earlier ones; which jobs to start first."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

from xshot_bench.benchmarks.records import Cell, Record
from xshot_bench.benchmarks.run import Job


class Forecast:
    """Expected seconds of cells: the median of what is nearest among the records.

    That is the same method with the same parameters on the same dataset; else anywhere; else with other parameters.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        known: dict[Hashable, list[float]] = defaultdict(list)
        for record in records:
            if record.status == "done":
                for key in _keys(record.cell):
                    known[key].append(sum(record.seconds.values()))
        self._median = {key: statistics.median(seconds) for key, seconds in known.items()}

    def cell(self, cell: Cell) -> float | None:
        """Expected seconds; None for a method without a record."""
        return next((self._median[key] for key in _keys(cell) if key in self._median), None)

    def total(self, jobs: Iterable[Job]) -> float | None:
        """Computing time of all jobs; None where a method has no record."""
        expected = [self.cell(cell) for job in jobs for cell in job.cells]
        known = [seconds for seconds in expected if seconds is not None]
        return sum(known) if len(known) == len(expected) else None

    def longest_first(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs in the order in which to start them, so that no long one is left to the end: unknown ones first."""

        def expected(job: Job) -> float:
            total = self.total([job])
            return float("inf") if total is None else total

        return sorted(jobs, key=expected, reverse=True)


def _keys(cell: Cell) -> Iterator[Hashable]:
    """What a cell's time is known by, the nearest first."""
    parameters = json.dumps(cell.parameters, sort_keys=True)
    yield cell.plugin, parameters, cell.dataset
    yield cell.plugin, parameters
    yield cell.plugin
