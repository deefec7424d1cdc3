"""The tables as people and programs read them: terminal, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from xshot_bench.benchmarks.comparison import Block, Comparison, Row
from xshot_bench.benchmarks.ladder import difference
from xshot_bench.benchmarks.report import table
from xshot_bench.benchmarks.report.columns import interval
from xshot_bench.benchmarks.report.latex import escape, to_latex
from xshot_bench.benchmarks.report.sheet import to_csv
from xshot_bench.benchmarks.significance import two_way

NASTY = r"""=cmd|' /C calc'!A0 {x} \input{y} 50% a_b #1 $x$ ~^ <b> "q" é 方 --"""
NAME = r"m_1:\x{a=5%}&é方"


def made(*names: str, shots: tuple[int, ...] = (0, 1, 5), draws: int = 5) -> Comparison:
    """A comparison of made-up AP; each method is better than the one before, the first is the baseline."""
    rng = np.random.default_rng(0)
    easy = rng.random((40, 2)) / 2
    rows = []
    for x in shots:
        aps = {
            name: {d: easy + 0.02 * i + 0.03 * rng.random((40, 2)) for d in range(draws)}
            for i, name in enumerate(names)
        }
        for name, drawn in aps.items():
            values = np.stack(list(drawn.values()))
            to = difference(names[0], drawn, aps[names[0]], 0.005) if name != names[0] else None
            to = to and replace(to, p_corrected=to.estimate.p)
            i2t, t2i = values.mean((0, 1)).tolist()
            mean = two_way(values.mean(2))
            rows.append(
                Row(
                    "data_set",
                    x,
                    name,
                    draws,
                    draws,
                    i2t=i2t,
                    t2i=t2i,
                    mean=mean,
                    tier="ab",
                    difference=to,
                    seconds=1.5,
                )
            )
    block = Block("data_set", "lite0-minilm", "f" * 64, 40, 40, 0, 0.07, (0.069, 0.071), 1.0)
    return Comparison("lite0-minilm", "xshot", "test", names[0], (block,), tuple(rows))


def printed(comparison: Comparison, width: int, ladder: bool = False) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table.rich_tables(comparison, width, ladder))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("ladder", [False, True])
@pytest.mark.parametrize("longest", ["flexclip", "flexclip:nogen+nofusion", "flexclip{projector_rate=0.0005}"])
def test_a_terminal_of_80_columns_is_enough(longest, ladder):
    shown = printed(made("clip", "prototype", longest), 80, ladder)
    assert all(cell_len(line) <= 80 for line in shown.splitlines())
    lines = shown.splitlines()
    assert sum(f" {longest} " in line for line in lines) >= 3  # no name is broken over lines
    for needed in ("mean mAP", "difference", "±"):
        assert needed in shown


def test_what_is_nothing_has_no_minus():
    lines = table.markdown(made("clip", "best")).splitlines()
    assert not any("-0.0" in line for line in lines)
    nothing = two_way(np.full((3, 4), -0.0002))
    assert interval(nothing, "+") == "+0.0 ± 0.0" and interval(two_way(np.full((3, 4), -0.002)), "+") == "-0.2 ± 0.0"


def test_a_wide_terminal_lacks_nothing_and_a_narrow_one_says_what():
    comparison = made("clip", "flexclip:nogen+nofusion")
    assert "Left out" not in printed(comparison, 160)
    assert "s/cell" in printed(comparison, 160)
    narrow = printed(comparison, 62)
    assert "Left out for want of width: " in narrow
    header = next(line for line in narrow.splitlines() if "method" in line)
    assert "s/cell" not in header and "i2t" not in header and "mean mAP" in header


def test_markdown_has_the_best_in_bold_and_every_cell_in_its_column():
    shown = table.markdown(made("clip", "a|b", "best"))
    body = [line for line in shown.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in body}) == 1
    assert len([line for line in body if "**" in line]) == 3
    assert all("best" in line for line in body if "**" in line)


def test_csv_holds_every_number_of_the_table():
    comparison = made("clip", "best")
    lines = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert len(lines) == 6 + 2
    for line, row in zip(lines, comparison.rows, strict=False):
        assert row.mean
        assert (line["method"], int(line["shots"])) == (row.method, row.shots)
        assert float(line["mean"]) == row.mean.mean
        assert float(line["mean_low"]) == row.mean.low
        if row.difference:
            assert float(line["difference"]) == row.difference.estimate.mean
            assert float(line["p"]) == row.difference.estimate.p
            assert int(line["queries_better"]) == row.difference.effect.wins
            assert line["significant"] == ("yes" if row.difference.estimate.p < 0.05 else "no")
        else:
            assert line["difference"] == line["p"] == line["significant"] == ""
    assert [(line["method"], line["mean"], line["shots"]) for line in lines[6:]] == [
        ("chance", "0.07", ""),
        ("labels known", "1.0", ""),
    ]


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv_text_is_no_formula(start):
    comparison = made("clip", "worse")
    rows = (replace(comparison.rows[0], method=start, reason=start, dataset=start), *comparison.rows[1:])
    lines = list(csv.DictReader(io.StringIO(to_csv(replace(comparison, rows=rows)), newline="")))
    assert [lines[0][key] for key in ("method", "reason", "dataset")] == ["'" + start.replace("\r", " ")] * 3
    worse = made("best", "clip")  # numbers below zero stay numbers
    flipped = replace(worse, rows=tuple(replace(row, draw_sd=-0.5) for row in worse.rows))
    assert next(csv.DictReader(io.StringIO(to_csv(flipped))))["draw_sd"] == "-0.5"


def test_latex_escapes_what_it_would_obey():
    assert escape(r"a_b & 50% #1 {x}") == r"a\_b \& 50\% \#1 \{x\}"
    assert escape("\\input") == r"\textbackslash{}input"
    assert escape("é ± 方\n") == r"é $\pm$ [U+65B9] "


def test_latex_has_best_second_and_tiers():
    source = to_latex(made("third", "second", "best", shots=(1,)))
    (best,) = [line for line in source.splitlines() if line.startswith("1 & best")]
    (second,) = [line for line in source.splitlines() if line.startswith("1 & second")]
    (third,) = [line for line in source.splitlines() if line.startswith("1 & third")]
    assert r"\textbf{" in best and r"\underline{" in second
    assert not {r"\textbf", r"\underline"} & set(re.findall(r"\\[a-z]+", third))
    assert all(r"\textsuperscript{ab}" in line for line in (best, second, third))
    assert source.count(r"\toprule") == source.count(r"\bottomrule") == 1
    assert "tier &" not in source


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("size", ["usual", "long"])
def test_latex_compiles(tmp_path, size):
    names = ["clip", NAME, "flexclip{pseudo=50}"] + [f"m{i}" for i in range(17 if size == "long" else 0)]
    comparison = made(*names)
    rows = tuple(replace(row, reason=NASTY, also=(NASTY,)) for row in comparison.rows[:3]) + comparison.rows[3:]
    (tmp_path / "table.tex").write_text(to_latex(replace(comparison, rows=rows)), encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "table.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 10_000
    assert "Overfull" not in done.stdout
    if shutil.which("pdftotext"):
        text = subprocess.run(
            ["pdftotext", "-layout", "table.pdf", "-"], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        assert text.count("clip{pseudo=50}") >= 3 and text.count(NAME.replace("方", "[U+65B9]")) >= 3
        assert "a_b #1 $x$" in text


@pytest.mark.parametrize("style", ["csv", "latex", "json", "github", "rich"])
def test_the_program_prints_every_format(bench, style):
    called = bench("--methods", "random,clip", "--shots", "1", "--draws", "2", "--format", style)
    assert called.code == 0, called.err
    start = {
        "csv": "dataset,encoder,",
        "latex": r"\documentclass",
        "json": "{",
        "github": "manifest",
        "rich": "manifest",
    }
    assert called.out.startswith(start[style])
