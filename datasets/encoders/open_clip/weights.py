"""Which model and weights ``MODEL@TAG``, ``MODEL@FILE`` and ``MODEL@TAG=FILE`` mean, and where the weights lie."""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xshot_bench import InputError
from xshot_bench.datasets.encoders import hub
from xshot_bench.datasets.encoders.base import suggest

FILES = (".safetensors", ".pt", ".pth", ".bin")
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
EXAMPLE = "open_clip:ViT-B-32@/path/to/open_clip_model.safetensors"
SETTINGS = ("input_resolution", "context_length", "vocab_size")  # what OpenAI's archives hold beside weights
MOST_TIMES = 100  # an archive that would become more times its size is refused
PREPARED = ("mean", "std", "interpolation", "resize_mode")  # what weights expect of a picture


@dataclass(frozen=True)
class Chosen:
    """A model of open_clip, the file of its weights, and how these weights want pictures and activations."""

    model: str
    file: Path
    preprocessing: dict[str, Any]
    quick_gelu: bool

    @property
    def config(self) -> dict[str, Any]:
        """The model's configuration, as open_clip has it, with the activation that the weights were trained with."""
        import open_clip

        config: dict[str, Any] = open_clip.get_model_config(self.model)
        return config | {"quick_gelu": self.quick_gelu or config.get("quick_gelu", False)}


def choose(argument: str) -> Chosen:
    """What the argument asks for; `InputError` where it cannot be had.

    A tag says how pictures are prepared and which GELU is computed. A file alone is taken to want what all of the
    model's tags agree on, else OpenAI's preparation; OpenAI's own weights are of the models named ``...-quickgelu``.
    """
    import open_clip

    model, at, weights = argument.partition("@")
    if not (model and at and weights):
        raise InputError(f"open_clip needs a model and its weights, not {argument!r}. Expected: {EXAMPLE}.")
    if model not in open_clip.list_models():
        raise InputError(f"open_clip knows no model {model!r}. {suggest(model, open_clip.list_models())}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    tag, _, file = weights.partition("=")
    if tag not in tags and ("/" in weights or Path(weights).suffix in FILES):
        tag, file = "", weights
    if tag and tag not in tags:
        raise InputError(f"open_clip has no weights {tag!r} for {model}. {suggest(tag, tags)}")
    configs = [open_clip.get_pretrained_cfg(model, known) for known in ([tag] if tag else tags)]
    agreed = {json.dumps({key: config[key] for key in PREPARED}) for config in configs}
    preprocessing = json.loads(agreed.pop()) if len(agreed) == 1 else {}
    if not file:
        return Chosen(model, _fetched(model, tag, configs[0]), preprocessing, configs[0].get("quick_gelu", False))
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"there is no weights file {path}. Give a .safetensors or .pt file, as {EXAMPLE}.")
    return Chosen(model, path, preprocessing, bool(tag) and configs[0].get("quick_gelu", False))


@contextmanager
def only_tensors(file: Path) -> Iterator[Path]:
    """The file; of a TorchScript archive, as OpenAI has published its models, a file of its tensors alone."""
    import torch
    from safetensors.torch import save_file

    parts = _parts(file)
    if sum(part.file_size for part in parts) > MOST_TIMES * file.stat().st_size:
        raise InputError(f"{file} would become more than {MOST_TIMES} times its size, so it is not unpacked.")
    if not any(part.filename.endswith("/constants.pkl") for part in parts):  # TorchScript's alone
        yield file
        return
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch makes no new ones
        inert, plain = Path(folder) / "inert.pt", Path(folder) / "tensors.safetensors"
        _copy_inert(file, inert)
        state = torch.jit.load(inert, map_location="cpu").state_dict()
        save_file({name: tensor.clone() for name, tensor in state.items() if name not in SETTINGS}, plain)
        yield plain


def _parts(file: Path) -> list[zipfile.ZipInfo]:
    """What is in a file that is a zip archive, as PyTorch's files are but for old ones."""
    if not zipfile.is_zipfile(file):
        return []
    with zipfile.ZipFile(file) as archive:
        return archive.infolist()


def _copy_inert(file: Path, copy: Path) -> None:
    """Copy a TorchScript archive; `InputError` where it has code that runs as soon as it is loaded.

    It is the copy that is loaded, so that what was looked at here is what PyTorch's own reader meets.
    """
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(copy, "w") as made:
        for name in dict.fromkeys(archive.namelist()):
            content = archive.read(name)
            if name.endswith(".py") and b"__setstate__" in content:
                raise InputError(f"{file} holds code that runs when it is loaded (__setstate__), so it is not loaded.")
            made.writestr(name, content)


def _fetched(model: str, tag: str, config: dict[str, Any]) -> Path:
    """The weights of a tag, from the hub's cache or the network; `InputError` where neither has them."""
    from open_clip.pretrained import download_pretrained

    repository, _, file = config.get("hf_hub", "").rpartition("/")
    for name in [file] if file else HUB_FILES:
        cached = hub.cached(repository, name) if repository else None
        if cached:
            return cached
    try:
        if repository:
            hub.reach()
        return Path(download_pretrained(config))
    except Exception as error:
        raise InputError(
            f"the weights {model}@{tag} are neither cached nor to be had from the network. "
            f"Give a local file instead: open_clip:{model}@{tag}=/path/to/open_clip_model.safetensors."
        ) from error
