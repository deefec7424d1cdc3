"""Figures say what the records say, and look the same every time."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from reporting import METHODS, SHOTS, Reported

from xshot_bench.benchmarks.comparison import Ranking
from xshot_bench.benchmarks.report import figures
from xshot_bench.benchmarks.report.figures_style import HUES, INK, PAPER, looks, to_file, to_inline
from xshot_bench.benchmarks.report.spots import Spot

NAME = "<b>$a_1$ & \"q\" 'x'"


@pytest.fixture
def spot() -> Spot:
    rng = np.random.default_rng(0)
    classes = tuple(f"class {c}" for c in range(4) for _ in range(5))
    queries = tuple(f"q{i}" for i in range(20))
    ap = {method: rng.random((20, 2)) for method in (NAME, "clip")}
    precision = {method: np.sort(rng.random((2, 11)))[:, ::-1] for method in ap}
    return Spot("data", 1, queries, classes, ap, precision)


def test_there_is_every_figure_as_png_and_svg(reported: Reported) -> None:
    (folder,) = (reported.folder / "results" / "invocations").glob("*/figures")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files == {path.name: path.read_bytes() for path in (reported.folder / "figures").iterdir()}
    wanted = {f"{data}-shots" for data in ("manifest", "manifest-b")}
    for kind in ("cost", "classes", "precision-recall-i2t", "precision-recall-t2i", "queries"):
        wanted |= {f"{data}-x{x}-{kind}" for data in ("manifest", "manifest-b") for x in SHOTS}
    assert set(files) == {f"{name}.{ending}" for name in wanted for ending in ("png", "svg")}
    for name, content in files.items():
        if name.endswith(".png"):
            assert min(Image.open(io.BytesIO(content)).size) > 300
        else:
            assert ET.fromstring(content).tag.endswith("svg")


def test_shots_against_map_with_its_interval(reported: Reported, findings) -> None:
    (folder,) = (reported.folder / "results" / "invocations").iterdir()
    table = pd.read_csv(folder / "table.csv")
    (axes,) = figures.shots_curves(findings.comparison, "manifest", findings.looks).axes
    lines = {line.get_color(): line for line in axes.lines if len(line.get_xdata()) == len(SHOTS)}
    bands = {tuple(np.round(band.get_facecolor()[0][:3], 3)): band for band in axes.collections}
    for method in METHODS:
        own, look = table[(table.dataset == "manifest") & (table.method == method)], findings.looks[method]
        np.testing.assert_allclose(lines[look.colour].get_ydata(), 100 * own["mean"], rtol=1e-9)
        colour = tuple(np.round([int(look.colour[i : i + 2], 16) / 255 for i in (1, 3, 5)], 3))
        edges = bands[colour].get_paths()[0].vertices[:, 1]
        assert edges.max() == pytest.approx(100 * own["mean_high"].max())
        assert edges.min() == pytest.approx(100 * own["mean_low"].min())
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(x) for x in SHOTS]


def test_precision_by_recall_is_the_mean_over_draws(reported: Reported, findings) -> None:
    spot = next(s for s in findings.spots if (s.dataset, s.shots) == ("manifest", 2))
    (axes,) = figures.precision_recall(spot, "t2i", findings.looks).axes
    for line in axes.lines:
        records = [
            r for r in reported.store.records()
            if (r.cell.dataset, r.cell.shots, r.cell.method) == ("manifest", 2, line.get_label())
        ]  # fmt: skip
        mean = 100 * np.mean([r.precision["t2i"] for r in records], axis=0)
        np.testing.assert_allclose(line.get_ydata(), mean, rtol=1e-9)


def test_class_dots_are_the_mean_of_a_classs_queries(spot: Spot) -> None:
    table = spot.by_class()
    for c in range(4):
        assert table.loc[f"class {c}", "clip"] == pytest.approx(spot.ap["clip"][5 * c : 5 * c + 5].mean())
    (axes,) = figures.class_dots(spot, looks([NAME, "clip"], "clip", [NAME])).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    dots = next(line for line in axes.lines if line.get_label() == "clip")
    assert dict(zip(names, dots.get_xdata(), strict=True)) == pytest.approx((100 * table["clip"]).to_dict())
    assert list(table.loc[names].mean(axis=1)) == sorted(table.mean(axis=1))


def test_of_very_many_classes_those_that_differ_most_are_drawn() -> None:
    n = figures.MOST_CLASSES + 10
    gap = np.linspace(0, 0.5, n)
    ap = {"a": np.full((n, 2), 0.5), "b": (0.5 - gap)[:, None] * np.ones(2)}
    many = Spot("data", 0, tuple(map(str, range(n))), tuple(f"c{i:03}" for i in range(n)), ap)
    (axes,) = figures.class_dots(many, looks(["a", "b"], "a", ["b"])).axes
    assert sorted(t.get_text() for t in axes.get_yticklabels()) == [f"c{i:03}" for i in range(10, n)]


def test_a_bar_joins_what_is_not_told_apart() -> None:
    names, ranks = ("a", "b", "c"), (1.2, 1.8, 3.0)
    p = ((1.0, 0.4, 0.01), (0.4, 1.0, 0.02), (0.01, 0.02, 1.0))
    ranking = Ranking(1, ("x",) * 10, names, ranks, 0.01, p, (("a", "b"), ("c",)))
    drawn = looks(names, "a", names)
    (axes,) = figures.critical_difference(ranking, drawn).axes
    bars = [line for line in axes.lines if line.get_linewidth() == 3]
    assert [sorted(bar.get_xdata()) for bar in bars] == [[1.2, 1.8]]
    (axes,) = figures.critical_difference(Ranking(1, ("x",) * 6, names, ranks, 0.01, p, (), "too few"), drawn).axes
    assert not [line for line in axes.lines if line.get_linewidth() == 3]


def test_names_are_text_and_the_same_bytes_come_out(spot: Spot) -> None:
    drawn = looks([NAME, "clip"], "clip", [NAME])
    svg = to_inline(figures.precision_recall(spot, "i2t", drawn), NAME)
    root = ET.fromstring(svg.replace("xlink:", ""))
    assert root.get("aria-label") == NAME
    assert figures.shortened(NAME) in [text.text for text in root.iter() if text.tag.endswith("text")]
    assert "<b>" not in svg and not re.search(r"#[0-9a-f]{6}", svg), "a colour that the themes do not know"
    assert "var(--ink)" in svg and "var(--hue-0)" in svg
    for kind in ("png", "svg"):
        first, again = (to_file(figures.precision_recall(spot, "i2t", drawn), kind) for _ in range(2))
        assert first == again


def luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_methods_are_told_apart_without_colour_and_of_many_the_best_are_named() -> None:
    many = [f"m{i}" for i in range(24)]
    drawn = looks(many, "m3", many[::-1])
    bold = {name: look for name, look in drawn.items() if look.bold}
    assert list(bold) == ["m3", *many[-len(HUES) :]] and list(drawn) == many
    assert len({look.colour for look in bold.values()}) == len({look.marker for look in bold.values()}) == len(bold)
    for colour in (*HUES, INK):  # graphics need 3:1 on their paper (WCAG 1.4.11); the lightest three are short of it
        contrast = (luminance(PAPER) + 0.05) / (luminance(colour) + 0.05)
        assert contrast > (2.1 if colour in HUES[3:] else 3)
