"""A comparison as a LaTeX document with booktabs tables: compile it, or take the tables out of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from xshot_bench.benchmarks.comparison import Comparison, Row
from xshot_bench.benchmarks.report.columns import Column, Section, columns, grid, placed, sections
from xshot_bench.benchmarks.report.notes import caption, footnotes

ALIGN = {"method": "l", "mean mAP": r"r@{\qquad}"}  # room for the letters of the tiers
LONG = 45  # lines that a page holds; a longer table becomes one for each X
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "`": r"\textasciigrave{}", "-": "-{}",
    "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "→": r"$\rightarrow$", "↓": r"$\downarrow$",
    "⇓": r"$\Downarrow$", "–": "--", "…": r"\dots{}",
}  # fmt: skip
PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\IfFileExists{cmap.sty}{\usepackage{cmap}}{}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{booktabs}
\usepackage[margin=2cm]{geometry}
\setlength{\belowcaptionskip}{6pt}
\begin{document}
"""


def to_latex(comparison: Comparison) -> str:
    """The document: best mean of each X in bold, the second underlined, tiers as superscripts, notes at the end."""
    asked = [column for column in columns(comparison) if column.header not in ("tier", "s/cell")]
    tables = [_table(comparison, part, asked) for section in sections(comparison) for part in _pages(section)]
    notes = [f"\\noindent {escape(note)}\\par" for note in footnotes(comparison)]
    return "\n".join([PREAMBLE, *tables, r"{\footnotesize", *notes, "}", r"\end{document}", ""])


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands; a character that its standard fonts lack is named by its code point."""
    return "".join(SPECIAL.get(char) or _printable(char) for char in text)


def _printable(char: str) -> str:
    if char.isascii():
        return char if char.isprintable() else " "
    letter = unicodedata.normalize("NFD", char)  # an accented Latin letter is in the T1 fonts
    return char if ord(char) < 0x180 and len(letter) == 2 and letter[0].isascii() else f"[U+{ord(char):04X}]"


def _pages(section: Section) -> list[Section]:
    """The section, cut into one for each X if it is longer than a page; chance and known labels stand in each."""
    if len(section.rows) <= LONG:
        return [section]
    every = dict.fromkeys(row.shots for row in section.rows if row.shots is not None)
    return [replace(section, rows=tuple(row for row in section.rows if row.shots in (x, None))) for x in every]


def _table(comparison: Comparison, section: Section, asked: list[Column]) -> str:
    shown = grid(section, asked)
    headers = shown.headers
    body = []
    for row, cells, following in zip(section.rows, shown.lines, [*section.rows[1:], None], strict=True):
        body.append(" & ".join(_cells(section, row, headers, cells)) + r" \\")
        if following and following.shots != row.shots:
            body.append(r"\midrule")
    title = section.title and f"{section.dataset}, {section.title}"
    return "\n".join(
        [
            r"\begin{table}[ht]",
            rf"\caption{{{escape(title or '. '.join(caption(comparison, section.dataset)))}}}",
            r"\centering\small",
            r"\begin{tabular}{" + "".join(ALIGN.get(header, "r") for header in headers) + "}",
            r"\toprule",
            " & ".join(escape(header) for header in headers) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _cells(section: Section, row: Row, headers: Sequence[str], cells: Sequence[str]) -> list[str]:
    place = placed(section, row)
    style = {0: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}[place]
    found = []
    for header, cell in zip(headers, cells, strict=True):
        text = escape(cell)
        if header == "difference":
            text = text.replace("-{}", "$-$")
        if header == "mean mAP":
            tier = rf"\rlap{{\textsuperscript{{{escape(row.tier)}}}}}" if row.tier else ""
            text = style.format(text) + tier
        found.append(text)
    return found
