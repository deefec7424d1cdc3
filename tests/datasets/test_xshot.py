"""Splits: what must hold for any items, and what happens to damaged files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xshot_bench import InputError
from xshot_bench.datasets.splitting import to_json, write_split
from xshot_bench.datasets.xshot import (
    XShotSplit,
    check_split,
    from_json,
    load_split,
    make_split,
)

sizes_of_classes = st.lists(st.integers(4, 40), min_size=6, max_size=15)
variants = st.sampled_from(["", "b", "c"])
wild_labels = st.lists(st.text(min_size=1, max_size=12), min_size=6, max_size=8, unique=True)


def items(sizes: list[int]) -> dict[str, str]:
    """Item id -> class: class ``c3`` has the items ``c3-0``, ``c3-1``, ..."""
    return {f"c{c}-{n}": f"c{c}" for c, size in enumerate(sizes) for n in range(size)}


def classes(count: int) -> list[str]:
    return [f"c{c}" for c in range(count)]


@given(sizes_of_classes, variants)
@settings(max_examples=60, deadline=None)
def test_classes_and_items_are_parted_and_support_is_from_the_pool(sizes: list[int], variant: str) -> None:
    split = make_split("made-up", variant, items(sizes), classes(len(sizes)))
    assert not set(split.source) & set(split.target)
    assert set(split.source) | set(split.target) == set(classes(len(sizes)))
    assert abs(len(split.source) - len(split.target)) <= 1
    assert 1 <= len(split.validation) < len(split.source)
    assert set(split.validation) < set(split.source)
    for c, size in enumerate(sizes):
        name = f"c{c}"
        train, test = split.train[name], split.test[name]
        assert sorted((*train, *test)) == sorted(i for i, label in items(sizes).items() if label == name)
        if name in split.source:
            assert len(test) == max(2, size // 5)
        elif size >= 10:
            assert len(train) == max(8, size // 2)
        else:
            assert len(test) == 2
    assert sorted(split.support) == list(range(10))
    assert split.max_shots == min(7, *(len(split.train[c]) for c in split.target))
    for draw in split.support.values():
        assert set(draw) == set(split.target)
        for name, ids in draw.items():
            assert len(ids) == len(set(ids)) == split.max_shots
            assert set(ids) <= set(split.train[name])
            assert not set(ids) & set(split.test[name])


@given(sizes_of_classes, variants, st.data())
@settings(max_examples=40, deadline=None)
def test_given_test_items_are_the_test_items(sizes: list[int], variant: str, data: st.DataObject) -> None:
    counts = [data.draw(st.integers(1, size - 1)) for size in sizes]
    test = dict.fromkeys((f"c{c}-{n}" for c, count in enumerate(counts) for n in range(count)), "test")
    split = make_split("made-up", variant, items(sizes), classes(len(sizes)), test)
    assert {i for ids in split.test.values() for i in ids} == set(test)
    assert not {i for ids in split.train.values() for i in ids} & set(test)
    assert not {i for draw in split.support.values() for ids in draw.values() for i in ids} & set(test)


def test_a_class_without_a_test_item_is_named() -> None:
    with pytest.raises(InputError, match="'c3'"):
        make_split("made-up", "", items([5] * 6), classes(6), {f"c{c}-0": "test" for c in range(6) if c != 3})


@given(sizes_of_classes, variants)
@settings(max_examples=20, deadline=None)
def test_one_class_more_moves_no_other_class(sizes: list[int], variant: str) -> None:
    """The test items of a class that stays on its side, and the order of its support, do not change."""
    before = make_split("made-up", variant, items(sizes), classes(len(sizes)))
    after = make_split("made-up", variant, items([*sizes, 20]), classes(len(sizes) + 1))
    for side in ("source", "target"):
        for name in set(getattr(before, side)) & set(getattr(after, side)):
            assert before.train[name] == after.train[name]
            assert before.test[name] == after.test[name]
    shots = min(before.max_shots, after.max_shots)
    for draw in before.support:
        for name in set(before.target) & set(after.target):
            assert before.support[draw][name][:shots] == after.support[draw][name][:shots]


def test_the_default_target_is_every_second_class_and_the_variants_differ() -> None:
    splits = [make_split("made-up", variant, items([12] * 20), classes(20)) for variant in ("", "b", "c")]
    assert splits[0].target == tuple(f"c{c}" for c in range(0, 20, 2))
    assert len({split.target for split in splits}) == len({split.digest for split in splits}) == 3
    assert all(split.target == tuple(sorted(split.target, key=lambda c: int(c[1:]))) for split in splits)


def test_draws_and_datasets_differ() -> None:
    split = make_split("made-up", "", items([40] * 6), classes(6))
    assert len({draw["c0"] for draw in split.support.values()}) == 10
    other = make_split("other", "", items([40] * 6), classes(6))
    assert other.test["c0"] != split.test["c0"]


def test_every_pool_item_can_be_drawn_first() -> None:
    """Over many classes, the first shot lies evenly over the pool (chi-squared, 1 in 10,000 at the limit)."""
    split = make_split("made-up", "", items([16] * 120), classes(120))
    places = [split.train[c].index(draw[c][0]) for draw in split.support.values() for c in split.target]
    counts = [places.count(place) for place in range(8)]
    mean = len(places) / 8
    assert sum((count - mean) ** 2 / mean for count in counts) < 29.9


@pytest.mark.parametrize(
    ("sizes", "said"), [([5] * 5, "at least 6 classes"), ([3, *[9] * 6], "'c0' \\(3\\)"), ([], "at least 6 classes")]
)
def test_too_little_is_refused(sizes: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_split("made-up", "", items(sizes), classes(len(sizes)))


@given(wild_labels, variants)
@settings(max_examples=15, deadline=None)
def test_any_label_survives_the_file(labels: list[str], variant: str) -> None:
    members = {f"{c}/{n}": label for c, label in enumerate(labels) for n in range(5)}
    split = make_split("made-up", variant, members, labels)
    assert from_json(to_json(split)) == split


def test_the_digest_is_that_of_the_canonical_content(tmp_path: Path) -> None:
    """Worked out from the file alone: SHA-256 of its JSON with sorted keys, without the digest."""
    split = make_split("made-up", "", items([12] * 6), classes(6))
    write_split(tmp_path / "made-up.json", split)
    assert load_split(tmp_path / "made-up.json") == split
    content = json.loads((tmp_path / "made-up.json").read_text())
    said = content.pop("digest")
    assert said == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest() == split.digest


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace('"c1-3"', '"c1-4"', 1), "digest"),
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: "", "damaged"),
        (lambda text: "[]", "damaged"),
        (lambda text: "{}", "damaged"),
        (lambda text: "[" * 100_000, "damaged"),
        (lambda text: text.replace('"support"', '"supports"'), "damaged"),
        (lambda text: text.replace('"train": {', '"train": 3, "x": {'), "damaged"),
        (lambda text: "\0" + text, "damaged"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(damage: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "openmoji-b.json"
    split = make_split("openmoji", "b", items([12] * 6), classes(6))
    path.write_text(damage(to_json(split)))  # type: ignore[operator]
    with pytest.raises(InputError, match=said) as error:
        load_split(path)
    assert str(path) in str(error.value)
    assert "run_bench.py splits openmoji" in str(error.value)


def test_bytes_that_are_no_text_and_no_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "openmoji.json"
    with pytest.raises(InputError, match="cannot be read"):
        load_split(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="damaged"):
        load_split(path)


def spoiled(split: XShotSplit, kind: str) -> XShotSplit:
    """The split with one rule broken."""
    c, d = split.target[0], split.source[0]
    change = {
        "unknown item": {"test": {**split.test, c: (*split.test[c], "c99-0")}},
        "item of another class": {"train": {**split.train, c: (*split.train[c], split.train[d][0])}},
        "train and test": {"test": {**split.test, c: (*split.test[c], split.train[c][0])}},
        "test item as support": {"support": {0: {**split.support[0], c: (split.test[c][0],)}}},
        "support twice": {"support": {0: {**split.support[0], c: (split.train[c][0],) * 2}}},
        "class without support": {"support": {0: {d: ids for d, ids in split.support[0].items() if d != c}}},
        "both sides": {"source": (*split.source, c)},
        "class missing": {"target": split.target[1:]},
        "foreign validation": {"validation": (c,)},
        "no test item": {"test": {**split.test, c: ()}},
    }[kind]
    return dataclasses.replace(split, **change)


@pytest.mark.parametrize(
    "kind",
    [
        "unknown item",
        "item of another class",
        "train and test",
        "test item as support",
        "support twice",
        "class without support",
        "both sides",
        "class missing",
        "foreign validation",
        "no test item",
    ],
)
def test_a_split_that_does_not_fit_is_refused(kind: str) -> None:
    split = make_split("made-up", "", items([12] * 6), classes(6))
    check_split(split, items([12] * 6), classes(6))
    with pytest.raises(InputError, match="does not fit"):
        check_split(spoiled(split, kind), items([12] * 6), classes(6))
