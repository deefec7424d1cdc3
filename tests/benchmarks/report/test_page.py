"""The page as a file: it loads nothing, says what the store says, and takes no orders from data."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import shlex
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from reporting import ALERT, DRAWS, ENDING, METHODS, SHOTS, Reported

from xshot_bench.benchmarks.report.page import make_page
from xshot_bench.benchmarks.report.page_examples import FIRST, SHOWN, Items, examples
from xshot_bench.run_bench import call


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the files, which take longer than the page."""
    monkeypatch.setattr("xshot_bench.benchmarks.publish.figure_files", lambda findings: iter(()))


def elsewhere(reported: Reported, folder: Path) -> list[str]:
    """The run's options, with a copy of its results."""
    results = reported.folder / "results"
    shutil.copytree(results, folder / "results")
    return [str(folder / "results") if option == str(results) else option for option in reported.options]


def test_it_loads_nothing(reported: Reported) -> None:
    page = Tags(reported.text)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "img")
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    style = reported.text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style.replace("url(#", "") and "@import" not in style
    assert re.findall(r"url\((?!#)", reported.text) == []


def test_only_our_script_may_run(reported: Reported) -> None:
    policy = next(a["content"] for t, a in Tags(reported.text).tags if a.get("http-equiv"))
    assert policy and "default-src 'none'" in policy
    scripts = re.findall(r"<script(.*?)>(.*?)</script>", reported.text, re.S)
    assert len(scripts) == 2 and 'type="application/json"' in scripts[0][0] and not scripts[1][0]
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_markup_in_data_is_text(reported: Reported) -> None:
    assert ALERT not in reported.text and "<img" not in reported.text and "<b>&$" not in reported.text
    tags = {tag for tag, _ in Tags(reported.text).tags}
    assert "i" not in tags and not any(name.startswith("on") for _, a in Tags(reported.text).tags for name in a)
    assert " 49 " not in reported.text and "{{ 7 * 7 }}" in json.dumps(reported.data_of_page, ensure_ascii=False)
    texts = {item["text"] for item in reported.data_of_page["items"]}
    assert texts <= {row["text"] for row in reported.items.values()} and any(ALERT in text for text in texts)
    assert "class-red <b>&$1$" in html.unescape(reported.text)


def test_words_of_methods_and_encoders_are_text_too(findings) -> None:
    """A reason is an exception's message, so it may hold what a file holds."""
    rows = [replace(row, reason=ALERT, also=(ENDING,)) for row in findings.comparison.rows]
    comparison = replace(findings.comparison, rows=tuple(rows))
    plan = replace(findings.plan, suite=findings.plan.suite.model_copy(update={"encoder": ENDING}))
    page = make_page(replace(findings, comparison=comparison, plan=plan))
    assert ALERT not in page and ENDING not in page and "<img" not in page
    assert page.count(html.escape(ALERT)) >= len(rows) and ENDING in Tags(page).text


def test_it_shows_every_number_of_the_table(reported: Reported) -> None:
    (folder,) = (reported.folder / "results" / "invocations").iterdir()
    table = pd.read_csv(folder / "table.csv")
    text = Tags(reported.text).text
    for row in table[table["method"].isin(METHODS)].itertuples():
        half = 50 * (row.mean_high - row.mean_low)
        assert f"{100 * row.mean:.1f} ± {half:.1f}" in text
    assert len(table) == 2 * len(METHODS) * len(SHOTS) + 2
    for record in reported.store.records():
        assert f"mAP {100 * record.metrics['mAP']:.2f}" in text and record.cell.digest in reported.text
        assert record.cell.split in text


def test_the_scatter_holds_the_mean_over_draws(reported: Reported) -> None:
    data = reported.data_of_page
    for spot in data["spots"]:
        for method in METHODS:
            records = [
                r for r in reported.store.records()
                if (r.cell.dataset, str(r.cell.shots), r.cell.method) == (spot["dataset"], spot["shots"], method)
            ]  # fmt: skip
            assert len(records) == DRAWS
            mean = pd.concat(reported.store.average_precision(r) for r in records).groupby("query").mean()
            for i, query in enumerate(spot["queries"]):
                item = data["items"][query]["id"]
                for direction in ("i2t", "t2i"):
                    assert spot["ap"][method][direction][i] == pytest.approx(1000 * mean.loc[item, direction], abs=0.51)


def test_examples_are_the_worst_and_the_most_changed(reported: Reported) -> None:
    data = reported.data_of_page
    spot = next(s for s in data["spots"] if (s["dataset"], s["shots"]) == ("manifest", "2"))
    found = spot["examples"]["prototype"]
    assert found["baseline"] == "clip" and spot["examples"]["clip"]["baseline"] == ""
    record = next(
        r for r in reported.store.records()
        if (r.cell.dataset, r.cell.shots, r.cell.method, r.cell.draw) == ("manifest", 2, "prototype", 0)
    )  # fmt: skip
    ranked = reported.store.rankings(record).set_index("query")
    for direction in ("i2t", "t2i"):
        ap, base = (np.array(spot["ap"][method][direction]) for method in ("prototype", "clip"))
        shown = {kind: [one["ap"] for one in examples] for kind, examples in found[direction].items()}
        assert [one["prototype"] for one in shown["worst"]] == sorted(ap)[:SHOWN]
        gains = [one["prototype"] - one["clip"] for one in shown["gained"]]
        assert gains == pytest.approx(sorted(ap - base, reverse=True)[: len(gains)], abs=1) and min(gains) > 0
        losses = [one["prototype"] - one["clip"] for one in shown["lost"]]
        assert losses == pytest.approx(sorted(ap - base)[: len(losses)], abs=1) and max(losses, default=-1) < 0
        for one in found[direction]["worst"]:
            query = data["items"][one["query"]]
            names = [data["items"][n] for n in one["first"]["prototype"]]
            assert [item["id"] for item in names] == list(ranked.loc[query["id"], f"{direction}_first"])[:FIRST]
            right = [reported.items[item["id"]]["label"] == reported.items[query["id"]]["label"] for item in names]
            assert one["right"]["prototype"] == [int(mark) for mark in right]


def test_thumbnails_are_small_pictures_of_their_items(reported: Reported) -> None:
    data = reported.data_of_page
    assert data["pictures"]
    for number, uri in data["pictures"].items():
        kind, _, content = uri.partition(",")
        assert kind == "data:image/webp;base64"
        small = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), float).mean((0, 1))
        name = data["items"][int(number)]["id"]
        with Image.open(reported.data / name) as picture:
            assert small == pytest.approx(np.asarray(picture.convert("RGB"), float).mean((0, 1)), abs=12)
    assert len(reported.text) < 3_000_000


def test_pictures_stay_within_their_budget(monkeypatch: pytest.MonkeyPatch, reported: Reported, findings) -> None:
    monkeypatch.setattr("xshot_bench.benchmarks.report.page_examples.BUDGET", 3_000)
    items = Items({material.name: material.dataset for material in findings.plan.materials})
    for spot in findings.spots:
        examples(spot, findings.baselines, items)
    few, all_of_them = items.pictures(), reported.data_of_page["pictures"]
    assert 0 < len(few) < len(all_of_them)
    assert sum(map(len, few.values())) <= 3_000


def test_a_cells_command_computes_that_cell(reported: Reported, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r'<div class="command"><code>(.*?)</code>', reported.text)
    assert len(code) == 2 * len(METHODS) * len(SHOTS) * DRAWS
    wanted = next(
        record
        for record in reported.store.records()
        if (record.cell.method, record.cell.dataset, record.cell.shots, record.cell.draw)
        == ("prototype", "manifest/b", 2, 1)
    )
    place = reported.text.index(f'title="{wanted.cell.digest}"')
    command = html.unescape(re.search(r"<code>(python .*?)</code>", reported.text[place:]).group(1))  # type: ignore[union-attr]
    program, *arguments = shlex.split(command)[1:]
    assert program == "run_bench.py"
    assert call([*arguments, "--cache", str(tmp_path / "cache"), "--mlflow-uri", "none", "--jobs", "1"]) == 0
    again = json.loads((tmp_path / "again" / "cells" / f"{wanted.cell.digest}.json").read_text())
    assert again["metrics"] == wanted.metrics


def test_it_is_the_same_page_every_time(reported: Reported, findings) -> None:
    assert make_page(findings) == reported.text


@pytest.mark.usefixtures("no_figures")
def test_without_the_dataset_it_is_made_from_the_records(reported: Reported, tmp_path, capsys) -> None:
    options = elsewhere(reported, tmp_path)
    options[options.index("--root") + 1] = str(tmp_path / "gone")
    assert call(["report", *options, "--to", str(tmp_path / "page.html")]) == 0
    assert "without pictures" in capsys.readouterr().err
    bare = Reported(tmp_path, tmp_path, (), "", {})
    assert 'id="no-pictures"' in bare.text and not bare.data_of_page["pictures"]
    assert bare.data_of_page["spots"][0]["ap"] == reported.data_of_page["spots"][0]["ap"]
    assert {item["id"] for item in bare.data_of_page["items"]} == {i["id"] for i in reported.data_of_page["items"]}


@pytest.mark.usefixtures("no_figures")
def test_what_cannot_be_shown_is_said(reported: Reported, tmp_path, capsys) -> None:
    options = elsewhere(reported, tmp_path)
    assert call(["report", *options, "--shots", "3"]) == 2
    assert "holds no result of this suite" in capsys.readouterr().err
    assert call(["report", *options, "--to", str(tmp_path / "no" / "page.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert call(["report", *options, "--shots", "2,3"]) == 0
    assert "Not all is there: 18 new, 18 done of 36 cells." in capsys.readouterr().err


@pytest.mark.usefixtures("no_figures")
def test_without_options_it_shows_what_was_asked_last(reported: Reported, tmp_path, capsys) -> None:
    options = elsewhere(reported, tmp_path)
    suite = options.index("--root")  # which the options of the suite come before, and the encoder after
    places = [*options[suite : suite + 2], *options[suite + 4 :]]
    again = Reported(tmp_path, tmp_path, (), "", {})
    assert call(["report", *places, "--to", str(again.page)]) == 0
    assert "what was asked last: 3 methods, manifest,manifest/b X=0,2." in capsys.readouterr().err
    assert again.data_of_page["spots"] == reported.data_of_page["spots"]

    assert call([*options, "--methods", "clip", "--shots", "2"]) == 0
    assert call(["report", *places, "--to", str(again.page)]) == 0
    assert "what was asked last: 1 method, manifest,manifest/b X=2." in capsys.readouterr().err
    assert len(again.data_of_page["spots"]) < len(reported.data_of_page["spots"])

    assert call(["report", *places, "--suite", "default"]) == 2
    assert "what was asked last" not in capsys.readouterr().err
