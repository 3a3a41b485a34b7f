"""The store: what is committed is whole, verified, and read without loading the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from sample_simulators import Line, NewerLine, TwoStage, Wide

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
from sbi_physics.simulate import simulate
from sbi_physics.store import Simulations, SimulationStore, StoreHeader

TESTS = Path(__file__).parent
SIZE = 10


def header_of(**changes):
    simulator = Line()
    values = {
        "simulator": simulator.identity,
        "prior": simulator.prior,
        "observable": simulator.observable,
        "seed": 5,
        "purpose": "train",
        "chunk_size": SIZE,
    }
    return StoreHeader(**{**values, **changes})


def rows_of(simulator, n, seed):
    rng = np.random.default_rng(seed)
    theta = simulator.prior.sample(n, rng)
    return theta, simulator.simulate(theta, rng)


def fill(store, chunks, round=0, rows=SIZE):
    for chunk in chunks:
        theta, x = rows_of(Line(), rows, seed=chunk)
        store.append(round, chunk, theta, x)


@pytest.fixture
def folder(tmp_path):
    """A store of three chunks, 25 rows."""
    path = tmp_path / "line.zarr"
    with SimulationStore.open(path, "a", header_of()) as store:
        fill(store, [0, 1])
        fill(store, [2], rows=5)
    return path


# Round trip --------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(1, SIZE), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=15)
def test_what_is_appended_in_any_order_is_read_back_in_order(tmp_path_factory, sizes, order):
    chunks = {k: rows_of(Line(), n, seed=k) for k, n in enumerate(sizes)}
    sequence = list(chunks)
    order.shuffle(sequence)
    for path in (None, tmp_path_factory.mktemp("store") / "s"):
        with SimulationStore.open(path, "a", header_of()) as store:
            for chunk in sequence:
                store.append(0, chunk, *chunks[chunk])
            simulations = store.simulations()
        expected = [np.concatenate([chunks[k][i] for k in chunks]) for i in (0, 1)]
        assert simulations.theta.tobytes() == expected[0].tobytes()
        assert simulations.x.tobytes() == expected[1].tobytes()


def test_plain_zarr_reads_the_same_arrays_without_warnings(tmp_path):
    simulations = simulate(TwoStage(), 25, store=tmp_path / "s", seed=1, chunk_size=SIZE)
    group = zarr.open_group(tmp_path / "s", mode="r")
    assert sorted(name for name, _ in group.members()) == [
        "round", "theta", "valid", "weight", "x", "z",
    ]  # fmt: skip
    rows = simulations.read(slice(None))
    np.testing.assert_array_equal(group["theta"][:], rows.theta)
    np.testing.assert_array_equal(group["x"][:], rows.x)
    np.testing.assert_array_equal(group["z/true"][:], rows.z["true"])
    np.testing.assert_array_equal(group["z/count"][:], rows.z["count"])
    np.testing.assert_array_equal(group["valid"][:], np.ones(25, bool))
    np.testing.assert_array_equal(group["weight"][:], np.ones(25))
    np.testing.assert_array_equal(group["round"][:], np.zeros(25))
    assert group["theta"].attrs["units"] == ["m", "m/s"]


def test_any_rows_can_be_asked_for(folder):
    simulations = SimulationStore.open(folder).simulations()
    theta, x = simulations.theta, simulations.x
    for rows in ([0], [24, 3, 3, 11], np.arange(5, 25, 7), []):
        some = simulations.read(np.array(rows, dtype=int))
        np.testing.assert_array_equal(some.theta, theta[rows])
        np.testing.assert_array_equal(some.x, x[np.array(rows, dtype=int)])
    some = simulations.read(slice(8, 22, 3))
    np.testing.assert_array_equal(some.theta, theta[8:22:3])
    blocks = list(simulations.blocks(7))
    assert [len(b) for b in blocks] == [7, 7, 7, 4]
    np.testing.assert_array_equal(np.concatenate([b.x for b in blocks]), x)
    with pytest.raises(ContractError, match=r"row 25 is out of range: there are 25"):
        simulations.read([3, 25])
    with pytest.raises(UnknownNameError, match="latent 'true'"):
        simulations.read([1], latents=["true"])


def test_latents_come_back_with_their_types_and_only_when_asked_for():
    simulations = simulate(TwoStage(), 20, seed=1)
    rows = simulations.read(slice(0, 5))
    assert simulations.latents == ("count", "true")
    assert (rows.z["true"].dtype, rows.z["true"].shape) == (np.float32, (5, 3))
    assert rows.z["count"].dtype == np.int64
    assert set(simulations.read([1], latents=["true"]).z) == {"true"}
    assert simulations.read([], latents=["true"]).z["true"].shape == (0, 3)
    taken = rows.take(np.array([4, 0]))
    np.testing.assert_array_equal(taken.z["count"], rows.z["count"][[4, 0]])


def test_weights_are_none_until_a_chunk_has_some():
    theta, x = rows_of(Line(), 3, seed=0)
    store = SimulationStore.open(None, "a", header_of())
    store.append(0, 0, theta, x)
    assert store.simulations().read(slice(None)).weight is None
    store.append(0, 1, theta, x, weight=[0.5, 2.0, 0.0])
    np.testing.assert_array_equal(
        store.simulations().read(slice(None)).weight, [1, 1, 1, 0.5, 2, 0]
    )
    with pytest.raises(ContractError, match="weights"):
        store.append(0, 2, theta, x, weight=[1.0, -1.0, 1.0])


def test_rows_that_are_not_finite_or_not_selected_are_kept_apart():
    theta, x = rows_of(Line(), 6, seed=0)
    x[1, 2] = np.nan
    x[4] = np.inf
    store = SimulationStore.open(None, "a", header_of())
    store.append(0, 0, theta, x, valid=[True, True, False, True, True, True])
    fill(store, [1], rows=4)
    simulations = store.simulations()
    assert (len(simulations), simulations.n_invalid, simulations.n_simulated) == (7, 3, 10)
    assert simulations.valid_fraction == pytest.approx(0.7)
    np.testing.assert_array_equal(simulations.theta[:3], theta[[0, 3, 5]])
    np.testing.assert_array_equal(simulations.read([1, 3]).x[0], x[3])
    np.testing.assert_array_equal(simulations.invalid_theta(), theta[[1, 2, 4]])
    assert np.isfinite(simulations.x).all()


def test_a_latent_that_is_not_finite_makes_its_row_invalid():
    theta, x = rows_of(Line(), 3, seed=0)
    store = SimulationStore.open(None, "a", header_of())
    store.append(0, 0, theta, x, {"z": np.array([1.0, np.nan, 2.0])})
    assert store.simulations().n_invalid == 1


def test_reading_a_few_rows_of_a_big_store_needs_little_memory(tmp_path):
    n, row = 4000, 2000 * 4
    simulations = simulate(Wide(), n, store=tmp_path / "wide", seed=1)
    list(simulations.blocks(10))  # imports and caches are not what is measured
    tracemalloc.start()
    try:
        simulations.read([1, n // 2, n - 1])
        assert tracemalloc.get_traced_memory()[1] < 4 * 256 * row
        tracemalloc.reset_peak()
        total = sum(len(block) for block in simulations.blocks(100))
        assert tracemalloc.get_traced_memory()[1] < 4 * 256 * row < 0.3 * n * row
    finally:
        tracemalloc.stop()
    assert total == n


# Rounds and extension ----------------------------------------------------------------------------


def test_rounds_have_their_own_rows_and_priors(tmp_path):
    narrow = Line().prior.truncate({"a": (0.0, 1.0)})
    first = simulate(Line(), 25, store=tmp_path / "s", seed=1, chunk_size=SIZE)
    second = simulate(
        Line(), 15, store=tmp_path / "s", seed=1, round=1, prior=narrow, chunk_size=SIZE
    )
    more = simulate(Line(), 38, store=tmp_path / "s", seed=1, chunk_size=SIZE)
    assert second.rounds == (1,)
    assert second.prior == narrow
    assert narrow.contains(second.theta).all()
    np.testing.assert_array_equal(more.theta[:25], first.theta)
    store = SimulationStore.open(tmp_path / "s")
    assert (store.n_rows(), store.n_rows(0), store.n_rows(1)) == (53, 38, 15)
    assert store.rounds == (0, 1)
    assert store.committed(1) == {0, 1}
    np.testing.assert_array_equal(store.simulations([1]).theta, second.theta)
    assert (
        store.simulations([0]).digest() == simulate(Line(), 38, seed=1, chunk_size=SIZE).digest()
    )
    group = zarr.open_group(tmp_path / "s", mode="r")
    round_1 = group["theta"][:][(group["round"][:] == 1) & group["valid"][:]]
    np.testing.assert_array_equal(round_1, second.theta)
    with pytest.raises(StoreError, match="different priors"):
        store.simulations()
    with pytest.raises(StoreError, match=r"has rounds \[0, 1\], asked for \[4\]"):
        store.simulations([4])
    with pytest.raises(StoreMismatchError, match=r"round 1 .* high: the store has 1.0, asked"):
        simulate(
            Line(), 15, store=tmp_path / "s", seed=1, round=1,
            prior=Line().prior.truncate({"a": (0.0, 0.5)}),
        )  # fmt: skip


def test_a_chunk_is_written_once_unless_it_grows(folder):
    with SimulationStore.open(folder, "a") as store:
        before = store.simulations()
        with pytest.raises(ContractError, match=r"chunk 1 of round 0 .* exists, with 10 rows"):
            fill(store, [1])
        theta, x = rows_of(Line(), SIZE, seed=9)
        theta[:5], x[:5] = before.theta[20:], before.x[20:]
        store.append(0, 2, theta, x)
        assert store.n_rows() == 30
        # A snapshot taken earlier goes on with the rows it had.
        np.testing.assert_array_equal(before.theta[20:], theta[:5])


# Refusals ----------------------------------------------------------------------------------------


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


# Damage ------------------------------------------------------------------------------------------


def damage_truncated(path):
    file = path / "x" / "c" / "1" / "0"
    file.write_bytes(file.read_bytes()[:20])


def damage_truncated_uncompressed(path):
    file = path / "theta" / "c" / "1" / "0"
    file.write_bytes(file.read_bytes()[:20])


def damage_missing(path):
    (path / "x" / "c" / "1" / "0").unlink()


def damage_bit_flip(path):
    file = path / "theta" / "c" / "1" / "0"
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(bytes(content))


def damage_swapped(path):
    shutil.copy(path / "x" / "c" / "0" / "0", path / "x" / "c" / "1" / "0")


@pytest.mark.parametrize(
    ("damage", "name", "message"),
    [
        (damage_truncated, "x", r"x/c/1/0 is damaged or cut short"),
        (damage_truncated_uncompressed, "theta", r"theta/c/1/0 is damaged or cut short"),
        (damage_missing, "x", r"x/c/1/0 is missing"),
        (damage_bit_flip, "theta", r"array 'theta' has checksum"),
        (damage_swapped, "x", r"array 'x' has checksum"),
    ],
)
def test_a_damaged_chunk_is_named_and_can_be_drawn_again(tmp_path, damage, name, message):
    path = tmp_path / "s"
    whole = simulate(Line(), 25, store=path, seed=1, chunk_size=SIZE)
    theta, x = whole.theta, whole.x
    damage(path)
    store = SimulationStore.open(path)
    simulations = store.simulations()
    simulations.read(slice(0, 10))
    with pytest.raises(StoreError, match=rf"damaged in chunk 1 of round 0: .*{message}"):
        simulations.read(slice(5, 15))
    with pytest.raises(StoreError, match=r"damaged chunks: 1 of round 0 .*repair\(\)"):
        store.verify()
    with SimulationStore.open(path, "a") as writable:
        assert writable.repair() == ((0, 1),)
    again = simulate(Line(), 25, store=path, seed=1, chunk_size=SIZE)
    SimulationStore.open(path).verify()
    assert (again.theta.tobytes(), again.x.tobytes()) == (theta.tobytes(), x.tobytes())


@pytest.mark.parametrize("file", ["zarr.json", "x/zarr.json", "theta/zarr.json"])
@pytest.mark.parametrize("mode", ["r", "a"])
def test_damaged_metadata_is_named(folder, file, mode):
    (folder / file).write_text((folder / file).read_text()[:50])
    with pytest.raises(StoreError, match=rf"is damaged: .*{file} cannot be read"):
        SimulationStore.open(folder, mode, header_of())


@pytest.mark.parametrize("mode", ["r", "a"])
def test_missing_metadata_is_named(folder, mode):
    (folder / "x" / "zarr.json").unlink()
    with pytest.raises(StoreError, match=r"x/zarr.json is missing"):
        SimulationStore.open(folder, mode, header_of())
    (folder / "zarr.json").unlink()
    with pytest.raises(StoreError, match=r"zarr.json is missing"):
        SimulationStore.open(folder, mode, header_of())
    assert (folder / "theta" / "c" / "0" / "0").exists()


def test_metadata_that_contradicts_the_header_is_refused(folder):
    file = folder / "x" / "zarr.json"
    meta = json.loads(file.read_text())
    meta["data_type"] = "float64"
    file.write_text(json.dumps(meta))
    with pytest.raises(StoreError, match="disagrees with the store's header"):
        SimulationStore.open(folder)


def test_an_index_entry_without_data_is_named(folder):
    shutil.rmtree(folder / "x" / "c")
    with pytest.raises(StoreError, match=r"chunk 0 of round 0: .*x/c/0/0 is missing"):
        _ = SimulationStore.open(folder).simulations().x


def test_a_missing_index_is_named(folder):
    (folder / "valid" / "index.jsonl").unlink()
    for mode in ("r", "a"):
        with pytest.raises(StoreError, match=r"cannot read the store's index .*index\.jsonl"):
            SimulationStore.open(folder, mode, header_of())


def test_a_torn_last_line_of_the_index_was_never_written(folder):
    index = folder / "valid" / "index.jsonl"
    whole = index.read_bytes()
    for cut in (1, 30, 60):
        index.write_bytes(whole[:-cut])
        assert SimulationStore.open(folder).committed() == {0, 1}
    with SimulationStore.open(folder, "a") as store:
        fill(store, [2], rows=5)
    assert index.read_bytes() == whole


def test_a_damaged_line_inside_the_index_is_named(folder):
    index = folder / "valid" / "index.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"chunk":0', b'"chunk":7')
    index.write_bytes(b"".join(lines))
    with pytest.raises(StoreError, match=r"index\.jsonl is damaged in line 2"):
        SimulationStore.open(folder)


def test_a_store_killed_while_being_created_is_created_anew(tmp_path):
    whole = tmp_path / "whole"
    SimulationStore.open(whole, "a", header_of()).close()
    files = [p.relative_to(whole) for p in sorted(whole.rglob("*")) if p.is_file()]
    for removed in range(1, len(files)):
        # Attributes are written last; before that any of the other files may be missing.
        path = tmp_path / f"part{removed}"
        shutil.copytree(whole, path)
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
        for name in files[:removed]:
            (path / name).unlink()
        (path / "theta" / "zarr.json.partial").parent.mkdir(exist_ok=True)
        (path / "theta" / "zarr.json.partial").write_text("half")
        with SimulationStore.open(path, "a", header_of(seed=8)) as store:
            fill(store, [0])
        reopened = SimulationStore.open(path)
        assert (reopened.header.seed, reopened.n_rows()) == (8, 10)
        assert not list(path.rglob("*.partial"))


def test_a_store_of_a_newer_format_asks_for_an_update(folder):
    meta = json.loads((folder / "zarr.json").read_text())
    meta["attributes"]["sbi_physics"]["format"] = 99
    (folder / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(StoreError, match="format 99; this version reads 1: update"):
        SimulationStore.open(folder)


# Identity ----------------------------------------------------------------------------------------


def test_equal_simulations_have_equal_digests_wherever_they_are(tmp_path):
    make = lambda **changes: simulate(  # noqa: E731
        Line(), **{"n": 25, "seed": 1, "chunk_size": SIZE, **changes}
    )
    digest = make().digest()
    assert make(store=tmp_path / "s").digest() == digest
    make(store=tmp_path / "s", n=48)
    assert make(store=tmp_path / "s").digest() == digest
    others = [make(n=24), make(seed=2), make(purpose="pairs"), make(n=48)]
    assert len({digest, *(s.digest() for s in others)}) == 5


def test_only_shared_streams_overlap():
    def some(n=25, **changes):
        return simulate(Line(), n, **{"seed": 1, "chunk_size": SIZE, **changes})

    train = some()
    assert train.overlaps(some(5))
    assert train.overlaps(simulate(Line(noise=2.0), 5, seed=1, chunk_size=SIZE))
    assert not train.overlaps(some(purpose="pairs"))
    assert not train.overlaps(some(seed=2))
    assert not train.overlaps(some(round=1))
    theta, x = rows_of(Line(), 5, seed=0)
    bare = [Simulations.from_arrays(t, x, Line().prior, Line().observable) for t in (theta, theta)]
    assert bare[0].overlaps(bare[1])
    assert not bare[0].overlaps(train)
    other = Simulations.from_arrays(*rows_of(Line(), 5, 1), Line().prior, Line().observable)
    assert not bare[0].overlaps(other)


def test_arrays_made_elsewhere_become_simulations():
    simulator = Line()
    theta, x = rows_of(simulator, 5000, seed=0)
    x[7] = np.nan
    z = {"k": np.arange(5000)}
    simulations = Simulations.from_arrays(
        theta, x, simulator.prior, simulator.observable, z=z, purpose="pairs"
    )
    kept = np.delete(np.arange(5000), 7)
    np.testing.assert_array_equal(simulations.theta, theta[kept])
    np.testing.assert_array_equal(simulations.x, x[kept])
    np.testing.assert_array_equal(simulations.read([4998]).z["k"], [4999])
    assert (simulations.n_invalid, simulations.purpose, simulations.seed) == (1, "pairs", None)
    assert simulations.identity is None
    with pytest.raises(ContractError, match="bare arrays"):
        _ = simulations.simulator
    named = Simulations.from_arrays(
        theta, x, simulator.prior, simulator.observable, simulator=simulator
    )
    assert named.simulator is simulator
    assert named.identity == simulator.identity


def test_arrays_that_do_not_belong_together_are_refused():
    simulator = Line()
    theta, x = rows_of(simulator, 5, seed=0)
    with pytest.raises(ContractError, match=r"\{'theta': 5, 'x': 4\}"):
        Simulations.from_arrays(theta, x[:4], simulator.prior, simulator.observable)
    theta[3, 0] = 7.0
    with pytest.raises(ContractError, match=r"1 of 5 rows .* outside the prior.* row 3: a = 7"):
        Simulations.from_arrays(theta, x, simulator.prior, simulator.observable)


def test_a_store_gives_its_simulator_only_if_it_is_the_same(folder):
    store = SimulationStore.open(folder)
    assert store.simulations(simulator=Line()).simulator.name == "line"
    with pytest.raises(StoreMismatchError, match=r"version: the store has '1', the given .* '2'"):
        store.simulations(simulator=NewerLine())
    with pytest.raises(UnknownNameError, match="'line'"):
        _ = store.simulations().simulator


def test_an_empty_store_is_a_store(tmp_path):
    SimulationStore.open(tmp_path / "s", "a", header_of()).close()
    simulations = SimulationStore.open(tmp_path / "s").simulations()
    assert len(simulations) == 0
    assert simulations.theta.shape == (0, 2)
    assert simulations.x.shape == (0, 4)
    assert simulations.valid_fraction == 1.0
    assert "0 valid of 0" in repr(simulations)
