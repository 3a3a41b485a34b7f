"""What a store refuses: another store's header, a second writer, malformed chunks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_simulators import Line, NewerLine, TwoStage, Wide
from sample_stores import fill, header_of, store_of_three_chunks

from sbi_physics.distributions import Uniform
from sbi_physics.errors import (
    ContractError,
    StoreError,
    StoreLockedError,
    StoreMismatchError,
    UnknownNameError,
)
from sbi_physics.parameters import Parameter
from sbi_physics.priors import Prior
from sbi_physics.store import SimulationStore


@pytest.fixture
def folder(tmp_path):
    return store_of_three_chunks(tmp_path / "line.zarr")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 6}, r"seed: the store has 5, asked for 6"),
        ({"purpose": "pairs"}, r"purpose: the store has 'train', asked for 'pairs'"),
        ({"chunk_size": 7}, r"chunk_size: the store has 10, asked for 7"),
        ({"simulator": NewerLine().identity}, r"version: the store has '1', asked for '2'"),
        (
            {"simulator": Line(noise=0.25).identity},
            r"options noise: the store has 0.5, asked for 0.25",
        ),
        ({"simulator": TwoStage().identity}, r"name: the store has 'line', asked for 'two-stage'"),
        (
            {"prior": Line().prior.truncate({"a": (0.0, 2.0)})},
            r"prior parameters 'a' distribution low: the store has -1.0, asked for 0.0",
        ),
        (
            {"prior": Prior([Parameter("mass", Uniform(0, 1))])},
            r"prior parameters: the store has a, b, asked for mass",
        ),
        ({"observable": Wide().observable}, r"observable shape: the store has \[4\], asked for"),
    ],
)
def test_a_store_of_something_else_is_refused_with_both_values(folder, changes, message):
    for mode in ("r", "a"):
        with pytest.raises(StoreMismatchError, match=message):
            SimulationStore.open(folder, mode, header_of(**changes))


def test_every_difference_is_named(folder):
    with pytest.raises(StoreMismatchError) as info:
        SimulationStore.open(folder, "a", header_of(seed=6, purpose="test", chunk_size=3))
    assert all(word in str(info.value) for word in ("seed", "purpose", "chunk_size"))


def test_a_second_writer_is_told_who_writes_but_readers_are_welcome(folder):
    with SimulationStore.open(folder, "a") as store:
        with pytest.raises(StoreLockedError, match=r"this very process \d+ on .*, since 20"):
            SimulationStore.open(folder, "a")
        assert len(SimulationStore.open(folder).simulations()) == 25
        fill(store, [3])
    with SimulationStore.open(folder, "a") as store:
        assert store.n_rows() == 35


def test_the_lock_of_another_process_holds_until_it_dies(folder):
    code = (
        "import sys; from sbi_physics.store import SimulationStore;"
        "store = SimulationStore.open(sys.argv[1], 'a'); print('open', flush=True);"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StoreLockedError, match=rf"process {process.pid} on .*line.zarr"):
            SimulationStore.open(folder, "a")
    finally:
        process.kill()
        process.communicate()
    with SimulationStore.open(folder, "a") as store:
        fill(store, [3])


def test_a_store_opened_for_reading_cannot_be_written(folder):
    with pytest.raises(StoreError, match="not open for appending"):
        fill(SimulationStore.open(folder), [3])
    with SimulationStore.open(folder, "a") as store:
        pass
    with pytest.raises(StoreError, match="not open for appending"):
        fill(store, [3])


def test_what_is_not_a_store_is_left_alone(tmp_path):
    with pytest.raises(StoreError, match="there is no store"):
        SimulationStore.open(tmp_path / "none")
    with pytest.raises(StoreError, match="there is no store"):
        SimulationStore.open(tmp_path / "none", "a")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("important")
    with pytest.raises(StoreError, match="is not a simulation store; choose another folder"):
        SimulationStore.open(tmp_path / "thesis", "a", header_of())
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another folder"):
        SimulationStore.open(tmp_path / "file", "a", header_of())
    with pytest.raises(ContractError, match="mode must be"):
        SimulationStore.open(tmp_path / "none", "w")
    with pytest.raises(ContractError, match="needs a header"):
        SimulationStore.open(None, "a")


@pytest.mark.parametrize(
    ("theta", "x", "z", "message"),
    [
        ((3, 1), (3, 4), {}, r"theta has shape \(3, 1\), expected \(3, 2\)"),
        ((3, 2), (2, 4), {}, r"x has shape \(2, 4\), expected \(3, 4\)"),
        ((0, 2), (0, 4), {}, "1 to 10 rows, got 0"),
        ((11, 2), (11, 4), {}, "1 to 10 rows, got 11"),
        ((3, 2), (3, 4), {"k/l": np.zeros(3)}, "latent name 'k/l'"),
        ((3, 2), (3, 4), {"k": np.zeros(2)}, r"latent 'k' has shape \(2,\)"),
        ((3, 2), (3, 4), {"k": np.array(["a", "b", "c"])}, "type <U1, expected numbers"),
        ((3, 2), (3, 4), {"other": np.zeros(3)}, r"latents .* other .* has true \(\) float64"),
    ],
)
def test_a_malformed_chunk_is_refused_and_changes_nothing(theta, x, z, message):
    store = SimulationStore.open(None, "a", header_of())
    store.append(0, 0, np.zeros((2, 2)), np.zeros((2, 4)), {"true": np.zeros(2)})
    with pytest.raises(ContractError, match=message):
        store.append(0, 1, np.zeros(theta), np.zeros(x), z)
    assert store.committed() == {0}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"seed": -1}, ContractError),
        ({"purpose": "tarin"}, UnknownNameError),
        ({"chunk_size": 0}, ContractError),
        ({"chunk_size": 2.5}, ContractError),
    ],
)
def test_a_header_refuses_nonsense(changes, error):
    with pytest.raises(error):
        header_of(**changes)
