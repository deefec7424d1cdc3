"""The page's fine print: protocol, splits, where and with what it was computed, and the command for every cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xshot_bench.benchmarks.protocol import GALLERIES, PROTOCOLS
from xshot_bench.benchmarks.records import Cell, Provenance, Record
from xshot_bench.benchmarks.report.reproduce import command
from xshot_bench.benchmarks.report.spots import Findings

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Run:
    """A cell as the page lists it; the numbers are "" where it is not done."""

    draw: int
    status: str
    reason: str
    mean: str
    i2t: str
    t2i: str
    seconds: str
    digest: str
    command: str


@dataclass(frozen=True)
class Group:
    """The cells of one method on one dataset at one X, a cell a draw."""

    dataset: str
    shots: str
    method: str
    parameters: str
    runs: tuple[Run, ...]


def protocol(findings: Findings) -> Iterator[tuple[str, Facts]]:
    """For each dataset, what its numbers mean."""
    plan, comparison = findings.plan, findings.comparison
    for material in plan.materials:
        cells = [cell for cell in plan.cells if cell.dataset == material.name]
        block = next((block for block in comparison.blocks if block.dataset == material.name), None)
        facts = [
            ("protocol", f"{', '.join(dict.fromkeys(c.protocol for c in cells))}: {PROTOCOLS[plan.suite.protocol]}"),
            ("split", material.split.digest),
            ("encoder", ", ".join(dict.fromkeys(cell.encoder for cell in cells))),
            ("features", ", ".join(dict.fromkeys(cell.features for cell in cells))),
            ("gallery", f"{plan.suite.gallery}: {GALLERIES[plan.suite.gallery]}"),
        ]
        if block:
            left_out = f", {block.left_out} left out (nothing relevant)" if block.left_out else ""
            facts += [
                ("queries", f"{block.queries}{left_out}, the same at every X and in every draw"),
                ("gallery items", str(block.gallery)),
                ("chance", f"{100 * block.floor:.2f} mAP: the mean over all orders of the gallery, in closed form"),
            ]
        relevant = "the query's own pair" if plan.suite.protocol == "instance" else "what has the query's class"
        facts += [
            ("metric", f"mAP over the whole ranking; relevant is {relevant}; ties stand in a seeded order"),
            ("shots", f"X = {', '.join(map(str, plan.suite.shots))}"),
            ("draws", f"{plan.suite.draws}, each a random choice of the shots, the same for every method"),
            *(("note", note) for note in (*material.dataset.notes, *material.split.remarks(plan.suite.shots))),
        ]
        yield material.name, tuple(facts)


def provenance(findings: Findings) -> Facts:
    """Where and with what the cells were computed; what differs between them stands side by side."""
    found = [record.provenance for record in findings.plan.records.values()]
    if not found:
        return ()
    packages = {name: None for one in found for name in one.packages}
    times = sorted(one.finished for one in found)
    return (
        ("commit", _each(found, lambda one: one.commit + (" with changes" if one.dirty else "") or "no git checkout")),
        ("hardware", _each(found, lambda one: one.hardware)),
        ("device", _each(found, lambda one: one.device)),
        ("finished", times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"),
        *((name, "; ".join(dict.fromkeys(one.packages.get(name, "–") for one in found))) for name in packages),
    )


def groups(findings: Findings) -> Iterator[Group]:
    """Every cell with its command."""
    plan = findings.plan
    found: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in plan.cells:
        found.setdefault((cell.dataset, str(cell.shots), cell.method), []).append(cell)
    for (dataset, shots, method), cells in found.items():
        runs = []
        for place, cell in enumerate(cells):
            line = command(cell, place + 1, plan.suite, findings.inputs, findings.plugins)
            runs.append(_run(cell, plan.records.get(cell.digest), line))
        parameters = ", ".join(f"{name}={value}" for name, value in cells[0].parameters.items())
        yield Group(dataset, shots, method, parameters, tuple(runs))


def _run(cell: Cell, record: Record | None, line: str) -> Run:
    def number(name: str) -> str:
        return f"{100 * record.metrics[name]:.2f}" if record and name in record.metrics else ""

    return Run(
        draw=cell.draw,
        status=record.status if record else "not run",
        reason=record.reason if record else "",
        mean=number("mAP"),
        i2t=number("i2t/mAP"),
        t2i=number("t2i/mAP"),
        seconds=f"{sum(record.seconds.values()):.2f}" if record and record.seconds else "",
        digest=cell.digest,
        command=line,
    )


def _each(found: list[Provenance], value: Callable[[Provenance], str]) -> str:
    return "; ".join(dict.fromkeys(value(one) for one in found))
