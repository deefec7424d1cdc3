"""Fetching by torchvision: its own code unpacks small archives laid out as the official ones; only the net is not."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torchvision
from PIL import Image

from xshot_bench.benchmarks.registry import Registry

Called = Any
Files = Mapping[str, bytes]
WITH_DOWNLOAD = {  # dataset: the archives that torchvision asks for, with what lies in them
    "caltech101": ["caltech-101.zip"],
    "oxford_pets": ["images.tar.gz", "annotations.tar.gz"],
    "flowers102": ["102flowers.tgz"],
    "food101": ["food-101.tar.gz"],
    "fgvc_aircraft": ["fgvc-aircraft-2013b.tar.gz"],
    "sun397": ["SUN397.tar.gz"],
    "dtd": ["dtd-r1.0.1.tar.gz"],
    "eurosat": ["EuroSAT.zip"],
}
BY_HAND = {"imagenet": 3, "stanford_cars": 3, "ucf101": 2, "flickr8k": 2, "flickr30k": 2, "coco": 3}


def picture() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (3, 3), "red").save(content, "JPEG")
    return content.getvalue()


def tar(files: Files, mode: str = "w:gz") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def zipped(files: Files) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def mat(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    scipy.io.savemat(content, arrays)
    return content.getvalue()


def official(name: str) -> dict[str, bytes]:
    """What the servers have: file name -> content."""
    one = picture()
    aircraft = {f"images_variant_{part}.txt": b"0034309 707-320\n" for part in ("train", "val", "trainval", "test")}
    aircraft |= {"variants.txt": b"707-320\n", "images/0034309.jpg": one}
    return {
        "caltech101": lambda: {
            "caltech-101.zip": zipped(
                {
                    "caltech-101/101_ObjectCategories.tar.gz": tar(
                        {f"101_ObjectCategories/{c}/image_0001.jpg": one for c in ("BACKGROUND_Google", "Faces")}
                    ),
                    "caltech-101/Annotations.tar": tar({"Annotations/a.mat": b"x"}, "w"),
                }
            )
        },
        "oxford_pets": lambda: {
            "images.tar.gz": tar({"images/Abyssinian_1.jpg": one}),
            "annotations.tar.gz": tar({f"annotations/{p}.txt": b"Abyssinian_1 1 1 1\n" for p in ("trainval", "test")}),
        },
        "flowers102": lambda: {
            "102flowers.tgz": tar({"jpg/image_00001.jpg": one}),
            "imagelabels.mat": mat(labels=np.array([1, 1])),
            "setid.mat": mat(trnid=np.array([1, 1]), valid=np.array([1, 1]), tstid=np.array([1, 1])),
        },
        "food101": lambda: {
            "food-101.tar.gz": tar(
                {
                    "food-101/images/apple_pie/1.jpg": one,
                    "food-101/meta/train.json": b'{"apple_pie": ["apple_pie/1"]}',
                    "food-101/license_agreement.txt": b"fair use",
                }
            )
        },
        "fgvc_aircraft": lambda: {
            "fgvc-aircraft-2013b.tar.gz": tar({f"fgvc-aircraft-2013b/data/{k}": v for k, v in aircraft.items()})
        },
        "sun397": lambda: {
            "SUN397.tar.gz": tar({"SUN397/a/abbey/sun_1.jpg": one, "SUN397/ClassName.txt": b"/a/abbey\n"})
        },
        "dtd": lambda: {
            "dtd-r1.0.1.tar.gz": tar(
                {"dtd/images/banded/banded_0001.jpg": one, "dtd/labels/train1.txt": b"banded/banded_0001.jpg\n"}
            )
        },
        "eurosat": lambda: {"EuroSAT.zip": zipped({"2750/AnnualCrop/AnnualCrop_1.jpg": one})},
    }[name]()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], list[str]]:
    """Puts files in the place of torchvision's network; returns the names that were asked for."""

    def serve(files: dict[str, bytes]) -> list[str]:
        asked: list[str] = []

        def download_url(url: str, root: str, filename: str | None = None, md5: str | None = None, **_: Any) -> None:
            name = filename or url.rpartition("/")[2]
            asked.append(name)
            if name not in files:
                raise URLError("Name or service not known")
            Path(root).mkdir(parents=True, exist_ok=True)
            (Path(root) / name).write_bytes(files[name])

        monkeypatch.setattr(torchvision.datasets.utils, "download_url", download_url)
        monkeypatch.setattr(torchvision.datasets.flowers102, "download_url", download_url)
        monkeypatch.setattr(torchvision.datasets.flowers102, "check_integrity", lambda path, md5: Path(path).is_file())
        return asked

    return serve


@pytest.mark.parametrize("name", WITH_DOWNLOAD)
def test_what_torchvision_lays_out_is_put_where_the_loader_wants_it(
    name: str, bench: Callable[..., Called], server: Any, tmp_path: Path
) -> None:
    asked = server(official(name))
    called = call(bench, name, tmp_path)
    assert called.code == 0, called.err
    assert asked[: len(WITH_DOWNLOAD[name])] == WITH_DOWNLOAD[name]
    origin = Registry().load("dataset", name).origin  # type: ignore[attr-defined]
    place = tmp_path / origin.folder
    by_hand = {file for file in origin.needed if file.startswith("split_zhou")}
    assert set(origin.missing(place)) == by_hand
    assert list(place.rglob("*.jpg")) and not [path for path in place.rglob("*") if path.suffix in (".gz", ".zip")]
    assert [path.name for path in tmp_path.iterdir()] == [origin.folder]
    assert all(f"{place / file}" in called.out for file in by_hand)
    assert ("to be got by hand" in called.out) == bool(by_hand)
    asked.clear()
    for file in by_hand:
        (place / file).write_text("{}")
    again = call(bench, name, tmp_path)
    assert not asked and f"{name} is complete" in again.out and f"--root {name}={place}" in again.out


def call(bench: Callable[..., Called], name: str, root: Path) -> Called:
    """``fetch``, through the program; the options that ``bench`` puts before it do not matter."""
    return bench("fetch", name, "--root", str(root), data=False)


def test_the_users_own_files_stay(bench: Callable[..., Called], server: Any, tmp_path: Path) -> None:
    server(official("dtd"))
    (tmp_path / "dtd/labels").mkdir(parents=True)
    (tmp_path / "dtd/labels/mine.txt").write_text("mine")
    assert call(bench, "dtd", tmp_path).code == 0
    assert (tmp_path / "dtd/labels/mine.txt").read_text() == "mine"
    assert (tmp_path / "dtd/images/banded/banded_0001.jpg").is_file()


@pytest.mark.parametrize("name", WITH_DOWNLOAD)
def test_offline_is_one_clear_error(name: str, bench: Callable[..., Called], server: Any, tmp_path: Path) -> None:
    server({})
    called = call(bench, name, tmp_path)
    assert called.code == 2
    assert "cannot be downloaded" in called.err and "Name or service not known" in called.err
    assert "Traceback" not in called.err and "get by hand" in called.err
    assert "https://" in called.err


def test_a_download_that_broke_off_leaves_nothing_and_is_made_again(
    bench: Callable[..., Called], server: Any, tmp_path: Path
) -> None:
    files = official("oxford_pets")
    server({"images.tar.gz": files["images.tar.gz"]})
    assert call(bench, "oxford_pets", tmp_path).code == 2
    assert not list(tmp_path.iterdir())
    server(files)
    assert call(bench, "oxford_pets", tmp_path).code == 0
    assert (tmp_path / "oxford_pets/images/Abyssinian_1.jpg").is_file()


def test_an_archive_does_not_lead_outside(bench: Callable[..., Called], server: Any, tmp_path: Path) -> None:
    before = tarfile.TarFile.__dict__.get("extraction_filter")
    server({"dtd-r1.0.1.tar.gz": tar({"../../../evil.txt": b"x", "dtd/images/a/b.jpg": picture()})})
    called = call(bench, "dtd", tmp_path / "data")
    assert called.code == 2 and "outside" in called.err
    assert not list(tmp_path.rglob("evil.txt"))
    assert tarfile.TarFile.__dict__.get("extraction_filter") == before


@pytest.mark.parametrize("name", BY_HAND)
def test_what_cannot_be_downloaded_is_said_with_its_places(
    name: str, bench: Callable[..., Called], server: Any, tmp_path: Path
) -> None:
    asked = server({})
    called = call(bench, name, tmp_path)
    assert called.code == 0 and not asked and "to be got by hand" in called.out
    lines = [line for line in called.out.splitlines() if line.startswith("  ")]
    assert len(lines) == BY_HAND[name] and all(str(tmp_path) in line and "http" in line for line in lines)
    assert not list(tmp_path.iterdir())


def test_what_needs_no_fetching_is_refused(bench: Callable[..., Called], tmp_path: Path) -> None:
    called = call(bench, "openmoji", tmp_path)
    assert called.code == 2 and "nothing to fetch" in called.err


def test_a_full_disk_is_said(
    bench: Callable[..., Called], server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server(official("eurosat"))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "move", full)
    called = call(bench, "eurosat", tmp_path)
    assert called.code == 2 and "No space left" in called.err
    assert [path.name for path in tmp_path.iterdir()] == ["eurosat"] and not list((tmp_path / "eurosat").iterdir())
