"""Headers and cells -> a table: GitHub's Markdown, or as wide as a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

if TYPE_CHECKING:
    from rich.table import Table

LEFT = ("dataset", "method", "to", "note")  # columns of words


@dataclass(frozen=True)
class Grid:
    """A table to print. drop: for each column, the larger, the sooner a narrow terminal lacks it; 0 never goes.

    styles: of each line in a terminal. groups: a line is drawn where the group changes.
    """

    headers: Sequence[str]
    drop: Sequence[int]
    lines: Sequence[Sequence[str]]
    styles: Sequence[str]
    groups: Sequence[Any]

    def without_empty(self) -> Grid:
        """The grid without the columns that are empty in every line."""
        keep = [i for i in range(len(self.headers)) if any(line[i] for line in self.lines)]
        return self._only(keep)

    def fitting(self, width: int) -> tuple[Grid, int]:
        """The grid without the columns for which ``width`` characters are too few, and the gap between its columns."""
        from rich.cells import cell_len

        widths = [max(map(cell_len, column)) for column in zip(self.headers, *self.lines, strict=True)]
        keep = list(range(len(widths)))

        def wide(gap: int) -> bool:
            return sum(widths[i] + gap for i in keep) - gap > width

        gap = 1 if wide(2) else 2
        for i in sorted((i for i in keep if self.drop[i]), key=lambda i: -self.drop[i]):
            if wide(gap):
                keep.remove(i)
        return self._only(keep), gap

    def _only(self, keep: Sequence[int]) -> Grid:
        headers, drop = [self.headers[i] for i in keep], [self.drop[i] for i in keep]
        return Grid(headers, drop, [[line[i] for i in keep] for line in self.lines], self.styles, self.groups)


def github(grid: Grid) -> str:
    """The whole grid in GitHub's Markdown."""
    align = ["left" if header in LEFT else "right" for header in grid.headers]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in grid.lines]
    return tabulate(cells, list(grid.headers), tablefmt="github", colalign=align, disable_numparse=True)


def terminal(grid: Grid, width: int) -> tuple[Table, list[str]]:
    """A table for a terminal of ``width`` characters, and the headers of the columns that it lacks for it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    fitting, gap = grid.fitting(width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, gap - 1, 0, 0))
    for header in fitting.headers:
        left = header in LEFT
        table.add_column(header, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    following = [*grid.groups[1:], None]
    for cells, style, group, after in zip(fitting.lines, grid.styles, grid.groups, following, strict=True):
        table.add_row(*(Text(cell) for cell in cells), style=style, end_section=group != after)
    return table, [header for header in grid.headers if header not in fitting.headers]
