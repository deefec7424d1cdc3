"""Train the heads of lite0-minilm on Open Clip Art, or measure them on two sets they have not seen.

    apt-get install openclipart-png openclipart-svg tuxpaint-stamps-default
    python -m xshot_bench.datasets.encoders.lite0_minilm.train_heads
    python -m xshot_bench.datasets.encoders.lite0_minilm.train_heads --evaluate

Pairs: the pictures of Open Clip Art (public domain), each with three texts: its title, its title and keywords, and
its file's name. Texts, epochs, dropout and the first scale were chosen by class mAP on folders left out of training,
four folds of Open Clip Art; no other set had a say. Training longer fits these folders and loses on all others.
"""

from __future__ import annotations

import argparse
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from xshot_bench.datasets._packaged import LEAST
from xshot_bench.datasets.base import DatasetOptions, Item
from xshot_bench.datasets.encoders.lite0_minilm import HEADS_FILE, Lite0MiniLM
from xshot_bench.datasets.encoders.lite0_minilm.heads import Heads
from xshot_bench.datasets.encoders.lite0_minilm.towers import Towers, preprocess
from xshot_bench.datasets.openclipart import CLIP_ART, read_clip_art
from xshot_bench.datasets.openmoji import OpenMoji
from xshot_bench.datasets.tuxpaint import STAMPS, read_stamps

EPOCHS, BATCH, RATE, DECAY = 5, 256, 5e-4, 1e-2
IMAGE_DROPOUT, TEXT_DROPOUT = 0.5, 0.3
SEED = 0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """A picture of Open Clip Art and its texts."""

    path: Path
    texts: tuple[str, str, str]


@dataclass(frozen=True)
class TowerOutputs:
    """What the frozen towers make of n pairs: ``pooled [n,1280]``, ``logits [n,1000]``, ``texts [3,n,384]``."""

    pooled: Tensor
    logits: Tensor
    texts: Tensor


def clip_art(root: Path) -> list[Picture]:
    """The pictures of the Debian package openclipart-png with the words in their twins of openclipart-svg."""
    pictures = []
    for art in read_clip_art(root):
        stem = " ".join(re.sub(r"[_\-#\d]+", " ", art.name.stem).split())
        words = ", ".join(filter(None, (art.title, *art.keywords)))
        pictures.append(Picture(root / "png" / art.name, (art.title, words, stem.lower())))
    return pictures


def run_towers(towers: Towers, pictures: list[Picture]) -> TowerOutputs:
    """Minutes: every picture and text through the frozen towers."""
    with ThreadPoolExecutor(2) as pool:
        inputs = pool.map(lambda p: preprocess(_open(p.path)), pictures)
        outputs = []
        for start in range(0, len(pictures), Lite0MiniLM.batch_size):
            rows = pictures[start : start + Lite0MiniLM.batch_size]
            outputs.append(towers.encode_images(torch.stack([next(inputs) for _ in rows])))
            if start % 400 == 0:
                log.info("pictures: %d of %d", start, len(pictures))
    pooled, logits = (torch.cat(part) for part in zip(*outputs, strict=True))
    texts = torch.stack([towers.encode_texts([p.texts[kind] for p in pictures]) for kind in range(3)])
    return TowerOutputs(pooled, logits, texts)


def imagenet_texts(towers: Towers) -> Tensor:
    """The text features ``[1000,384]`` of the ImageNet classes that the image tower tells apart."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return towers.encode_texts([f"a photo of a {info.index_to_description(k)}" for k in range(info.num_classes())])


def train(outputs: TowerOutputs, class_text: Tensor, seed: int = SEED) -> Heads:
    """Symmetric InfoNCE with a learnt temperature, from the bridge on, a few epochs only."""
    heads = Heads(class_text, outputs.pooled.mean(0), outputs.pooled.std(0))
    image, texts = heads.image_input(outputs.pooled, outputs.logits), heads.text_input(outputs.texts)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * math.ceil(len(image) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(image), generator=generator).split(BATCH):
            kind = torch.randint(len(texts), (1,), generator=generator)[0]
            x = normalize(heads.image(_dropout(image[rows], IMAGE_DROPOUT, generator)), dim=1)
            y = normalize(heads.text(_dropout(texts[kind, rows], TEXT_DROPOUT, generator)), dim=1)
            logits, pair = heads.log_scale.exp() * x @ y.T, torch.arange(len(rows))
            loss = (cross_entropy(logits, pair) + cross_entropy(logits.T, pair)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    log.info("trained %d steps, last loss %.3f, logit scale %.2f", steps, loss.item(), heads.log_scale.exp().item())
    return heads.eval()


def save(heads: Heads, path: Path) -> None:
    """Write the heads as float16 safetensors."""
    from safetensors.torch import save_file

    save_file({name: value.detach().half().contiguous() for name, value in heads.state_dict().items()}, path)


def evaluate(encoder: Lite0MiniLM) -> dict[str, tuple[float, float]]:
    """Zero-shot mAP@all, image to text and text to image, over the whole of OpenMoji and of the Tux Paint stamps."""
    emoji = OpenMoji.open(DatasetOptions())
    stamps = tux_paint(STAMPS)
    things = [stamp for stamp in stamps if not stamp.label.startswith("symbols/")]

    def draw(item: Item) -> Image.Image:
        return emoji.picture(emoji.items.index(item))

    def read(item: Item) -> Image.Image:
        return _open(STAMPS / item.id)

    return {
        "openmoji": _retrieval(encoder, emoji.items, draw),
        "tuxpaint": _retrieval(encoder, stamps, read),
        "tuxpaint without symbols": _retrieval(encoder, things, read),
    }


def tux_paint(root: Path) -> list[Item]:
    """Stamps and their descriptions, class names and all; a class has at least ten of them."""
    found = read_stamps(root)
    sizes = Counter(stamp.label for stamp in found)
    return [stamp for stamp in found if sizes[stamp.label] >= LEAST]


def _retrieval(
    encoder: Lite0MiniLM, items: Sequence[Item], picture: Callable[[Item], Image.Image]
) -> tuple[float, float]:
    blocks = [items[start : start + encoder.batch_size] for start in range(0, len(items), encoder.batch_size)]
    image = torch.cat([encoder.encode_images(torch.stack([preprocess(picture(i)) for i in b])).image for b in blocks])
    text = encoder.encode_texts([item.text for item in items])
    similarity = normalize(image, dim=1) @ normalize(text, dim=1).T
    place = {label: k for k, label in enumerate(sorted({item.label for item in items}))}
    label = torch.tensor([place[item.label] for item in items])
    return _mean_average_precision(similarity, label), _mean_average_precision(similarity.T, label)


def _mean_average_precision(similarity: Tensor, label: Tensor) -> float:
    relevant = (label[similarity.argsort(dim=1, descending=True)] == label[:, None]).double()
    precision = relevant.cumsum(1) / torch.arange(1, len(label) + 1)
    return float(((precision * relevant).sum(1) / relevant.sum(1)).mean())


def _dropout(x: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    return x * (torch.rand(x.shape, generator=generator) >= rate) / (1 - rate)


def _open(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGBA")


def main() -> None:
    """The command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--evaluate", action="store_true", help="measure the heads there are; train none")
    parser.add_argument("--heads", type=Path, default=HEADS_FILE, help="the file of the heads")
    options = parser.parse_args()
    if not options.evaluate:
        towers, pictures = Towers(), clip_art(CLIP_ART)
        save(train(run_towers(towers, pictures), imagenet_texts(towers)), options.heads)
    for name, (i2t, t2i) in evaluate(Lite0MiniLM(Towers(), options.heads)).items():
        log.info("%s: mAP@all %.4f image to text, %.4f text to image", name, i2t, t2i)


if __name__ == "__main__":
    main()
