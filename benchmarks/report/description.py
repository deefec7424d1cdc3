"""A description of a dataset as text, and its contact sheet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from xshot_bench import InputError, printable
from xshot_bench.benchmarks.describe import Description
from xshot_bench.datasets.base import Dataset
from xshot_bench.datasets.splitting import shuffled

if TYPE_CHECKING:
    from PIL import Image, ImageFont

MOST_CLASSES = 250
COLUMNS, ROWS = 8, 6  # of the sheet
SIDE, GAP, LINES, TEXT_SIZE = 160, 10, 4, 12  # pixels; lines of text under a picture


def markdown(found: Description) -> str:
    """Counts, texts and floors as Markdown."""
    parts = [f"{found.name}: {found.items:,} items in {len(found.classes)} classes · digest {found.digest[:16]}"]
    parts += [f"- {note}" for note in found.notes]
    parts += ["", _counts(found), "", *_texts(found), ""]
    parts += ["mAP of a random ranking, in closed form, and accuracy of a random class, in %:", "", _floors(found), ""]
    parts += [
        f"- {floor.protocol} {floor.split} cannot be made: {floor.problem}" for floor in found.floors if floor.problem
    ]
    return printable("\n".join(parts).rstrip())


def _counts(found: Description) -> str:
    """A line a class and one for all of them; of very many classes, only what they have at least and at most."""
    parts = found.parts if found.parts != ("",) else ()
    sizes = {c: [*(counts.get(part, 0) for part in parts), sum(counts.values())] for c, counts in found.classes.items()}
    columns = list(zip(*sizes.values(), strict=True))
    rows = [[c, *row] for c, row in sizes.items()]
    if len(rows) > MOST_CLASSES:
        rows = [["smallest", *map(min, columns)], ["largest", *map(max, columns)]]
    headers = ["class", *(part or "no part" for part in parts), "items"]
    return tabulate([*rows, ["all", *map(sum, columns)]], headers, tablefmt="github")


def _texts(found: Description) -> Iterator[str]:
    texts = found.texts
    if texts is None:
        yield f"It comes as features: images of {found.image} dimensions, texts of {found.text}."
        return
    yield f"Texts: {texts.distinct:,} different ones; {texts.naming:,} hold the name of their class."
    cut = f"{texts.cut:,} are" if texts.cut else "none is"
    limit = f"{cut} cut at its context of {texts.context}" if texts.context else "it cuts none"
    yield f"In tokens of {texts.encoder}: {texts.least} to {texts.most}, median {texts.median:g}; {limit}."


def _floors(found: Description) -> str:
    rows = [
        [f.protocol, f.split, f.gallery, f.queries, f.searched]
        + [f"{100 * number:.1f}" for number in (f.i2t, f.t2i, f.accuracy)]
        for f in found.floors
        if not f.problem
    ]
    headers = ["protocol", "split", "gallery", "queries", "gallery items", "i2t", "t2i", "accuracy"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def contact_sheet(dataset: Dataset, path: Path) -> int:
    """Write a PNG with pictures of all classes in turn, their classes and texts; returns how many.

    `InputError` where the dataset has no pictures or the file cannot be written.
    """
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    if dataset.has_features:
        raise InputError(f"the dataset {dataset.name!r} has features and no pictures, so there is no contact sheet.")
    chosen = _in_turn(dataset)[: COLUMNS * ROWS]
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", TEXT_SIZE)
    line = TEXT_SIZE + 4
    width, height = SIDE + GAP, SIDE + GAP + line * (LINES + 1)
    rows = -(-len(chosen) // COLUMNS)
    sheet = Image.new("RGB", (GAP + width * min(len(chosen), COLUMNS), GAP + height * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for place, index in enumerate(chosen):
        x, y = GAP + place % COLUMNS * width, GAP + place // COLUMNS * height
        item = dataset.items[index]
        _paste(sheet, dataset.picture(index), (x, y))
        draw.text((x, y + SIDE), _lines(item.label, font, 1)[0], "firebrick", font)
        for number, words in enumerate(_lines(item.text, font, LINES), start=1):
            draw.text((x, y + SIDE + number * line), words, "black", font)
    try:
        sheet.save(path, "PNG")
    except OSError as error:
        raise InputError(f"the contact sheet {path} cannot be written ({error.strerror or error}).") from None
    return len(chosen)


def _in_turn(dataset: Dataset) -> list[int]:
    """Indices of items: one of each class, then a second one of each, and so on; always the same."""
    members: dict[str, list[str]] = {c: [] for c in dataset.classes}
    place = {}
    for index, item in enumerate(dataset.items):
        members[item.label].append(item.id)
        place[item.id] = index
    orders = [shuffled(ids, dataset.name, c, "contact sheet") for c, ids in members.items()]
    longest = max(map(len, orders))
    return [place[order[n]] for n in range(min(longest, COLUMNS * ROWS)) for order in orders if n < len(order)]


def _paste(sheet: Image.Image, picture: Image.Image, corner: tuple[int, int]) -> None:
    """Put a picture into its square, in the middle and not distorted."""
    picture.thumbnail((SIDE, SIDE))
    at = (corner[0] + (SIDE - picture.width) // 2, corner[1] + (SIDE - picture.height) // 2)
    sheet.paste(picture, at, picture if picture.mode == "RGBA" else None)


def _lines(text: str, font: ImageFont.FreeTypeFont, most: int) -> list[str]:
    """The text in lines as wide as a picture; what is too much ends in dots."""
    lines = [""]
    for word in text.split():
        wider = f"{lines[-1]} {word}".strip()
        if font.getlength(wider) <= SIDE or not lines[-1]:
            lines[-1] = wider
        else:
            lines.append(word)
    for number, line in enumerate(lines[:most]):
        more = number == most - 1 and len(lines) > most
        while line and font.getlength(line + "…" * more) > SIDE:
            line, more = line[:-1], True  # noqa: PLW2901
        lines[number] = line + "…" * more
    return lines[:most]
