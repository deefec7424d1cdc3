"""One self-contained HTML page of a comparison: it loads nothing, and whatever comes from data is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xshot_bench import __version__
from xshot_bench.benchmarks.protocol import DIRECTIONS
from xshot_bench.benchmarks.report.figures_set import Shown, figure_set
from xshot_bench.benchmarks.report.figures_style import MARKERS, to_inline
from xshot_bench.benchmarks.report.notes import footnotes
from xshot_bench.benchmarks.report.page_examples import Items, examples, permille
from xshot_bench.benchmarks.report.page_facts import groups, protocol, provenance
from xshot_bench.benchmarks.report.page_tables import ladders, leaderboards, verdicts
from xshot_bench.benchmarks.report.rungs import questions
from xshot_bench.benchmarks.report.spots import Findings

SHAPES = {marker: i for i, marker in enumerate(MARKERS)}  # the page draws the same shapes
TEMPLATES = Path(__file__).parent / "templates"
MOST_POINTS = 60_000  # AP values for the scatter; of more, evenly spaced queries are shown


@dataclass(frozen=True)
class Drawn:
    """A figure on the page."""

    shown: Shown
    svg: str


def make_page(findings: Findings) -> str:
    """The page as HTML text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup  # drawn by matplotlib, which escapes its texts
    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    items = Items({material.name: material.dataset for material in findings.plan.materials})
    suite, comparison = findings.plan.suite, findings.comparison
    return environment.get_template("page.html").render(
        version=__version__,
        suite=suite,
        comparison=comparison,
        methods=list(findings.looks.items()),
        shapes=SHAPES,
        verdicts=list(verdicts(findings)),
        leaderboards=list(leaderboards(findings)),
        ladders=list(ladders(findings)),
        footnotes=footnotes(comparison),
        questions=questions(comparison),
        figures=[Drawn(shown, to_inline(shown.draw(), shown.title)) for shown in figure_set(findings) if shown.panel],
        protocol=list(protocol(findings)),
        provenance=provenance(findings),
        groups=list(groups(findings)),
        data=_data(findings, items),
        pictured=any(material.dataset.items for material in findings.plan.materials),
        script=Markup(script),  # noqa: S704 - ours
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(style),  # noqa: S704 - ours
    )


def _data(findings: Findings, items: Items) -> dict[str, Any]:
    """What the page's script draws from: the scatter's values and the examples; `page.js` reads it."""
    queries = sum(len(spot.queries) * len(spot.ap) * len(DIRECTIONS) for spot in findings.spots)
    step = -(-queries // MOST_POINTS) or 1
    spots = list(_spots(findings, items, step))
    return {
        "looks": {
            name: {"colour": look.variable, "shape": SHAPES[look.marker]} for name, look in findings.looks.items()
        },
        "baseline": findings.comparison.baseline,
        "step": step,
        "spots": spots,
        "items": items.rows,
        "pictures": items.pictures(),
    }


def _spots(findings: Findings, items: Items, step: int) -> Iterator[dict[str, Any]]:
    for spot in findings.spots:
        yield {
            "dataset": spot.dataset,
            "shots": str(spot.shots),
            "examples": examples(spot, findings.baselines, items),
            "draw": spot.draw,
            "queries": [items.number(spot.dataset, query) for query in spot.queries[::step]],
            "classes": list(spot.classes[::step]),
            "ap": {method: _by_direction(ap[::step]) for method, ap in spot.ap.items()},
        }


def _by_direction(ap: np.ndarray) -> dict[str, list[int | None]]:
    return {direction: permille(ap[:, side]) for side, direction in enumerate(DIRECTIONS)}
