"""The K-shot split: CoOp's draws item by item, and what must hold for any items."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xshot_bench import InputError
from xshot_bench.datasets.kshot import KShotSplit, make_split
from xshot_bench.datasets.splitting import Part, to_json

COOP = Path(__file__).resolve().parents[3] / "shared" / "data" / "coop"
VECTORS = {  # the published samples for classes of 60 training items: seed -> the first classes' places at K = 4
    1: [[8, 36, 54, 51], [48, 4, 16, 7], [31, 48, 28, 30]],
    2: [[55, 54, 3, 5], [5, 23, 53, 10], [47, 51, 42, 54]],
    3: [[15, 37, 34, 8], [23, 58, 38, 30], [40, 37, 4, 38]],
}
sizes_of_classes = st.lists(st.integers(2, 30), min_size=4, max_size=12)


def halves(sizes: list[int], variant: str = "") -> KShotSplit:
    """A nested split of items ``c3-0``, ``c3-1``, ... without parts of their own."""
    labels = {f"c{c}-{n}": f"c{c}" for c, size in enumerate(sizes) for n in range(size)}
    return make_split("made-up", variant, labels, [f"c{c}" for c in range(len(sizes))])


def parted(train: int, val: int = 6, test: int = 5, classes: int = 5, variant: str = "") -> KShotSplit:
    """A split drawn as CoOp draws, of classes of one size; items are ``train/c2/17``."""
    labels: dict[str, str] = {}
    parts: dict[str, Part] = {}
    for part, size in (("train", train), ("val", val), ("test", test)):
        for c in range(classes):
            for n in range(size):
                labels[f"{part}/c{c}/{n}"], parts[f"{part}/c{c}/{n}"] = f"c{c}", part  # type: ignore[assignment]
    return make_split("made-up", variant, labels, [f"c{c}" for c in range(classes)], parts, sampling="coop")


def places(ids: tuple[str, ...]) -> list[list[int]]:
    """The places in their class of items named ``train/c2/17``, class by class."""
    found: dict[str, list[int]] = defaultdict(list)
    for item in ids:
        _, c, place = item.split("/")
        found[c].append(int(place))
    return list(found.values())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_draws_are_the_published_ones(seed: int) -> None:
    roles = parted(train=60).roles(4, seed, "test")
    assert places(roles.support)[:3] == VECTORS[seed]


@pytest.mark.skipif(not COOP.is_dir(), reason="needs ../shared/data/coop, the published samples of DTD")
@pytest.mark.parametrize(("shots", "seed"), [(4, 1), (16, 2)])
def test_the_samples_of_dtd_are_the_published_ones_item_by_item(shots: int, seed: int) -> None:
    """Training and validation indices as the index files have them, in their order."""
    lists = json.loads((COOP / "split_zhou_DescribableTextures.json").read_text())
    published = json.loads((COOP / f"dtd-shot_{shots}-seed_{seed}.json").read_text())
    labels = {path: name for part in lists.values() for path, _, name in part}
    parts: dict[str, Part] = {path: part for part, rows in lists.items() for path, _, _ in rows}  # type: ignore[misc]
    names = dict(sorted({number: name for _, number, name in lists["train"]}.items()))
    split = make_split("dtd", "", labels, list(names.values()), parts, sampling="coop")
    roles = split.roles(shots, seed, "test")
    for part, ids in (("train", roles.support), ("val", roles.validation)):
        place = {path: n for n, (path, _, _) in enumerate(lists[part])}
        assert [place[item] for item in ids] == published[part]["indices"]
    assert Counter(labels[i] for i in roles.support) == dict.fromkeys(labels.values(), shots)
    assert len(roles.validation) == 47 * 4
    assert roles.image_queries == roles.text_gallery
    assert set(roles.image_queries) == {path for path, _, _ in lists["test"]}


def test_draws_depend_on_the_order_of_the_lists_which_is_never_sorted() -> None:
    """Classes are drawn in the order of their first item in the training list, items in the order of the list."""
    labels = {"b/9": "b", "a/5": "a", "b/1": "b", "a/2": "a", "b/0": "b", "a/7": "a", "t/a": "a", "t/b": "b"}
    split = make_split("x", "", labels, ["a", "b"], {"t/a": "test", "t/b": "test"}, sampling="coop")
    assert list(split.train) == ["b", "a"]
    for seed in split.draws:
        generator = random.Random(seed)
        drawn = [*generator.sample(["b/9", "b/1", "b/0"], 2), *generator.sample(["a/5", "a/2", "a/7"], 2)]
        assert list(split.roles(2, seed, "test").support) == drawn
    turned = make_split("x", "", dict(reversed(labels.items())), ["a", "b"], split_parts(labels), sampling="coop")
    assert turned.digest != split.digest


def split_parts(labels: dict[str, str]) -> dict[str, Part]:
    return {item: "test" for item in labels if item.startswith("t/")}


def test_a_class_with_fewer_items_gives_all_it_has_and_is_named() -> None:
    """And takes no random number: the next class is drawn as if it were not there."""
    labels = {f"{c}/{n}": c for c, size in (("a", 3), ("b", 9)) for n in range(size)} | {"t/a": "a", "t/b": "b"}
    split = make_split("x", "", labels, ["a", "b"], split_parts(labels), sampling="coop")
    assert split.max_shots == 9
    support = split.roles(4, 1, "test").support
    assert support[:3] == ("a/0", "a/1", "a/2")
    assert list(support[3:]) == random.Random(1).sample([f"b/{n}" for n in range(9)], 4)
    assert split.remarks([1, 4, "all"]) == (
        "1 classes have fewer than 4 training items, and give all they have: a (3)",
    )
    assert split.remarks([1, 3]) == ()


@pytest.mark.parametrize(("shots", "expected"), [(0, 0), (1, 1), (4, 4), (16, 4), ("all", 6)])
def test_validation_items_are_at_most_four_a_class(shots: int, expected: int) -> None:
    roles = parted(train=20).roles(shots, 1, "test")
    assert len(roles.validation) == expected * 5
    assert len(roles.support) == (20 if shots == "all" else shots) * 5
    assert not roles.source and not roles.source_classes and not roles.validation_classes


def test_a_class_may_have_no_validation_items() -> None:
    labels = {f"{part}/{c}": c for part in ("train", "val", "test") for c in "ab" if (part, c) != ("val", "a")}
    parts: dict[str, Part] = {item: item.partition("/")[0] for item in labels}  # type: ignore[misc]
    roles = make_split("x", "", labels, ["a", "b"], parts, sampling="coop").roles(1, 1, "test")
    assert roles.validation == ("val/b",)


@pytest.mark.parametrize("classes", [4, 5, 10])
def test_base_and_new_part_the_classes_and_draw_as_the_whole_does(classes: int) -> None:
    """The larger half of the classes is base; CoOp draws of all classes, then leaves the new ones out."""
    whole, base, new = (parted(train=12, classes=classes, variant=v) for v in ("", "base", "new"))
    names = [f"c{c}" for c in range(classes)]
    first = -(-classes // 2)
    assert base.target == new.source == tuple(names[:first])
    assert new.target == tuple(names[first:]) and base.source == ()
    for seed in (1, 2):
        drawn = [i for i in whole.roles(4, seed, "test").support if i.split("/")[1] in base.target]
        assert list(base.roles(4, seed, "test").support) == list(new.roles(4, seed, "test").source) == drawn
    tested = {i.split("/")[1] for i in base.roles(4, 1, "test").image_queries}
    assert tested == set(base.target) == {i.split("/")[1] for i in base.roles(4, 1, "test").validation}
    roles = new.roles(4, 1, "test")
    assert roles.candidates == new.target and roles.support == roles.validation == ()
    assert {i.split("/")[1] for i in roles.image_gallery} == set(new.target)
    assert 0 < len(roles.validation_classes) < first and set(roles.validation_classes) < set(new.source)
    assert len({whole.digest, base.digest, new.digest}) == 3


@given(sizes_of_classes)
@settings(max_examples=40, deadline=None)
def test_nested_draws_are_nested_and_never_meet_the_test_items(sizes: list[int]) -> None:
    split = halves(sizes)
    most = split.max_shots
    assert most == min(size // 2 for size in sizes)
    seen: set[str] = set()
    for shots in range(1, most + 1):
        roles = split.roles(shots, 3, "test")
        support = set(roles.support)
        assert len(roles.support) == len(support) == shots * len(sizes)
        assert seen <= support and not support & set(roles.image_queries)
        assert Counter(i.partition("-")[0] for i in support) == dict.fromkeys(split.target, shots)
        seen = support
    whole = split.roles("all", 3, "test")
    assert seen <= set(whole.support) and whole.validation == ()
    assert len(whole.support) + len(whole.image_queries) == sum(sizes)


def test_nested_draws_differ_and_a_class_is_drawn_alike_in_every_variant() -> None:
    split, base = halves([30] * 6), halves([30] * 6, "base")
    assert len({split.roles(1, draw, "test").support for draw in split.draws}) == len(split.draws) == 10
    assert base.roles(3, 2, "test").support == split.roles(3, 2, "test").support[:9]
    assert base.test["c1"] == split.test["c1"]


def test_nested_draws_are_what_they_were() -> None:
    """Detects a change of the stream that draws come from: the digest would not."""
    roles = halves([8] * 4).roles(2, 1, "test")
    assert roles.support == ("c0-0", "c0-4", "c1-2", "c1-5", "c2-4", "c2-6", "c3-2", "c3-0")


@pytest.mark.parametrize(
    ("sizes", "variant", "said"),
    [([9, 1, 9, 9], "", "'c1'"), ([9], "", "at least 2 classes"), ([9, 9, 9], "new", "x/new needs at least 4 classes")],
)
def test_too_little_is_refused(sizes: list[int], variant: str, said: str) -> None:
    labels = {f"c{c}-{n}": f"c{c}" for c, size in enumerate(sizes) for n in range(size)}
    with pytest.raises(InputError, match=said):
        make_split("x", variant, labels, [f"c{c}" for c in range(len(sizes))])


def test_the_stored_file_has_a_line_a_class_and_all_that_draws_need() -> None:
    """A draw can be made again from the file alone."""
    split = parted(train=7, classes=3)
    lines = to_json(split).splitlines()
    assert len(lines) == 5 + 3 * 5 + 2
    content = json.loads(to_json(split))
    generator = random.Random(2)
    drawn = [i for c in content["train"].values() for i in generator.sample(c, 4)]
    assert drawn == list(split.roles(4, 2, "test").support)


def test_the_digest_covers_items_order_and_sampling() -> None:
    labels = {"a0": "a", "a1": "a", "a2": "a", "b0": "b", "b1": "b"}
    splits = [
        make_split("x", "", given, names, {"a0": "test", "b0": "test"}, sampling=sampling)  # type: ignore[arg-type]
        for given, names, sampling in [
            (labels, ["a", "b"], "coop"),
            (labels, ["a", "b"], "nested"),
            (labels, ["b", "a"], "coop"),
            ({"a0": "a", "a2": "a", "a1": "a", "b0": "b", "b1": "b"}, ["a", "b"], "coop"),
            ({"b0": "b", "b1": "b", "a0": "a", "a1": "a", "a2": "a"}, ["a", "b"], "coop"),
        ]
    ]
    assert len({split.digest for split in splits}) == len(splits)
