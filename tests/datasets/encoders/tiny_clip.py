"""Small models of every family of open_clip's towers, with random weights in files as real ones have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}


def timm(name: str, size: int, pool: str, proj: str | None) -> dict[str, object]:
    return {"timm_model_name": name, "timm_pool": pool, "timm_proj": proj, "image_size": size}


CONFIGS: dict[str, dict[str, object]] = {
    "tiny-vit": {"vision_cfg": VIT},
    "tiny-clipa": {"vision_cfg": VIT | {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}},
    "tiny-rn": {"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}},
    "tiny-convnext": {"vision_cfg": timm("convnext_atto", 64, "", "linear")},
    "tiny-convnext-d": {"vision_cfg": timm("convnext_atto", 64, "", "mlp")},
    "tiny-fastvit": {"vision_cfg": timm("fastvit_t8", 64, "avg", None)},
    "tiny-timm-vit": {"vision_cfg": timm("vit_tiny_patch16_224", 224, "token", None)},
    "tiny-timm-gap": {"vision_cfg": timm("vit_tiny_patch16_224", 224, "avg", None)},
    "tiny-eva": {"vision_cfg": timm("eva02_tiny_patch14_224", 224, "token", None)},
    "tiny-sigmoid": {
        "embed_dim": 192,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": timm("vit_tiny_patch16_224", 224, "map", "none"),
        "text_cfg": TEXT | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
    "tiny-coca": {
        "custom_text": True,
        "vision_cfg": VIT | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": TEXT | {"context_length": 76, "width": 24, "heads": 2, "layers": 1, "attn_pooler_heads": 2},
    },
}
PICTURES = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (40, 50, 3), dtype=np.uint8)) for n in range(3)]
TEXTS = ["a red square", "two dogs", "word " * 50_000]


def make(folder: Path) -> dict[str, Path]:
    """Weights files by model name; the models are made known to open_clip."""
    hub = text_tower(folder / "bert")
    configs = CONFIGS | {
        "tiny-hf": {
            "vision_cfg": VIT,
            "text_cfg": {"hf_model_name": hub, "hf_tokenizer_name": hub, "context_length": 16, "hf_proj_type": "mlp"},
        }
    }
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 24, "text_cfg": TEXT, **config}))
    open_clip.add_model_config(folder)
    found = {}
    for name in configs:
        torch.manual_seed(7)
        state = open_clip.create_model(name, pretrained_text=False).state_dict()
        for key, value in state.items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 2)
        found[name] = folder / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, found[name])
        if name in ("tiny-vit", "tiny-rn"):
            torch.save(state, folder / f"{name}.pt")
    return found


def text_tower(folder: Path) -> str:
    """A folder as the Hugging Face hub has them: a BERT of random weights and its tokenizer."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "square", "two", "dogs", "word"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    torch.manual_seed(8)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=32, **sizes)
    BertModel(config).save_pretrained(folder)
    return str(folder)


def by_hand(name: str, file: Path):
    """The model as open_clip loads it, and the pictures as its own transform prepares them."""
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=str(file))
    return model.eval(), torch.stack([preprocess(picture) for picture in PICTURES])
