"""Which device a setting means, and that what runs there needs nothing from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sbi_physics.errors import OptionError
from sbi_physics.nn import device
from sbi_physics.nn.contrast import rolled
from sbi_physics.nn.coordinates import to_normal
from sbi_physics.nn.loop import tensors
from sbi_physics.training import Batch

pytestmark = pytest.mark.engine


@pytest.fixture
def accelerators(monkeypatch):
    """Say which accelerators torch sees."""

    def say(*, cuda: bool, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return say


def test_auto_is_cuda_where_there_is_one_and_the_processor_elsewhere(accelerators):
    accelerators(cuda=False, mps=True)
    assert device.resolve_device("auto").type == "cpu"
    assert device.resolve_device("mps").type == "mps"
    accelerators(cuda=True, mps=False)
    assert device.resolve_device("auto").type == "cuda"
    assert device.resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(accelerators, name):
    accelerators(cuda=False, mps=False)
    with pytest.raises(OptionError, match=f"device '{name}'.*sees only cpu here.*'auto'"):
        device.resolve_device(name)


def test_the_device_of_a_network_is_that_of_its_weights():
    assert device.device_of(torch.nn.Linear(1, 1, device="meta")).type == "meta"
    assert device.device_of(torch.nn.Flatten()) == device.CPU


def test_seeds_are_restored_also_after_an_error():
    state = torch.get_rng_state()
    with pytest.raises(KeyError), device.seeded(1):
        first = torch.rand(1)
        raise KeyError
    with device.seeded(1):
        assert torch.rand(1) == first
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_coordinates_and_pairs_stay_on_the_device():
    # Meta tensors hold no numbers, but mixing them with others fails as on any accelerator.
    batch = Batch(np.zeros((4, 2), np.float32), np.zeros((4, 3), np.float32), np.ones(4, "f4"))
    u, x, weight = tensors(batch, torch.device("meta"))
    assert {t.device.type for t in (u, x, weight)} == {"meta"}
    pairs = rolled(to_normal(u), torch.tensor([1, 2]))
    assert (pairs.device.type, tuple(pairs.shape)) == ("meta", (4, 3, 2))
