"""A user's own folder: what is read, what is refused and with what words."""

from __future__ import annotations

import csv
import json
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xshot_bench import InputError
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.manifest import Manifest

Row = dict[str, Any]


def picture(seed: int, side: int = 12) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def good_rows(classes: int = 6, size: int = 5) -> list[Row]:
    return [
        {"file_name": f"{c}-{n}.png", "text": f"thing {n}", "label": f"kind {c}"}
        for c in range(classes)
        for n in range(size)
    ]


def save_pictures(folder: Path, rows: list[Row]) -> None:
    for seed, row in enumerate(rows):
        picture(seed).save(folder / row["file_name"])


def write_csv(folder: Path, rows: list[Row], columns: list[str] | None = None) -> None:
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(folder: Path, rows: list[Row]) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(folder: Path | None, skip: bool = False) -> Manifest:
    return Manifest.open(DatasetOptions(root=folder, skip_bad_items=skip))


def refusal(folder: Path | None, skip: bool = False) -> str:
    with pytest.raises(InputError) as error:
        read(folder, skip)
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six classes of five good pictures, without metadata."""
    save_pictures(tmp_path, good_rows())
    return tmp_path


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_items_and_pictures_are_those_of_the_rows(folder: Path, write: Callable[[Path, list[Row]], None]) -> None:
    write(folder, good_rows())
    data = read(folder)
    assert [(i.id, i.text, i.label) for i in data.items] == [tuple(row.values()) for row in good_rows()]
    assert data.classes == tuple(f"kind {c}" for c in range(6))
    assert data.notes == ()
    for index in (0, 7, 29):
        assert np.array_equal(np.asarray(data.picture(index)), np.asarray(picture(index)))


def test_both_forms_and_a_byte_order_mark_read_alike(folder: Path, tmp_path: Path) -> None:
    write_csv(folder, good_rows())
    from_csv = read(folder)
    (folder / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + (folder / "metadata.csv").read_bytes())
    assert read(folder).items == from_csv.items
    (folder / "metadata.csv").unlink()
    write_jsonl(folder, good_rows())
    assert read(folder).items == from_csv.items
    assert read(folder).digest == from_csv.digest


def bad_folder(folder: Path) -> list[Row]:
    """Twelve rows that are bad, each in its own way, and what makes them so."""
    outside = folder.parent / f"{folder.name}-outside.png"
    picture(99).save(outside)
    (folder / "link.png").symlink_to(outside)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    whole = folder / "0-0.png"
    (folder / "cut.png").write_bytes(whole.read_bytes()[:150])
    (folder / "words.png").write_text("not a picture")
    (folder / "empty.png").touch()
    (folder / "bomb.png").write_bytes(huge_png(200_000, 200_000))
    (folder / "large.png").write_bytes(huge_png(10_000, 9_000))
    (folder / "dir.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    names = ["missing.png", f"../{outside.name}", str(outside), "link.png", "loop.png", "cut.png", "words.png",
             "empty.png", "bomb.png", "large.png", "dir.png", "pipe.png"]  # fmt: skip
    return [{"file_name": name, "text": "a", "label": "kind 0"} for name in names]


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has width × height pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("error")
def test_all_bad_rows_are_in_one_message_with_their_lines(folder: Path) -> None:
    bad = bad_folder(folder)
    picture(98).save(folder / "lonely.png")
    more = [
        {"file_name": "0-0.png", "text": " ", "label": "kind 0"},
        {"file_name": "0-0.png", "text": "two\nlines", "label": ""},
        {"file_name": "", "text": "a", "label": "kind 0"},
        {"file_name": "0-1.png", "text": "a", "label": "kind 0", "split": "tset"},
        {"file_name": "lonely.png", "text": "a", "label": "lonely"},
    ]
    write_csv(folder, [*bad, *more, *good_rows(), good_rows()[3]], ["file_name", "text", "label", "split"])
    said = refusal(folder)
    lines = dict(re.findall(r"^  line (\d+): (.*)$", said, re.M))
    expected = {
        2: "no file 'missing.png'", 3: "outside the folder", 4: "outside the folder", 5: "outside the folder",
        6: "'loop.png'", 7: "'cut.png' cannot be read", 8: "'words.png' is not a picture",
        9: "'empty.png' is not a picture", 10: "pixels", 11: "pixels", 12: "no file 'dir.png'",
        13: "no file 'pipe.png'", 14: "text is empty", 15: "label is empty", 17: "file_name is empty",
        18: "'tset', not train, val or test", 19: "class 'lonely' has 1 usable items", 50: "the picture of line 23",
    }  # fmt: skip
    assert sorted(map(int, lines)) == sorted(expected)
    for line, words in expected.items():
        assert words in lines[str(line)]
    assert "18 of 48 items are bad" in said
    assert "--skip-bad-items" in said
    assert "object at 0x" not in said


def test_bad_items_are_left_out_when_asked(folder: Path) -> None:
    write_csv(folder, [*bad_folder(folder), *good_rows()])
    data = read(folder, skip=True)
    assert [item.id for item in data.items] == [row["file_name"] for row in good_rows()]
    assert data.notes[0].startswith("12 of 42 items are bad and left out: there is no file … (3), … leads outside")
    assert np.array_equal(np.asarray(data.picture(0)), np.asarray(picture(0)))


@pytest.mark.parametrize(("write", "line"), [(write_csv, 1), (write_jsonl, 3)])
def test_unknown_columns_are_in_the_message_and_cost_no_item(
    folder: Path, write: Callable[[Path, list[Row]], None], line: int
) -> None:
    rows = [*good_rows(), {"file_name": "no.png", "text": "a", "label": "kind 0"}]
    columns = [*good_rows()[0], "colour"]
    if write is write_csv:
        write_csv(folder, rows, columns)
    else:
        rows[2]["colour"] = rows[5]["colour"] = "red"
        write_jsonl(folder, rows)
    said = refusal(folder)
    assert said.startswith("1 of 31 items are bad, 1 column is unknown.")
    assert f"line {line}: unknown column 'colour'" in said and "no file 'no.png'" in said
    data = read(folder, skip=True)
    assert len(data.items) == 30
    assert data.notes == ("1 of 31 items are bad, 1 column is unknown and left out: there is no file … (1)",)
    write(folder, good_rows())
    assert read(folder).digest == data.digest


def test_bad_items_leave_ids_and_digest_as_they_are(folder: Path) -> None:
    write_csv(folder, good_rows())
    before = read(folder)
    write_csv(folder, [{"file_name": "no.png", "text": "a", "label": "b"}, *good_rows()])
    after = read(folder, skip=True)
    assert (after.items, after.digest) == (before.items, before.digest)


def test_a_long_list_is_cut(folder: Path) -> None:
    write_csv(folder, [{"file_name": f"no{n}.png", "text": "a", "label": "b"} for n in range(80)])
    said = refusal(folder)
    assert "80 of 80 items are bad. None is usable." in said
    assert len(said.splitlines()) == 52
    assert said.endswith("... and 30 more")
    assert refusal(folder, skip=True) == said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "lists no items"),
        (b"file_name,text,label\n", "lists no items"),
        (b"file_name,text\n0-0.png,a\n", "lacks the columns label"),
        (b"file_name\n0-0.png\n", "lacks the columns label, text"),
        (b"file_name,text,label,colour\n0-0.png,a,b,c\n", "line 1: unknown column 'colour'"),
        (b"file_name,text,label,text\n0-0.png,a,b,c\n", "two columns of one name"),
        (b"file_name,text,label\n0-0.png,\xff\xfe,b\n", "not UTF-8"),
        (b"file_name,text,label\n0-0.png,a\0,b\n", "NUL"),
        (b'file_name,text,label\n0-0.png,a,b\n0-1.png,"a,b\n', "starts on line 3"),
        (b'file_name,text,label\n0-0.png,"a"b,c\n', "starts on line 2"),
        (b"file_name,text,label\n0-0.png,a,kind 0,more\n", "line 2: it has more fields"),
        (b"file_name,text,label\n\n\n0-0.png\n", "line 4: text is empty"),
    ],
)
def test_an_unreadable_csv_is_one_clear_message(folder: Path, content: bytes, said: str) -> None:
    (folder / "metadata.csv").write_bytes(content)
    assert said in refusal(folder)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "line 31 is no JSON"),
        (b"[1]", "line 31 is no JSON object"),
        (b"[" * 100_000, "line 31 is no JSON"),
        (b'{"file_name": "0-0.png", "text": "a", "label": "b", "size": 3}', "line 31: unknown column 'size'"),
        (b'{"file_name": "0-0.png", "text": ["a"], "label": "kind 0"}', "line 31: text is not a text"),
        (b'{"file_name": "0-0.png", "text": null, "label": "kind 0"}', "line 31: text is empty"),
        (b'{"file_name": "0-0.png", "text": "a"}', "line 31: label is empty"),
        (b'{"file_name": "0-0.png", "text": "\\ud800", "label": "kind 0"}', "line 31: text holds half"),
        (b'{"file_name": "a\\u0000b", "text": "a", "label": "kind 0"}', "line 31: "),
        (b'{"file_name": "' + b"n" * 5000 + b'", "text": "a", "label": "kind 0"}', "line 31: "),
        (b"\xff", "not UTF-8"),
    ],
)
def test_an_unreadable_jsonl_is_one_clear_message(folder: Path, line: bytes, said: str) -> None:
    write_jsonl(folder, good_rows())
    path = folder / "metadata.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    message = refusal(folder)
    assert said in message
    assert len(message) < 1000


def test_the_folder_and_the_file_must_be_there_once(tmp_path: Path) -> None:
    assert "--root DIR" in refusal(None)
    assert "is not a folder" in refusal(tmp_path / "no")
    assert "neither" in refusal(tmp_path)
    (tmp_path / "metadata.csv").touch()
    (tmp_path / "metadata.jsonl").touch()
    assert "both" in refusal(tmp_path)
    assert "is not a folder" in refusal(tmp_path / "metadata.csv")


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_labels_and_texts_are_plain_data(folder: Path, write: Callable[[Path, list[Row]], None]) -> None:
    labels = ["a,b", "../../etc", 'say "x"', "two\nlines", "\u202eשלום\u202c", "{0} %s \\ '"]
    rows = [{**row, "label": labels[n // 5], "text": row["text"] * 15_000} for n, row in enumerate(good_rows())]
    write(folder, rows)
    data = read(folder)
    assert data.classes == tuple(sorted(labels))
    assert [item.text for item in data.items] == [row["text"] for row in rows]
    assert len(data.items[0].text) > 100_000
    assert set(data.split("xshot", "b").train) == set(labels)
    assert len(data.class_prompts()) == 6


def test_marked_test_items_are_the_test_items(folder: Path) -> None:
    rows = [{**row, "split": "test" if n % 5 in (1, 3) else ("train", "")[n % 2]} for n, row in enumerate(good_rows())]
    write_csv(folder, rows)
    split = read(folder).split()
    assert {i for ids in split.test.values() for i in ids} == {r["file_name"] for r in rows if r["split"] == "test"}
    assert split.max_shots == 3


def test_without_marks_the_rule_of_all_datasets_holds(folder: Path) -> None:
    write_csv(folder, good_rows())
    data = read(folder)
    split = data.split()
    assert split.target == ("kind 0", "kind 2", "kind 4")
    assert [len(ids) for ids in split.test.values()] == [2] * 6
    assert data.split("xshot", "c").name == "manifest/c"
    assert read(folder).split("xshot", "c") == data.split("xshot", "c")
    with pytest.raises(InputError, match="manifest/b"):
        data.split("xshot", "d")


def test_a_class_without_a_test_item_is_reported_row_by_row(folder: Path) -> None:
    write_csv(folder, [{**r, "split": "test" if n % 5 == 0 and n else "train"} for n, r in enumerate(good_rows())])
    said = refusal(folder)
    assert said.count("class 'kind 0' has no test items") == 5
    assert len(read(folder, skip=True).items) == 25


def test_too_few_classes_are_refused_when_split(folder: Path) -> None:
    write_csv(folder, good_rows(classes=5))
    with pytest.raises(InputError, match="at least 6 classes"):
        read(folder).split()


def test_a_picture_listed_again_is_refused_under_any_name(folder: Path) -> None:
    """Else it could be learnt from as one item and searched for as another."""
    (folder / "copy.png").write_bytes((folder / "0-0.png").read_bytes())
    again = [{**good_rows()[0], "text": "another"}, {**good_rows()[0], "file_name": "copy.png"}]
    write_csv(folder, [*good_rows(), *again])
    said = refusal(folder)
    assert said.count("it has the picture of line 2; join their texts in one row") == 2
    assert len(read(folder, skip=True).items) == 30


def test_the_digest_covers_texts_labels_ids_and_pictures(folder: Path) -> None:
    def digest(*changed: tuple[int, str, str]) -> str:
        rows = good_rows()
        for index, column, value in changed:
            rows[index][column] = value
        write_csv(folder, rows)
        return read(folder).digest

    seen = {digest(), digest((0, "text", "other")), digest((0, "label", "kind 1"))}
    (folder / "copy.png").write_bytes((folder / "0-0.png").read_bytes())
    seen.add(digest((0, "file_name", "copy.png")))
    before = digest()
    picture(1000).save(folder / "0-0.png")
    seen.add(digest())
    assert len(seen) == 5
    assert before in seen


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "LAB"]


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_any_mode_are_rgb_or_rgba(folder: Path, mode: str) -> None:
    if mode == "I;16":
        made = Image.fromarray(np.full((9, 7), 0x9999, np.uint16))
        kind = "PNG"
    else:
        kind = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA") else "TIFF"
        source = Image.new("RGB", (7, 9), (153, 153, 153))
        made = source if mode == "RGB" else source.convert("P").convert("PA") if mode == "PA" else source.convert(mode)
    try:
        made.save(folder / "0-0.png", kind)
    except OSError:
        pytest.skip(f"Pillow writes no {kind} of mode {mode}")
    write_csv(folder, good_rows())
    got = read(folder).picture(0)
    assert got.mode == ("RGBA" if mode in ("LA", "PA", "RGBA") else "RGB")
    assert got.size == (7, 9)
    if mode != "1":
        assert np.abs(np.asarray(got.convert("L"), int) - 153).max() <= 3


def test_floating_point_pictures_are_refused(folder: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "0-0.png", "TIFF")
    write_csv(folder, good_rows())
    assert "line 2: '0-0.png' cannot be read (its pixels are floating-point" in refusal(folder)


def test_transparency_by_palette_is_kept(folder: Path) -> None:
    Image.new("P", (4, 4), 0).save(folder / "0-0.png", transparency=0)
    write_csv(folder, good_rows())
    assert read(folder).picture(0).getpixel((0, 0))[3] == 0


def test_pictures_are_turned_upright(folder: Path) -> None:
    """EXIF orientation 6: the stored picture is to be turned a quarter clockwise."""
    stored = Image.new("RGB", (20, 10), "white")
    stored.paste("black", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(folder / "0-0.png", "PNG", exif=exif)
    write_csv(folder, good_rows())
    upright = read(folder).picture(0)
    assert upright.size == (10, 20)
    assert upright.getpixel((5, 2)) == (0, 0, 0)
    assert upright.getpixel((5, 17)) == (255, 255, 255)


def test_the_reading_leaves_warnings_as_they_were(folder: Path) -> None:
    write_csv(folder, good_rows())
    before = list(warnings.filters)
    read(folder)
    assert list(warnings.filters) == before
