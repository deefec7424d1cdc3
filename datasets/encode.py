"""Runs an encoder over a dataset: pictures ahead of the model, chunk by chunk, so that it can be interrupted."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from xshot_bench import InputError
from xshot_bench.datasets.base import Dataset
from xshot_bench.datasets.encoders.base import Encoder
from xshot_bench.datasets.features import (
    FORMAT,
    PLAIN,
    DamagedFeatures,
    FeatureOptions,
    FeatureSet,
    open_features,
    write_features,
)

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
AHEAD = 3  # batches prepared before the model asks for them
TEXTS = 256  # encoded at once


class EncodingError(Exception):
    """An encoder gave features that cannot be used."""


def features_folder(dataset: Dataset, encoder: Encoder | None, cache: Path, options: FeatureOptions = PLAIN) -> Path:
    """Where these features are kept: the name is the digest of all they depend on. No encoder: the data's own features.

    Tokens and views do not change it; they lie beside it (`FeatureOptions.extras`).
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
    progress: Progress | None = None,
) -> FeatureSet:
    """The features, from the cache or else encoded now; ``progress`` is told stage, done and total.

    One process encodes while others wait for it. Raises `InputError` where the cache cannot be written.
    """
    folder = features_folder(dataset, encoder, cache, options)
    if folder.exists():
        try:
            return open_features(folder)
        except DamagedFeatures as damage:
            logger.warning("cached features are damaged and are made again (%s)", damage)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if folder.exists():
                try:  # another process may have been faster
                    return open_features(folder)
                except DamagedFeatures:
                    shutil.rmtree(folder)
            if encoder is None:
                write_features(folder, dataset.features())
                return open_features(folder)
            encode = _Encoding(dataset, encoder, folder.with_suffix(".partial"), False, progress or _silent)
            write_features(folder, encode.run(folder.name))
            shutil.rmtree(encode.partial, ignore_errors=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "is on a full disk" if full else f"cannot be written to ({error.strerror or error})"
        raise InputError(f"the feature cache {cache} {what}. Free it, or give another folder with --cache.") from error
    return open_features(folder)


class _Encoding:
    """One dataset being encoded; every finished batch lies in ``partial``, so another run goes on from there."""

    def __init__(self, dataset: Dataset, encoder: Encoder, partial: Path, tokens: bool, progress: Progress) -> None:
        self.dataset, self.encoder, self.partial, self.tokens, self.progress = (
            dataset,
            encoder,
            partial,
            tokens,
            progress,
        )
        partial.mkdir(parents=True, exist_ok=True)

    def run(self, digest: str) -> FeatureSet:
        items = self.dataset.items
        place = {name: number for number, name in enumerate(self.dataset.classes)}
        images = list(self._pictures())
        return FeatureSet(
            image=np.concatenate([chunk["image"] for chunk in images]),
            tokens=np.concatenate([chunk["tokens"] for chunk in images]) if self.tokens else None,
            text=self._texts([item.text for item in items], "texts"),
            class_text=self._texts([texts[0] for texts in self.dataset.class_prompts()], "class prompts"),
            label=np.array([place[item.label] for item in items], dtype=np.int64),
            ids=tuple(item.id for item in items),
            classes=self.dataset.classes,
            logit_scale=self.encoder.logit_scale,
            digest=digest,
        )

    def _pictures(self) -> Iterator[dict[str, np.ndarray]]:
        """The features of each batch of pictures, from ``partial`` where they are there already."""
        import torch

        total, size = len(self.dataset.items), self.encoder.batch_size
        batches = [range(start, min(start + size, total)) for start in range(0, total, size)]
        ready = {batch: found for batch in batches if (found := self._read(batch)) is not None}
        todo = [batch for batch in batches if batch not in ready]
        with ThreadPoolExecutor(2) as pool:
            ahead: deque[list[Future[Tensor]]] = deque()
            for batch in batches:
                while todo and len(ahead) < AHEAD:
                    ahead.append([pool.submit(self._prepare, index) for index in todo.pop(0)])
                if batch in ready:
                    yield ready[batch]
                else:
                    prepared = torch.stack([future.result() for future in ahead.popleft()])
                    yield self._encode(batch, prepared)
                self.progress("pictures", batch.stop, total)

    def _prepare(self, index: int) -> Tensor:
        try:
            return self.encoder.preprocess(self.dataset.picture(index))
        except OSError as error:
            name = self.dataset.items[index].id
            raise InputError(f"the picture of {name!r} cannot be read ({error}). Mend it or leave it out.") from error

    def _encode(self, batch: range, prepared: Tensor) -> dict[str, np.ndarray]:
        features = self.encoder.encode_images(prepared, tokens=self.tokens)
        found = {"image": features.image.numpy()}
        if features.tokens is not None:
            found["tokens"] = features.tokens.numpy()
        for name, array in found.items():
            found[name] = _half(array, [self.dataset.items[i].id for i in batch])
            path = self._chunk(name, batch)
            content = io.BytesIO()
            np.save(content, found[name], allow_pickle=False)
            checked = content.getvalue() + hashlib.sha256(content.getvalue()).digest()
            path.with_suffix(".new").write_bytes(checked)
            path.with_suffix(".new").replace(path)
        return found

    def _read(self, batch: range) -> dict[str, np.ndarray] | None:
        """A batch that an earlier run left, None where it did not or it is damaged."""
        try:
            names = ("image", "tokens") if self.tokens else ("image",)
            contents = {name: self._chunk(name, batch).read_bytes() for name in names}
        except OSError:
            return None
        if any(hashlib.sha256(content[:-32]).digest() != content[-32:] for content in contents.values()):
            return None
        return {name: np.load(io.BytesIO(content), allow_pickle=False) for name, content in contents.items()}

    def _chunk(self, name: str, batch: range) -> Path:
        return self.partial / f"{name}.{batch.start}-{batch.stop}.npy"

    def _texts(self, texts: list[str], stage: str) -> np.ndarray:
        chunks = []
        for start in range(0, len(texts), TEXTS):
            block = texts[start : start + TEXTS]
            chunks.append(_half(self.encoder.encode_texts(block).numpy(), [text[:60] for text in block]))
            self.progress(stage, min(start + TEXTS, len(texts)), len(texts))
        return np.concatenate(chunks)


def _half(features: np.ndarray, names: list[str]) -> np.ndarray:
    """The features as float16. `EncodingError` names the first item whose features are not finite."""
    half = features.astype(np.float16)
    bad = ~np.isfinite(half).reshape(len(half), -1).all(1)
    if bad.any():
        raise EncodingError(f"the encoder gave features of {names[int(bad.argmax())]!r} that are not finite")
    return half


def _silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
