"""How figures look: colours that colour-blind readers tell apart, with markers and dashes, on light or dark paper."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's set (2008) without yellow, which is too light on white, and with the ink for black.
INK, MUTED, RULE, PAPER = "#1b1f27", "#5d6675", "#e1e4ea", "#fffffe"
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--card"} | {
    hue: f"--hue-{i}" for i, hue in enumerate(HUES)
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHED = (0, (5, 1.5))
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,  # names are the users': a dollar is a dollar
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "xshot-bench",
    "svg.id": None,
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn, everywhere alike. ``bold`` ones are named; the others are a grey ground to them."""

    colour: str
    marker: str
    dash: Any = "-"
    bold: bool = True

    @property
    def variable(self) -> str:
        """The page's variable for the colour."""
        return VARIABLES[self.colour]

    def line(self, size: float = 5) -> dict[str, Any]:
        """How matplotlib is to draw a line of the method."""
        if not self.bold:
            return {"color": self.colour, "lw": 0.8, "alpha": 0.4, "zorder": 1}
        return {"color": self.colour, "marker": self.marker, "ls": self.dash, "ms": size}


def looks(methods: Sequence[str], baseline: str, best: Sequence[str]) -> dict[str, Look]:
    """Method -> its look: the baseline is ink and dashed, and the first of the ``best`` have a colour each.

    Methods get their colours in the order of the table, so that a figure does not change with the ranking.
    """
    coloured = [method for method in best if method != baseline][: len(HUES)]
    own = zip(HUES, MARKERS[1:], strict=False)
    found: dict[str, Look] = {}
    for i, method in enumerate(methods):
        if method == baseline:
            found[method] = Look(INK, "o", DASHED)
        elif method in coloured:
            found[method] = Look(*next(own))
        else:
            found[method] = Look(MUTED, MARKERS[i % len(MARKERS)], bold=False)
    return found


@contextmanager
def drawing() -> Iterator[None]:
    """Figures made and saved inside look like ours. A letter that the font lacks is no reason to warn."""
    from matplotlib import rc_context

    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def to_file(figure: Figure, kind: str) -> bytes:
    """The figure as a ``png`` or ``svg`` file, the same bytes every time; letters of the SVG are outlines."""
    buffer = io.BytesIO()
    with drawing():
        metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()


def to_inline(figure: Figure, title: str) -> str:
    """The figure as SVG for a page: letters are text, and colours are the page's variables, for light and dark."""
    from html import escape

    from matplotlib import rc_context

    buffer = io.StringIO()
    with drawing(), rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # several figures share a page: their names would meet
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)  # the page's own font
    label = escape(title, quote=True)
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{label}">', svg, count=1)
