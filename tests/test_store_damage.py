"""Damaged stores: what is missing or changed is named, and can be drawn again."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_simulators import Line
from sample_stores import SIZE, fill, header_of, store_of_three_chunks

from sbi_physics.errors import StoreError
from sbi_physics.simulate import simulate
from sbi_physics.store import SimulationStore


@pytest.fixture
def folder(tmp_path):
    return store_of_three_chunks(tmp_path / "line.zarr")


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
