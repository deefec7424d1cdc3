"""The feature cache: content-addressed, whole or not there, checked, shared by processes; encoding can be resumed."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from xshot_bench import InputError
from xshot_bench.datasets import feature_cache
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.encode import EncodingError, features_folder, load_features
from xshot_bench.datasets.feature_cache import DamagedFeatures, FeatureOptions, open_features
from xshot_bench.datasets.manifest import Manifest

sys.path.append(str(Path(__file__).resolve().parents[1] / "plugins"))
from colours import ColourEncoder


class Counting(ColourEncoder):
    """Counts the pictures it encodes; may stop, or give something that is no number, at one of them."""

    def __init__(self, stop_at: int = 10**9, spoil: bool = False) -> None:
        self.stop_at, self.spoil = stop_at, spoil
        self.seen = 0

    def encode_images(self, batch, tokens=False):
        self.seen += len(batch)
        if self.seen > self.stop_at:
            raise KeyboardInterrupt
        features = super().encode_images(batch)
        if self.spoil and self.seen > 32:
            features.image[3] = float("nan")
        return features


@pytest.fixture(scope="module")
def dataset(colour_folder):
    return Manifest.open(DatasetOptions(root=colour_folder))


def by_hand(dataset) -> np.ndarray:
    encoder = ColourEncoder()
    rows = [
        encoder.encode_images(encoder.preprocess(dataset.picture(i))[None]).image for i in range(len(dataset.items))
    ]
    return torch.cat(rows).numpy().astype(np.float16)


def test_features_are_the_encoders_in_the_items_order(dataset, tmp_path):
    features = load_features(dataset, Counting(), tmp_path)
    assert np.array_equal(features.image, by_hand(dataset))
    texts = ColourEncoder().encode_texts([item.text for item in dataset.items]).numpy().astype(np.float16)
    assert np.array_equal(features.text, texts)
    assert [features.classes[k] for k in features.label] == [item.label for item in dataset.items]
    assert features.ids == tuple(item.id for item in dataset.items)
    assert isinstance(features.image, np.memmap)


def test_what_is_cached_is_not_encoded_again(dataset, tmp_path):
    load_features(dataset, Counting(), tmp_path)
    again = Counting()
    features = load_features(dataset, again, tmp_path)
    assert again.seen == 0
    assert features.digest == features_folder(dataset, again, tmp_path).name


def test_the_key_depends_on_encoder_data_and_prompts(dataset, colour_folder, tmp_path):
    def key(encoder, data) -> str:
        return features_folder(data, encoder, tmp_path).name

    other = Counting()
    other.fingerprint = "another"
    prompted = Manifest.open(DatasetOptions(root=colour_folder))
    prompted.prompts = ("a drawing of a {}.",)
    keys = {key(Counting(), dataset), key(other, dataset), key(Counting(), prompted)}
    keys.add(features_folder(dataset, Counting(), tmp_path, FeatureOptions(ensemble="raw")).name)
    assert len(keys) == 4


def test_what_a_killed_write_left_is_removed(dataset, tmp_path):
    child = os.fork()
    if not child:
        feature_cache._sha256 = lambda path: os.kill(os.getpid(), signal.SIGKILL)
        load_features(dataset, ColourEncoder(), tmp_path)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert list((tmp_path / "features").glob(".*/*.npy"))
    load_features(dataset, ColourEncoder(), tmp_path)
    assert not list(tmp_path.rglob(".*")) and not list(tmp_path.rglob("*.partial"))


def test_an_interrupted_encoding_goes_on_where_it_was(dataset, tmp_path):
    first = Counting(stop_at=70)
    with pytest.raises(KeyboardInterrupt):
        load_features(dataset, first, tmp_path)
    second = Counting()
    features = load_features(dataset, second, tmp_path)
    assert second.seen == 96 - 64
    assert np.array_equal(features.image, by_hand(dataset))
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-10], lambda c: c[:200] + bytes([c[200] ^ 1]) + c[201:], lambda c: b""]
)
def test_a_damaged_part_of_an_interrupted_encoding_is_made_again(dataset, tmp_path, damage):
    with pytest.raises(KeyboardInterrupt):
        load_features(dataset, Counting(stop_at=70), tmp_path)
    part = next(tmp_path.rglob("image.0-32.npy"))
    part.write_bytes(damage(part.read_bytes()))
    second = Counting()
    assert np.array_equal(load_features(dataset, second, tmp_path).image, by_hand(dataset))
    assert second.seen == 64


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "json", "empty", "a file"])
def test_damage_is_detected_and_mended(dataset, tmp_path, damage, caplog):
    folder = tmp_path / "features" / load_features(dataset, Counting(), tmp_path).digest
    array, about = folder / "image.npy", folder / "features.json"
    if damage == "flip":
        content = bytearray(array.read_bytes())
        content[-3] ^= 1
        array.write_bytes(content)
    elif damage == "cut":
        array.write_bytes(array.read_bytes()[:-1])
    elif damage == "gone":
        array.unlink()
    elif damage == "json":
        about.write_text(about.read_text()[:-20])
    elif damage == "a file":
        folder.rename(tmp_path / "elsewhere")
        folder.write_text("")
    else:
        about.write_text("")
    with pytest.raises(DamagedFeatures):
        open_features(folder)
    assert np.array_equal(load_features(dataset, Counting(), tmp_path).image, by_hand(dataset))
    assert "are damaged and are made again" in caplog.text
    assert open_features(folder)


def fill(root: Path, cache: Path, start, counts) -> None:
    encoder = Counting()
    start.wait()
    load_features(Manifest.open(DatasetOptions(root=root)), encoder, cache)
    counts.put(encoder.seen)


def test_two_processes_fill_the_cache_once(colour_folder, tmp_path):
    context = multiprocessing.get_context("fork")
    start, counts = context.Event(), context.Queue()
    both = [context.Process(target=fill, args=(colour_folder, tmp_path, start, counts)) for _ in range(2)]
    for process in both:
        process.start()
    start.set()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert sorted([counts.get(), counts.get()]) == [0, 96]


def test_features_that_are_no_numbers_name_their_item(dataset, tmp_path):
    with pytest.raises(EncodingError, match=rf"{dataset.items[35].id}.* not finite"):
        load_features(dataset, Counting(spoil=True), tmp_path)


def test_a_cache_that_cannot_be_written_is_said(dataset, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written to .* --cache"):
        load_features(dataset, Counting(), tmp_path / "file")


def test_progress_is_told_to_the_end(dataset, tmp_path):
    told = []
    load_features(dataset, Counting(), tmp_path, progress=lambda *news: told.append(news))
    assert ("pictures", 96, 96) in told and ("texts", 96, 96) in told
    counts = [done for stage, done, _ in told if stage == "pictures"]
    assert counts == sorted(counts)


def test_a_picture_that_cannot_be_read_is_not_blamed_on_the_cache(dataset, tmp_path, monkeypatch):
    def picture(index: int):
        raise OSError("image file is truncated")

    monkeypatch.setattr(dataset, "picture", picture)
    with pytest.raises(InputError, match=rf"picture of {dataset.items[0].id!r} cannot be read .*truncated"):
        load_features(dataset, Counting(), tmp_path)
