"""Every method of the folder, and each of its ablation switches, passes the checks that plugins must pass."""

from functools import partial

import cases
import pytest
import torch
from cases import METHOD_CHECKS

from xshot_bench.benchmarks.registry import Registry
from xshot_bench.methods.base import MODALITIES, Declined, EmbeddingMethod

SHORT = {  # nothing checked here needs a converged method
    "flexclip": {"rounds": 3, "steps": 3, "pseudo": 4},
    "flexclip_meta": {"rounds": 3, "steps": 3},
    "vtclip": {"steps": 3},
    "cada_vae": {"steps": 8, "classifier_steps": 8},
    **{name: {"steps": 8} for name in ("acmr", "clip4cmr", "dadn", "dscmr")},
    "coop": {"steps": 3},
    "clip_lora": {"steps": 3},
    **{name: {"epochs": 12} for name in ("clap", "clip_adapter", "cross_modal_probe", "lppp", "prolip", "taskres")},
}


def variants():
    registry = Registry()
    for entry in registry.of("method"):
        method = registry.load("method", entry.name)
        for switch, overrides in {"": {}, **method.ablations}.items():
            name = f"{entry.name}:{switch}".rstrip(":")
            yield pytest.param(partial(method, **SHORT.get(entry.name, {}) | overrides), id=name)


@pytest.mark.parametrize("make", list(variants()))
@pytest.mark.parametrize("check", METHOD_CHECKS)
def test_contract(check, make):
    check(make)


class Flawed(EmbeddingMethod):
    """Removes the mean of the training items, and has one flaw."""

    flaw: str = ""
    needs = frozenset()

    def fit(self, task):
        if not len(task.labelled):
            raise Declined("no items")
        self.mean = {m: task.labelled[m].mean(0) for m in MODALITIES}
        if self.flaw == "one class":
            self.mean = {m: task.labelled[m].mean(0) / (len(task.target_classes) - 1) for m in MODALITIES}
        if self.flaw == "source":
            self.mean = {m: task.source[m].mean(0) for m in MODALITIES}
        if self.flaw == "widths":
            self.mean = {m: task.class_text.mean(0) for m in MODALITIES}
        if self.flaw == "forgetful":
            self.keep = torch.Generator()
        if self.flaw == "single":
            self.mean = {m: mean.float() for m, mean in self.mean.items()}
        if self.flaw == "first":
            self.mean = {m: task.support[m][0] for m in MODALITIES}

    def embed(self, x, modality):
        mean = self.mean[modality]
        return (x - mean) @ mean[:, None] if self.flaw == "single" else (x - mean)[:, :12]


@pytest.mark.parametrize(
    ("flaw", "check"),
    [
        ("one class", cases.check_few_classes_and_items),
        ("source", cases.check_takes_tasks_without_source),
        ("widths", cases.check_takes_separate_spaces_or_declines),
        ("forgetful", cases.check_survives_saving),
        ("single", cases.check_precisions_agree),
        ("first", cases.check_order_of_training_items_is_nothing),
    ],
)
def test_a_flaw_is_seen(flaw, check):
    check(Flawed)
    with pytest.raises((AssertionError, RuntimeError, TypeError, IndexError)):
        check(partial(Flawed, flaw=flaw))
