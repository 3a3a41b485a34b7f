"""The state guard: everything a guarded block changes is found as it was before."""

from __future__ import annotations

import logging
import os
import random
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

from sbi_physics.guard import preserve_state, quiet


class FakeTorch(types.ModuleType):
    """The part of torch's global state that the guard touches, as plain attributes."""

    float32 = "float32"

    class Generator:
        def get_state(self) -> str:
            return "fresh"

    def __init__(self) -> None:
        super().__init__("torch")
        self.state = {
            "grad": True,
            "dtype": "float32",
            "device": "cpu",
            "threads": 4,
            "deterministic": (False, False),
            "matmul": "highest",
            "rng": "fresh",
        }
        distribution = types.SimpleNamespace(_validate_args=True)

        def set_default_validate_args(value: bool) -> None:
            distribution._validate_args = value

        distribution.set_default_validate_args = set_default_validate_args
        self.distributions = types.SimpleNamespace(Distribution=distribution)
        self.cuda = types.SimpleNamespace(is_initialized=lambda: False)

    def device(self, name: str) -> str:
        return name

    def is_grad_enabled(self) -> bool:
        return self.state["grad"]

    def set_grad_enabled(self, value: bool) -> None:
        self.state["grad"] = value

    def get_default_dtype(self) -> str:
        return self.state["dtype"]

    def set_default_dtype(self, value: str) -> None:
        self.state["dtype"] = value

    def get_default_device(self) -> str:
        return self.state["device"]

    def set_default_device(self, value: str | None) -> None:
        self.state["device"] = value or "cpu"

    def get_num_threads(self) -> int:
        return self.state["threads"]

    def set_num_threads(self, value: int) -> None:
        self.state["threads"] = value

    def are_deterministic_algorithms_enabled(self) -> bool:
        return self.state["deterministic"][0]

    def is_deterministic_algorithms_warn_only_enabled(self) -> bool:
        return self.state["deterministic"][1]

    def use_deterministic_algorithms(self, value: bool, *, warn_only: bool) -> None:
        self.state["deterministic"] = (value, warn_only)

    def get_float32_matmul_precision(self) -> str:
        return self.state["matmul"]

    def set_float32_matmul_precision(self, value: str) -> None:
        self.state["matmul"] = value

    def get_rng_state(self) -> str:
        return self.state["rng"]

    def set_rng_state(self, value: str) -> None:
        self.state["rng"] = value


def _spoil(torch: FakeTorch) -> None:
    torch.state.update(
        grad=False,
        dtype="float64",
        device="cuda",
        deterministic=(True, True),
        matmul="medium",
        rng="used",
    )
    torch.distributions.Distribution._validate_args = False


def _numpy_state_equal(one: dict, two: dict) -> bool:
    return (
        np.array_equal(one["state"]["key"], two["state"]["key"])
        and one["state"]["pos"] == two["state"]["pos"]
        and one["has_gauss"] == two["has_gauss"]
        and one["gauss"] == two["gauss"]
    )


def test_python_and_numpy_generators_continue_as_if_nothing_was_drawn():
    python, legacy = random.getstate(), np.random.get_state(legacy=False)
    with preserve_state():
        random.random()
        np.random.standard_normal(1)  # one draw: the key array is still the same, the rest is not
        assert not _numpy_state_equal(legacy, np.random.get_state(legacy=False))
    assert random.getstate() == python
    assert _numpy_state_equal(legacy, np.random.get_state(legacy=False))


def test_logging_warnings_and_numpy_errors_are_restored():
    root = logging.getLogger()
    handlers, level, filters = list(root.handlers), root.level, list(warnings.filters)
    errors = np.geterr()
    with preserve_state():
        root.addHandler(logging.NullHandler())
        root.setLevel(logging.DEBUG)
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")
        np.seterr(all="raise")
    assert root.handlers == handlers
    assert root.level == level
    assert root.manager.disable == logging.NOTSET
    assert warnings.filters == filters
    assert np.geterr() == errors


def test_working_folder_and_environment_are_restored(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    before = Path.cwd()
    with preserve_state():
        os.chdir(tmp_path)
        os.environ["OMP_NUM_THREADS"] = "7"
        os.environ["KERAS_BACKEND"] = "torch"
    assert Path.cwd() == before
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert "KERAS_BACKEND" not in os.environ


def test_a_removed_working_folder_is_no_error(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with preserve_state():
        pass
    monkeypatch.undo()


def test_state_is_restored_when_the_block_raises():
    state = random.getstate()
    with pytest.raises(RuntimeError, match="broken"), preserve_state():
        random.random()
        raise RuntimeError("broken")
    assert random.getstate() == state


def test_every_torch_switch_is_restored(monkeypatch):
    torch = FakeTorch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    torch.state.update(grad=False, threads=3, rng="mine")
    found = dict(torch.state)
    with preserve_state():
        _spoil(torch)
        torch.state.update(grad=True, threads=1)
    assert torch.state == found
    assert torch.distributions.Distribution._validate_args is True


def test_torch_imported_inside_gets_the_state_of_a_fresh_import(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    torch = FakeTorch()
    fresh = dict(torch.state)
    with preserve_state():
        monkeypatch.setitem(sys.modules, "torch", torch)
        _spoil(torch)
    assert torch.state == fresh
    assert torch.distributions.Distribution._validate_args is True


def test_the_guard_itself_imports_no_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with preserve_state():
        pass
    assert "torch" not in sys.modules


def test_quiet_collects_prints_and_lowers_loggers(capsys, caplog):
    logger = logging.getLogger("a-chatty-package")
    logger.setLevel(logging.INFO)
    with quiet(loggers=["a-chatty-package"]) as chatter:
        print("out")
        print("err", file=sys.stderr)
        logger.info("hidden")
        logger.error("shown")
    assert chatter.getvalue() == "out\nerr\n"
    assert capsys.readouterr() == ("", "")
    assert logger.level == logging.INFO
    assert [record.message for record in caplog.records] == ["shown"]
