"""Encoding: memory that runs out, batches of other sizes, tokens and views, prompt ensembles, the workers."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from xshot_bench import InputError
from xshot_bench.datasets import workers
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.batching import Batching
from xshot_bench.datasets.encode import features_folder, load_features, mean_features
from xshot_bench.datasets.encoders.base import ImageFeatures, to_grid
from xshot_bench.datasets.feature_cache import FeatureOptions, open_features
from xshot_bench.datasets.manifest import Manifest
from xshot_bench.datasets.parts import Parts, missing
from xshot_bench.datasets.views import view

sys.path.append(str(Path(__file__).resolve().parents[1] / "plugins"))
from colours import ColourEncoder, _lift

HERE = Path(__file__)


class Patches(ColourEncoder):
    """Mean colours of the picture and of each field of a 4 x 4 grid; memory for ``room`` pictures; counts them."""

    grid, side, context, logit_bias = 4, 4, 4, -3.0

    def __init__(self, room: int = 10**9, stop_at: int = 10**9) -> None:
        self.room, self.stop_at = room, stop_at
        self.seen, self.sizes = 0, []

    def preprocess(self, picture: Image.Image) -> torch.Tensor:
        small = picture.convert("RGB").resize((4, 4), Image.Resampling.BOX)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1)

    def encode_images(self, batch, tokens=0):
        if len(batch) > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.seen += len(batch)
        self.sizes.append(len(batch))
        if self.seen > self.stop_at:
            raise KeyboardInterrupt
        fields = (batch.float() / 255).permute(0, 2, 3, 1)
        lifted = _lift(fields.flatten(0, 2)).unflatten(0, fields.shape[:3])
        return ImageFeatures(_lift(fields.mean((1, 2))), to_grid(lifted, tokens) if tokens else None)


@pytest.fixture(scope="module")
def dataset(colour_folder):
    return Manifest.open(DatasetOptions(root=colour_folder))


@pytest.fixture(scope="module")
def plain(dataset, tmp_path_factory):
    """The features as they should come out, however they are made."""
    return load_features(dataset, Patches(), tmp_path_factory.mktemp("cache"))


def colours(pictures_):
    return torch.cat([Patches().encode_images(Patches().preprocess(p)[None]).image for p in pictures_]).numpy()


def test_memory_that_runs_out_halves_the_batches_and_loses_nothing(dataset, plain, tmp_path, caplog):
    encoder = Patches(room=10)
    features = load_features(dataset, encoder, tmp_path)
    assert np.array_equal(features.image, plain.image)
    assert encoder.seen == 96
    assert encoder.sizes == [8] * 12
    assert "memory ran out; from now on 8 rows at once" in caplog.text


def test_memory_may_run_out_in_the_middle():
    done = []

    def call(rows: list[str]) -> list[str]:
        if len(done) >= 4 and len(rows) > 1:
            raise MemoryError
        done.extend(rows)
        return rows

    batching = Batching(4)
    assert list(batching.run(call, list("abcdefg"))) == [list("abcd"), ["e"], ["f"], ["g"]]
    assert done == list("abcdefg")


def test_a_size_the_user_chose_is_kept_or_refused(dataset, plain, tmp_path):
    encoder = Patches()
    assert np.array_equal(load_features(dataset, encoder, tmp_path / "a", batch_size=7).image, plain.image)
    assert encoder.sizes == [7] * 13 + [5]
    with pytest.raises(InputError, match=r"memory ran out at --batch-size 20. Give a smaller one, or auto"):
        load_features(dataset, Patches(room=10), tmp_path / "b", batch_size=20)
    with pytest.raises(InputError, match="with a single row at once"):
        load_features(dataset, Patches(room=0), tmp_path / "b")


def test_an_error_that_is_not_about_memory_is_not_taken_for_it():
    def call(rows: list[str]) -> list[str]:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(Batching(4).run(call, ["a"]))


@pytest.mark.parametrize(("first", "second"), [(32, 10), (10, 32)])
def test_an_interrupted_run_goes_on_with_batches_of_another_size(dataset, plain, tmp_path, first, second):
    with pytest.raises(KeyboardInterrupt):
        load_features(dataset, Patches(stop_at=70), tmp_path, batch_size=first)
    done = 70 // first * first
    again = Patches()
    features = load_features(dataset, again, tmp_path, batch_size=second)
    assert again.seen == 96 - done
    assert np.array_equal(features.image, plain.image)


def test_parts_that_overlap_or_are_damaged_are_left_out(tmp_path):
    parts = Parts(tmp_path, {"image": "image", "tokens": "image.tokens2"})
    for rows in (range(0, 4), range(4, 8), range(6, 12), range(12, 14)):
        parts.save(rows, {name: np.full((len(rows), 2), rows.start, np.float16) for name in parts.names})
    (tmp_path / "image.tokens2.12-14.npy").unlink()
    assert parts.finished() == [range(0, 4), range(4, 8)]
    path = tmp_path / "image.4-8.npy"
    path.write_bytes(path.read_bytes()[:-40] + b"x" * 40)
    assert parts.finished() == [range(0, 4), range(6, 12)]
    assert missing(parts.finished(), 20, 5) == [range(4, 6), range(12, 17), range(17, 20)]
    assert missing([], 7, 5) == [range(0, 5), range(5, 7)]
    (block,) = parts.blocks("tokens", parts.finished(), np.array([11, 0, 6, 3, 3]))
    assert block[:, 0].tolist() == [6, 0, 6, 0, 0]


def test_tokens_lie_beside_the_features_and_change_nothing_of_them(dataset, plain, tmp_path):
    encoder = Patches()
    options = FeatureOptions(tokens=2)
    features = load_features(dataset, encoder, tmp_path, options)
    assert encoder.seen == 96  # one pass for both
    assert features.digest == plain.digest
    assert np.array_equal(features.image, plain.image)
    assert features.tokens.shape == (96, 4, 4) and features.tokens.dtype == np.float16
    assert isinstance(features.tokens, np.memmap)
    corner = Patches().preprocess(dataset.picture(17)).float()[:, :2, 2:].mean((1, 2)) / 255
    assert np.allclose(features.tokens[17, 1], _lift(corner[None])[0], atol=1e-3)
    folder = features_folder(dataset, encoder, tmp_path)
    assert options.name(folder) == f"{folder.name}.tokens2"
    assert open_features(folder).tokens is None
    assert load_features(dataset, encoder, tmp_path).tokens is None
    assert encoder.seen == 96


def test_tokens_wanted_later_are_encoded_alone(dataset, plain, tmp_path):
    base = load_features(dataset, Patches(), tmp_path)
    before = (tmp_path / "features" / base.digest / "features.json").stat().st_mtime_ns
    features = load_features(dataset, Patches(), tmp_path, FeatureOptions(tokens=4))
    assert features.tokens.shape == (96, 16, 4)
    assert (tmp_path / "features" / base.digest / "features.json").stat().st_mtime_ns == before
    again = Patches()
    load_features(dataset, again, tmp_path, FeatureOptions(tokens=4))
    assert again.seen == 0


def test_pixels_are_the_prepared_pictures_and_no_work_for_the_model(dataset, plain, tmp_path):
    base = load_features(dataset, Patches(), tmp_path)
    again = Patches()
    features = load_features(dataset, again, tmp_path, FeatureOptions(pixels=True))
    assert again.seen == 0 and features.digest == base.digest and base.pixels is None
    assert features.pixels.shape == (96, 3, 4, 4) and features.pixels.dtype == np.uint8
    assert isinstance(features.pixels, np.memmap)
    for index in (0, 17, 95):
        assert np.array_equal(features.pixels[index], again.preprocess(dataset.picture(index)).numpy())
    at_once = load_features(dataset, again, tmp_path / "other", FeatureOptions(tokens=2, pixels=True))
    assert again.seen == 96
    assert np.array_equal(at_once.pixels, features.pixels) and np.array_equal(at_once.image, plain.image)


def test_damaged_tokens_are_made_again(dataset, tmp_path, caplog):
    options = FeatureOptions(tokens=2)
    features = load_features(dataset, Patches(), tmp_path, options)
    expected = np.array(features.tokens)
    path = tmp_path / "features" / f"{features.digest}.tokens2" / "tokens.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert np.array_equal(load_features(dataset, Patches(), tmp_path, options).tokens, expected)
    assert "are damaged and are made again" in caplog.text


def test_views_are_the_picture_its_mirror_image_and_crops(dataset, plain, tmp_path):
    encoder = Patches()
    features = load_features(dataset, encoder, tmp_path, FeatureOptions(views=4))
    assert encoder.seen == 4 * 96
    assert features.digest == plain.digest
    assert features.views.shape == (96, 4, 4) and features.views.dtype == np.float16
    assert np.array_equal(features.views[:, 0], plain.image)
    mirrored = colours([ImageOps.mirror(dataset.picture(n)) for n in range(3)])
    assert np.allclose(features.views[:3, 1], mirrored, atol=1e-3)
    crops = [view(dataset.picture(n), 3, dataset.items[n].id, 0, encoder.side) for n in range(3)]
    assert np.allclose(features.views[:3, 3], colours(crops), atol=1e-3)
    assert not np.array_equal(features.views[:, 2], features.views[:, 3])


def test_views_depend_on_the_seed_and_on_nothing_else(dataset, tmp_path):
    four = load_features(dataset, Patches(), tmp_path, FeatureOptions(views=4)).views
    three = load_features(dataset, Patches(), tmp_path, FeatureOptions(views=3), batch_size=9).views
    other = load_features(dataset, Patches(), tmp_path, FeatureOptions(views=3, seed=1)).views
    assert np.array_equal(three, four[:, :3])
    assert np.array_equal(other[:, :2], three[:, :2])
    assert not np.array_equal(other[:, 2], three[:, 2])


class Shared(Manifest):
    """Every third item has the picture of the item before it."""

    @property
    def picture_of(self):
        return [n - 1 if n % 3 == 1 else n for n in range(len(self.items))]


def test_a_picture_of_several_texts_is_encoded_once(colour_folder, plain, tmp_path):
    data, encoder = Shared.open(DatasetOptions(root=colour_folder)), Patches()
    features = load_features(data, encoder, tmp_path, FeatureOptions(tokens=2, views=2))
    assert encoder.seen == 64 * 2
    assert np.array_equal(features.image, plain.image[data.picture_of])
    assert np.array_equal(features.views[:, 0], features.image)
    assert np.array_equal(features.tokens[3], features.tokens[4])
    assert np.array_equal(features.text, plain.text)


class Named(Manifest):
    prompts = ("{} thing.", "red {} red.")


def test_a_class_is_the_mean_of_its_prompts(colour_folder, tmp_path):
    data = Named.open(DatasetOptions(root=colour_folder))
    assert data.class_prompts()[0] == ["class black thing.", "red class black red."]
    encoder = Patches()
    rows = [encoder.encode_texts(texts).double() for texts in data.class_prompts()]
    normalised = load_features(data, encoder, tmp_path)
    raw = load_features(data, encoder, tmp_path, FeatureOptions(ensemble="raw"))
    assert (normalised.ensemble, raw.ensemble) == ("normalised", "raw")
    assert normalised.digest != raw.digest
    assert np.allclose(raw.class_text, torch.stack([r.mean(0) for r in rows]), atol=1e-3)

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    expected = unit(np.stack([unit(r.numpy()).mean(0) for r in rows]))
    assert np.allclose(unit(np.array(normalised.class_text, np.float64)), expected, atol=1e-3)
    assert not np.allclose(unit(np.array(raw.class_text, np.float64)), expected, atol=1e-2)


def test_a_prompt_whose_feature_is_zero_has_no_direction():
    rows = np.array([[0, 0], [3, 4], [0, 0]], np.float32)
    assert np.allclose(mean_features(rows, [2, 1], "normalised"), [[0.5, 2 / 3], [0, 0]])
    assert np.allclose(mean_features(rows, [2, 1], "raw"), [[1.5, 2], [0, 0]])


def test_a_single_prompt_is_left_as_it_is(plain, dataset):
    texts = [texts[0] for texts in dataset.class_prompts()]
    assert np.array_equal(plain.class_text, Patches().encode_texts(texts).numpy().astype(np.float16))


def test_what_is_known_of_the_encoder_is_kept(plain, dataset):
    assert plain.logit_bias == -3
    assert plain.joint
    assert plain.cut_texts == sum(len(item.text.split()) > 4 for item in dataset.items)


class Long(Patches):
    context = 2


def test_texts_longer_than_the_context_are_counted_and_kept(dataset, tmp_path):
    features = load_features(dataset, Long(), tmp_path)
    assert features.cut_texts == len(features.text) == 96


def test_where_processes_cannot_be_forked_threads_do_the_same(dataset, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(workers.sys, "platform", "darwin")
    features = load_features(dataset, Patches(), tmp_path, FeatureOptions(views=3))
    assert np.array_equal(features.image, plain.image)


class Watching(Patches):
    """While it has the first batch it waits until two more are prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.prepared = multiprocessing.get_context("fork").Value("i", 0)

    def preprocess(self, picture):
        with self.prepared.get_lock():
            self.prepared.value += 1
        return super().preprocess(picture)

    def encode_images(self, batch, tokens=0):
        end = time.monotonic() + 30
        while not self.seen and self.prepared.value < 3 * self.batch_size and time.monotonic() < end:
            time.sleep(0.01)
        assert self.prepared.value >= 3 * self.batch_size
        return super().encode_images(batch, tokens)


def test_pictures_are_prepared_ahead_of_the_model_in_other_processes(dataset, tmp_path):
    load_features(dataset, Watching(), tmp_path)


class Dying(Patches):
    """Its preprocessing kills the process that it runs in, but for the first picture's, which is this one's."""

    parent = os.getpid()

    def preprocess(self, picture):
        if os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().preprocess(picture)


@pytest.mark.skipif(sys.platform != "linux", reason="threads prepare pictures elsewhere")
def test_a_killed_worker_is_one_clear_error(dataset, tmp_path):
    with pytest.raises(InputError, match=r"a process that prepares pictures was killed.*--batch-size"):
        load_features(dataset, Dying(), tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="threads prepare pictures elsewhere")
def test_workers_end_with_a_parent_that_is_killed(colour_folder, tmp_path):
    code = f"""
import sys, time
sys.path[:0] = [{str(HERE.parent)!r}]
from test_encode import *
class Slow(Patches):
    def encode_images(self, batch, tokens=0):
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        time.sleep(60)
load_features(Manifest.open(DatasetOptions(root=Path({str(colour_folder)!r}))), Slow(), Path({str(tmp_path)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert workers
        process.kill()
    end = time.monotonic() + 20
    while any(_alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(_alive(pid) for pid in workers)


def _alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
