"""A fitted method in one file: what goes in comes out, and nothing but our own classes can be made from a file."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from xshot_bench import InputError
from xshot_bench.methods.base import EmbeddingMethod, Modality, Pairs, Task
from xshot_bench.methods.clip import Clip


class Keeper(EmbeddingMethod):
    strength: float = 0.5

    def fit(self, task: Task) -> None: ...

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return x


@pytest.fixture
def path(tmp_path):
    return tmp_path / "method.safetensors"


def test_all_kinds_of_values_come_back(path):
    method = Keeper(strength=2.0)
    rows = torch.arange(6).reshape(2, 3)
    method.values = {"image": [1, 2.5, None, True, "é"], 3: (rows.T, torch.zeros(()), ()), ("a", 1): {}}
    method.pairs = Pairs(rows.double(), rows.half(), rows[:, 0])
    method.again = rows
    method.save(path)
    loaded = Keeper.load(path)
    assert loaded.strength == 2.0
    assert loaded.values["image"] == method.values["image"] and loaded.values[("a", 1)] == {}
    assert torch.equal(loaded.values[3][0], rows.T) and loaded.values[3][1:] == (torch.zeros(()), ())
    assert type(loaded.pairs) is Pairs and loaded.pairs.tokens is None
    assert loaded.pairs.image.dtype == torch.float64 and torch.equal(loaded.pairs.text, rows.half())
    assert torch.equal(loaded.again, rows)


def test_a_tensor_met_twice_is_stored_once(path):
    method = Keeper()
    method.one = method.two = torch.ones(3)
    method.save(path)
    with safe_open(path, "pt") as file:
        assert len(file.keys()) == 1


def test_networks_come_back(path):
    method = Keeper()
    method.network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.BatchNorm1d(4), nn.Linear(4, 2))
    method.network.register_forward_hook(lambda *_: None)
    method.network.eval()
    method.save(path)
    loaded = Keeper.load(path).network
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert not loaded.training
    assert torch.equal(loaded(x), method.network(x))
    assert len(list(loaded.parameters())) == 8


def test_what_cannot_be_kept_is_said(path):
    method = Keeper()
    method.rng = torch.Generator()
    with pytest.raises(TypeError, match="a Generator cannot be saved: keep tensors"):
        method.save(path)


def test_another_methods_file_and_no_file_are_refused(path):
    Clip().save(path)
    with pytest.raises(InputError, match="holds a Clip, not a Keeper"):
        Keeper.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="is not a saved method"):
        Keeper.load(path)
    with pytest.raises(InputError, match="is not a saved method"):
        Keeper.load(path.parent / "absent")


@pytest.mark.parametrize("name", ["subprocess:Popen", "xshot_bench.methods.state:Path", "torch.nn:functional", ":no"])
def test_a_file_cannot_ask_for_other_classes(path, name):
    skeleton = {"method": "Keeper", "state": [["x", {"class": name, "state": []}]]}
    save_file({}, path, metadata={"skeleton": json.dumps(skeleton)})
    with pytest.raises(InputError, match="names the class"):
        Keeper.load(path)


@pytest.mark.parametrize(
    "skeleton", ["[" * 10**5, "1", "[]", "{}", '{"method": "Keeper"}', '{"method": "Keeper", "state": 1}',
                 '{"method": "Keeper", "state": [1]}', '{"method": "Keeper", "state": [["x", {"tensor": "9"}]]}',
                 '{"method": "Keeper", "state": [["x", {}]]}', '{"method": "Keeper", "state": [[[], 1]]}']
)  # fmt: skip
def test_a_damaged_skeleton_is_no_saved_method(path, skeleton):
    save_file({}, path, metadata={"skeleton": skeleton})
    with pytest.raises(InputError, match="is not a saved method"):
        Keeper.load(path)
