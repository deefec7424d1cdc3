"""Runs an encoder over a dataset, batch by batch, so that it can be interrupted, and keeps the features."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from xshot_bench import InputError
from xshot_bench.datasets.allocation import keep_freed_memory
from xshot_bench.datasets.base import Dataset
from xshot_bench.datasets.batching import Batching
from xshot_bench.datasets.encoders.base import Encoder
from xshot_bench.datasets.feature_cache import (
    FORMAT,
    PLAIN,
    DamagedFeatures,
    Ensemble,
    FeatureOptions,
    FeatureSet,
    Rows,
    check_folder,
    open_features,
    remove,
    sweep,
    write_extra,
    write_features,
)
from xshot_bench.datasets.parts import Parts, missing
from xshot_bench.datasets.workers import Preparation, ahead

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
TEXTS = 256  # encoded at once


class EncodingError(Exception):
    """An encoder gave features that cannot be used."""


def features_folder(dataset: Dataset, encoder: Encoder | None, cache: Path, options: FeatureOptions = PLAIN) -> Path:
    """Where these features are kept: the name is the digest of all they depend on. No encoder: the data's own features.

    Tokens, views and pixels do not change it; they lie beside it (`FeatureOptions.extras`).
    """
    parts: list[object] = [FORMAT, dataset.digest]
    if encoder:
        parts = [FORMAT, encoder.fingerprint, dataset.digest, dataset.class_prompts(), options.ensemble]
    return cache / "features" / hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def load_features(
    dataset: Dataset,
    encoder: Encoder | None,
    cache: Path,
    options: FeatureOptions = PLAIN,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> FeatureSet:
    """The features, from the cache or else encoded now; ``progress`` is told stage, done and total.

    Without an encoder they are the dataset's own. batch_size: pictures at once; None: as many as the encoder likes,
    halved whenever memory runs out. It does not change where the features lie. One process encodes while others wait
    for it. Raises `InputError` where the cache cannot be written.
    """
    folder = features_folder(dataset, encoder, cache, options)
    try:
        return open_features(folder, options)
    except DamagedFeatures:
        pass  # or not all there yet
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            sweep(folder)
            wanted = _wanted(folder, options)  # another process may have been faster
            if wanted and encoder is None:
                write_features(folder, dataset.features())
            elif wanted and encoder:
                _Encoding(dataset, encoder, folder, options, wanted, batch_size, progress or _silent).run()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "is on a full disk" if full else f"cannot be written to ({error.strerror or error})"
        raise InputError(f"the feature cache {cache} {what}. Free it, or give another folder with --cache.") from error
    return open_features(folder, options)


def _wanted(folder: Path, options: FeatureOptions) -> dict[str, Path]:
    """Which arrays of pictures are not in the cache, and where they belong; what is damaged is removed."""
    wanted = {}
    for name, place in {"image": folder, **options.extras(folder)}.items():
        try:
            check_folder(place)
        except DamagedFeatures as damage:
            wanted[name] = place
            if place.exists():
                logger.warning("cached features are damaged and are made again (%s)", damage)
                remove(place)
    return wanted


@dataclass(frozen=True)
class _Encoding:
    """One dataset being encoded. Every finished batch lies in a folder, so another run goes on from there.

    wanted: the arrays that are missing, ``image``, ``tokens``, ``views``, ``pixels``, and the folders they belong in.
    With ``image`` come the texts and everything else.
    """

    dataset: Dataset
    encoder: Encoder
    folder: Path
    options: FeatureOptions
    wanted: Mapping[str, Path]
    batch_size: int | None
    progress: Progress

    def run(self) -> None:
        keep_freed_memory()
        partial = self.folder.with_suffix(".partial")
        suffixes = {"image": "", **self.options.suffixes}
        parts = Parts(partial, {name: f"image{suffixes[name]}" for name in self.wanted})
        cut = self._cut_texts() if "image" in self.wanted else 0  # a tokenizer that cannot be had is noticed first
        shown = self.dataset.picture_of or range(len(self.dataset.items))
        items, rows = np.unique(shown, return_inverse=True)
        self._pictures(parts, items.tolist())
        found = parts.finished()
        if "image" in self.wanted:
            image = np.concatenate(list(parts.blocks("image", found, rows)))
            write_features(self.folder, self._features(image, cut))
        for name in {"tokens", "pixels"} & self.wanted.keys():
            write_extra(self.wanted[name], name, Rows(len(rows), parts.blocks(name, found, rows)))
        if "views" in self.wanted:
            blocks = _after(open_features(self.folder).image, parts.blocks("views", found, rows))
            write_extra(self.wanted["views"], "views", Rows(len(rows), blocks))
        shutil.rmtree(partial, ignore_errors=True)

    def _cut_texts(self) -> int:
        """How many texts are longer than what the encoder reads of them."""
        context = self.encoder.context
        lengths = self.encoder.text_lengths([item.text for item in self.dataset.items])
        cut = sum(length > context for length in lengths) if context else 0
        if cut:
            logger.warning("%d of %d texts have more than %d tokens and are cut", cut, len(lengths), context)
        return cut

    def _features(self, image: np.ndarray, cut_texts: int) -> FeatureSet:
        items = self.dataset.items
        place = {name: number for number, name in enumerate(self.dataset.classes)}
        return FeatureSet(
            image=image,
            text=_half(self._texts([item.text for item in items], "texts"), [item.text[:60] for item in items]),
            class_text=self._class_text(),
            label=np.array([place[item.label] for item in items], dtype=np.int64),
            ids=tuple(item.id for item in items),
            classes=self.dataset.classes,
            logit_scale=self.encoder.logit_scale,
            logit_bias=self.encoder.logit_bias,
            joint=self.encoder.joint,
            cut_texts=cut_texts,
            ensemble=self.options.ensemble,
            digest=self.folder.name,
        )

    def _pictures(self, parts: Parts, items: Sequence[int]) -> None:
        """Encode what ``parts`` lacks of the pictures of ``items``; while the model is busy, what it did is written."""
        usual = [0] if {"image", "tokens", "pixels"} & self.wanted.keys() else []
        further = range(1, self.options.views) if "views" in self.wanted else []
        prepare = Preparation(self.dataset, self.encoder, (*usual, *further), self.options.seed, items)
        batching = Batching(self.batch_size or self.encoder.batch_size, fixed=self.batch_size is not None)
        total, there = len(items), parts.finished()
        batches = missing(there, total, max(1, batching.size // len(prepare.views)))
        done = sum(map(len, there))

        def keep(rows: range, encoded: Mapping[str, Tensor]) -> int:
            names = [prepare.name(row) for row in rows]
            arrays = {name: tensor.numpy() for name, tensor in encoded.items()}
            halves = {name: _half(array, names) for name, array in arrays.items() if name != "pixels"}
            parts.save(rows, arrays | halves)
            return len(rows)

        with (
            ThreadPoolExecutor(1) as writer,
            closing(ahead(prepare, batches, turns=self.encoder.device == "cpu")) as inputs,
        ):
            writing: Future[int] | None = None
            for rows, batch in zip(batches, inputs, strict=True):
                encoded = self._encode(batch, bool(usual), batching)
                done += writing.result() if writing else 0
                self.progress("pictures", done, total)
                writing = writer.submit(keep, rows, encoded)
            done += writing.result() if writing else 0
        self.progress("pictures", done, total)

    def _encode(self, batch: Tensor, usual: bool, batching: Batching) -> dict[str, Tensor]:
        """The wanted features of inputs ``[n,views,3,h,w]``, the first of which is the usual view if ``usual``."""
        import torch

        found: dict[str, Tensor] = {}
        if "pixels" in self.wanted:
            found["pixels"] = batch[:, 0]
        if {"image", "tokens"} & self.wanted.keys():
            tokens = self.options.tokens if "tokens" in self.wanted else 0
            features = list(batching.run(lambda x: self.encoder.encode_images(x, tokens), batch[:, 0]))
            found["image"] = torch.cat([part.image for part in features])
            if tokens:
                found["tokens"] = torch.cat([part.tokens for part in features if part.tokens is not None])
        if "views" in self.wanted:
            flat = batch[:, int(usual) :].flatten(0, 1)
            views = torch.cat([part.image for part in batching.run(self.encoder.encode_images, flat)])
            found["views"] = views.unflatten(0, (len(batch), -1))
        return {name: tensor for name, tensor in found.items() if name in self.wanted}

    def _class_text(self) -> np.ndarray:
        """The text feature of each class ``[C,d]``, ``[C,0]`` of a dataset without prompts."""
        prompts = self.dataset.class_prompts()
        if not self.dataset.prompts:
            return np.zeros((len(prompts), 0), dtype=np.float16)
        each = self._texts([text for texts in prompts for text in texts], "class prompts")
        return _half(mean_features(each, [len(texts) for texts in prompts], self.options.ensemble), prompts)

    def _texts(self, texts: list[str], stage: str) -> np.ndarray:
        """The features of texts ``[n,d]``; a text that is there several times is encoded once."""
        place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        chunks = []
        for chunk in Batching(TEXTS).run(self.encoder.encode_texts, list(place)):
            chunks.append(chunk.numpy())
            self.progress(stage, sum(map(len, chunks)), len(place))
        return np.concatenate(chunks)[[place[text] for text in texts]]


def mean_features(features: np.ndarray, counts: Sequence[int], ensemble: Ensemble) -> np.ndarray:
    """The mean of each group of rows: ``features [sum of counts, d]`` to ``[len(counts), d]``.

    ``normalised``: each row weighs in by its direction alone, as after division by its length; the mean's own length
    means nothing. ``raw``: the plain mean. A single row is its own mean.
    """
    length = np.linalg.norm(features, axis=1)
    weight = 1 / np.where((length == 0) | (ensemble == "raw"), 1, length)
    groups = zip(*(np.split(array, np.cumsum(counts)[:-1]) for array in (features, weight)), strict=True)
    return np.stack([np.average(rows, axis=0, weights=weights) for rows, weights in groups])


def _after(first: np.ndarray, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The rows of ``first [n,d]`` put before those of blocks ``[.,v,d]`` of as many rows in all."""
    start = 0
    for block in blocks:
        yield np.concatenate([first[start : start + len(block), None], block], axis=1)
        start += len(block)


def _half(features: np.ndarray, names: Sequence[Any]) -> np.ndarray:
    """The features as float16. `EncodingError` names the first item whose features are not finite."""
    half = features.astype(np.float16)
    bad = ~np.isfinite(half).reshape(len(half), -1).all(1)
    if bad.any():
        raise EncodingError(f"the encoder gave features of {names[int(bad.argmax())]!r} that are not finite")
    return half


def _silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
