"""Files of the Hugging Face hub: from its cache, else from the network, else a quick no."""

from __future__ import annotations

import pickle
import urllib.request
from pathlib import Path

MODEL_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


def cached(repository: str, file: str) -> Path | None:
    """Where the hub's cache has a file, None if it has not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def reach() -> None:
    """`OSError` where the hub cannot be reached: its own client would try for most of a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    urllib.request.urlopen(constants.ENDPOINT, timeout=5).close()  # noqa: S310 - the hub's own address


def fetched(repository: str, file: str) -> Path:
    """A file; `OSError` where it is neither cached nor to be had."""
    from huggingface_hub import hf_hub_download

    found = cached(repository, file)
    if found is None:
        reach()
        found = Path(hf_hub_download(repository, file))
    return found


def model_folder(repository: str) -> Path:
    """A folder with a model of transformers: weights (safetensors), configuration, tokenizer; `OSError` as above."""
    from huggingface_hub import snapshot_download

    if cached(repository, "model.safetensors") is None:
        reach()
    return Path(snapshot_download(repository, allow_patterns=MODEL_FILES))


def why_not(error: Exception) -> str:
    """Why a library could not load a model's file, in a line."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds pickled objects, which can run any program when they are loaded, so they are not"
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0][:200].rstrip(".")
