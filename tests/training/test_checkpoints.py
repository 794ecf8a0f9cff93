import errno
import gc
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from glm_jax.checkpoints import checksums
from glm_jax.checkpoints.checksums import damage, read_manifest, writer_of
from glm_jax.checkpoints.disk import DiskTrouble
from glm_jax.checkpoints.layouts import own_copy
from glm_jax.checkpoints.params import load_params
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.config import to_dict
from glm_jax.errors import UserError
from glm_jax.models.trees import unstack_layers
from glm_jax.training import checkpoints as checkpoints_module
from glm_jax.training.checkpoints import Checkpoints
from glm_jax.training.state import create_state, opt_state_to_dict
from tests.checkpoints.saved import at, save
from tests.free_port import free_port


def test_a_state_comes_back_bit_for_bit(tmp_path, config, mesh, state):
    save(tmp_path / "c", config, mesh, [at(state, 3)])
    restored, stream = Checkpoints(tmp_path / "c", config, mesh).restore()
    assert stream == b"stream 3"
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, at(state, 3))
    assert restored.params["embedding"]["table"].sharding.mesh == mesh


def test_nothing_saved_yet(tmp_path, config, mesh):
    assert Checkpoints(tmp_path / "c", config, mesh).restore() is None
    assert not (tmp_path / "c").exists()


def test_the_newest_stay(tmp_path, config, mesh, state):
    save(tmp_path / "c", config, mesh, [at(state, step) for step in (1, 2, 5, 9)])
    assert saved_steps(tmp_path / "c") == [5, 9]


def test_a_copy_to_be_saved_shares_no_memory_with_the_state(state):
    """Else the next step, to which the state is donated, would write into what is being saved."""
    for copy, leaf in zip(jax.tree.leaves(own_copy(state)), jax.tree.leaves(state), strict=True):
        assert copy.unsafe_buffer_pointer() != leaf.unsafe_buffer_pointer()


def test_donated_buffers_do_not_reach_the_writer(tmp_path, config, mesh, state, change):
    """Steps that start while a save is being written must not be in it."""
    config = change(config, "model.vocab_size", 8192)
    state = create_state(config, mesh)
    expected = jax.device_get(state)
    grow = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path / "c", config, mesh)
    checkpoints.save(state, b"")
    for _ in range(50):
        state = grow(state)
    jax.block_until_ready(state)
    checkpoints.close()
    restored, _ = Checkpoints(tmp_path / "c", config, mesh).restore()
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


def test_what_a_killed_save_leaves_is_ignored_and_removed(tmp_path, config, mesh, state):
    save(tmp_path / "c", config, mesh, [at(state, 1)])
    left = tmp_path / "c" / "2.orbax-checkpoint-tmp"
    (left / "params").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path / "c", config, mesh)
    assert checkpoints.steps() == [1]
    restored, _ = checkpoints.restore()
    assert int(restored.step) == 1
    assert not left.exists()


def test_a_damaged_newest_step_gives_way_to_the_one_before(tmp_path, config, mesh, state, caplog):
    save(tmp_path / "c", config, mesh, [at(state, 1), at(state, 2)])
    for file in (tmp_path / "c" / "2" / "params").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:3])
    checkpoints = Checkpoints(tmp_path / "c", config, mesh)
    with caplog.at_level(logging.WARNING):
        restored, _ = checkpoints.restore()
    assert int(restored.step) == 1
    assert "checkpoint 2 cannot be read" in caplog.text
    # It must not count among the newest, nor be in the way when step 2 is saved again.
    assert checkpoints.steps() == [1]
    checkpoints.save(at(state, 2), b"")
    checkpoints.close()
    assert saved_steps(tmp_path / "c") == [1, 2]


@pytest.mark.parametrize("verify", [True, False])
def test_an_error_is_not_damage(tmp_path, config, change, mesh, state, monkeypatch, verify):
    """Out of memory, another shape: raised, and the step keeps its name."""
    config = change(config, "train.verify_checkpoints", verify)
    save(tmp_path / "c", config, mesh, [at(state, 1), at(state, 2)])

    def fail(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(Checkpoints, "_restore", fail)
    with pytest.raises(RuntimeError, match="Out of memory"):
        Checkpoints(tmp_path / "c", config, mesh).restore()
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "2"]


def test_another_shape_is_not_damage(tmp_path, config, change, mesh, state):
    save(tmp_path / "c", config, mesh, [at(state, 1), at(state, 2)])
    with pytest.raises(Exception, match=r"(?i)shape|structure|size|tree"):
        Checkpoints(tmp_path / "c", change(config, "model.embed_dim", 32), mesh).restore()
    assert saved_steps(tmp_path / "c") == [1, 2]


@pytest.mark.parametrize("where", ["checksums", "arrays"])
def test_a_disk_that_cannot_be_read_is_not_damage(
    tmp_path, config, mesh, state, monkeypatch, where
):
    save(tmp_path / "c", config, mesh, [at(state, 1), at(state, 2)])

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    if where == "checksums":
        monkeypatch.setattr(checksums, "_sha256", fail)
    else:
        monkeypatch.setattr(checkpoints_module.ocp, "load_checkpointables", fail)
    with pytest.raises(DiskTrouble, match="cannot be read: Input/output error"):
        Checkpoints(tmp_path / "c", config, mesh).restore()
    assert saved_steps(tmp_path / "c") == [1, 2]


def test_files_that_are_cut_are_seen_without_checksums(
    tmp_path, config, change, mesh, state, monkeypatch
):
    """By their sizes, before anything of the step is read."""
    config = change(config, "train.verify_checkpoints", False)
    save(tmp_path / "checkpoints", config, mesh, [at(state, 1), at(state, 2)])
    for file in (tmp_path / "checkpoints" / "2" / "params").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:3])
    with pytest.raises(UserError, match=r"checkpoint 2 cannot be read: .* has 3 bytes"):
        load_params(tmp_path)
    read, real = [], Checkpoints._restore
    monkeypatch.setattr(
        Checkpoints, "_restore", lambda self, step: read.append(step) or real(self, step)
    )
    restored, _ = Checkpoints(tmp_path / "checkpoints", config, mesh).restore()
    assert (int(restored.step), read) == (1, [1])


def test_damage_that_only_reading_shows_is_told_in_one_sentence(
    tmp_path, config, change, mesh, state, capfd, caplog, recwarn
):
    """Nothing is checked before; each array's task fails, and none of them says so."""
    config = change(config, "train.verify_checkpoints", False)
    save(tmp_path / "c", config, mesh, [at(state, 1)])
    for file in (tmp_path / "c" / "1").rglob("d/*"):
        file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(UserError, match="checksum differs"):
        Checkpoints(tmp_path / "c", config, mesh).restore()
    gc.collect()
    assert caplog.records == []
    assert recwarn.list == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_step_under_the_name_of_another_is_refused(tmp_path, config, mesh, state, exchanged):
    save(tmp_path / "checkpoints", config, mesh, [at(state, 1), at(state, 2)])
    one, two = tmp_path / "checkpoints" / "1", tmp_path / "checkpoints" / "2"
    if exchanged:
        one.rename(tmp_path / "x")
        two.rename(one)
        (tmp_path / "x").rename(two)
    else:
        shutil.rmtree(two)
        shutil.copytree(one, two)
    wrong, held = (one, 2) if exchanged else (two, 1)
    said = rf"{wrong}' holds the checkpoint of step {held}, by its manifest"
    with pytest.raises(UserError, match=said):
        Checkpoints(tmp_path / "checkpoints", config, mesh).restore()
    with pytest.raises(UserError, match="holds the checkpoint of step"):
        load_params(tmp_path / "checkpoints" / "2")
    with pytest.raises(UserError, match=said):
        load_params(tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == [1, 2]


def test_a_save_that_fails_for_no_known_reason_is_said_all_the_same(
    tmp_path, config, mesh, state, monkeypatch
):
    def fail(directory):
        raise OSError("the mount went away")

    monkeypatch.setattr(checkpoints_module, "probe", fail)
    with pytest.raises(DiskTrouble, match="checkpoint 1 could not be written: the mount went away"):
        Checkpoints(tmp_path / "c", config, mesh).save(at(state, 1), b"")


def test_all_damaged_is_an_error(tmp_path, config, mesh, state):
    save(tmp_path / "c", config, mesh, [at(state, 1)])
    for file in (tmp_path / "c" / "1" / "params").rglob("d/*"):
        file.unlink()
    with pytest.raises(UserError, match=r"\[1\]"):
        Checkpoints(tmp_path / "c", config, mesh).restore()
    assert saved_steps(tmp_path / "c") == [1]


def test_layers_that_an_older_version_listed_come_stacked(tmp_path, config, mesh, state):
    """As it wrote them on CPU: moments likewise, and no fingerprint of the data."""
    # Not above: imported before glm_jax, orbax would use TensorFlow's files in buckets.
    from orbax.checkpoint import v1 as ocp

    (adam, *others) = state.opt_state
    adam = adam._replace(mu=unstack_layers(adam.mu), nu=unstack_layers(adam.nu))
    items = {
        "params": unstack_layers(state.params),
        "optimizer": opt_state_to_dict((adam, *others)),
        "data": {"step": 1, "stream": b"stream 1".hex()},
    }
    about = {"config": to_dict(config), "stacked": False}
    ocp.save_checkpointables(tmp_path / "c" / "1", items, custom_metadata=about)
    restored, stream = Checkpoints(tmp_path / "c", config, mesh).restore()
    assert stream == b"stream 1"
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, at(state, 1))


def flip_a_byte(step):
    """Changes one bit of the parameters' largest file: the formats below do not notice."""
    file = max((step / "params").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return file


def test_a_flipped_byte_is_refused(tmp_path, config, mesh, state, caplog):
    save(tmp_path / "checkpoints", config, mesh, [at(state, 1), at(state, 2)])
    file = flip_a_byte(tmp_path / "checkpoints" / "2")
    with pytest.raises(UserError, match=rf"checkpoint 2 cannot be read: {file} is not what was"):
        load_params(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints", config, mesh)
    with caplog.at_level(logging.WARNING):
        restored, stream = checkpoints.restore()
    assert (int(restored.step), stream) == (1, b"stream 1")
    assert str(file) in caplog.text
    assert checkpoints.steps() == [1]
    assert (tmp_path / "checkpoints" / "damaged-2").is_dir()


def test_one_step_that_is_asked_for(tmp_path, config, mesh, state):
    save(tmp_path / "c", config, mesh, [at(state, 1), at(state, 2)])
    restored, stream = Checkpoints(tmp_path / "c", config, mesh).restore(1)
    assert (int(restored.step), stream) == (1, b"stream 1")
    assert saved_steps(tmp_path / "c") == [1, 2]
    flip_a_byte(tmp_path / "c" / "1")
    with pytest.raises(UserError, match=r"none of the checkpoints \[1\]"):
        Checkpoints(tmp_path / "c", config, mesh).restore(1)


def test_a_step_whose_manifest_was_not_written_is_not_taken(tmp_path, config, mesh, state, caplog):
    """A kill between the last file and the manifest; the next complete step removes it."""
    save(tmp_path / "c", config, mesh, [at(state, 1), at(state, 2)])
    (tmp_path / "c" / "2" / "manifest.json").unlink()
    checkpoints = Checkpoints(tmp_path / "c", config, mesh)
    assert checkpoints.steps() == [1]
    restored, _ = checkpoints.restore()
    assert int(restored.step) == 1
    assert "checkpoint 2 was not finished" in caplog.text
    assert (tmp_path / "c" / "unfinished-2").is_dir()
    checkpoints.save(at(state, 2), b"")
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "2"]


def test_the_best_stay_beside_the_newest(tmp_path, config, change, mesh, state):
    config = change(change(config, "train.keep_best", 1), "train.keep_checkpoints", 1)
    checkpoints = Checkpoints(tmp_path / "c", config, mesh)
    for step, loss in ((1, 4.0), (2, 3.0), (3, 3.5), (4, None)):
        checkpoints.save(at(state, step), b"", {} if loss is None else {"eval/loss": loss})
    checkpoints.close()
    assert saved_steps(tmp_path / "c") == [2, 4]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_save_that_fails_leaves_the_older_step(
    tmp_path, config, mesh, state, monkeypatch, number
):
    save(tmp_path / "c", config, mesh, [at(state, 1)])

    def fail(directory, metrics, known):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoints_module, "write_manifest", fail)
    checkpoints = Checkpoints(tmp_path / "c", config, mesh)
    checkpoints.save(at(state, 2), b"")
    with pytest.raises(DiskTrouble, match=f"checkpoint 2 .*: {os.strerror(number)}"):
        checkpoints.wait()
    checkpoints.close()
    restored, _ = Checkpoints(tmp_path / "c", config, mesh).restore()
    assert int(restored.step) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 512 KiB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("needs the right to mount a disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("free_kib", [8, 24, 48])  # each ends another write
def test_a_disk_that_is_full_and_one_that_is_read_only(
    free_kib, small_disk, config, mesh, state, capfd, caplog
):
    save(small_disk / "c", config, mesh, [at(state, 1)])
    free = free_kib * 1024
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - free))
    checkpoints = Checkpoints(small_disk / "c", config, mesh)
    with pytest.raises(DiskTrouble, match=r"checkpoint 2 .*: No space left on device"):  # noqa: PT012
        checkpoints.save(at(state, 2), b"")
        checkpoints.wait()
    assert shutil.disk_usage(small_disk).free >= free  # what was begun is gone
    assert (caplog.records, capfd.readouterr().err) == ([], "")  # the sentence alone
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DiskTrouble, match=r"checkpoint 2 .*: Read-only file system"):
        checkpoints.save(at(state, 2), b"")
    restored, _ = Checkpoints(small_disk / "c", config, mesh).restore()
    assert int(restored.step) == 1


@pytest.mark.processes
@pytest.mark.nightly  # half a minute; test_loop.py has two hosts that save
def test_two_hosts_save_and_one_goes_on(tmp_path, config, mesh):
    script = Path(__file__).with_name("checkpoint_of_two_hosts.py")
    command = [sys.executable, str(script), str(tmp_path / "c"), str(free_port())]
    hosts = [
        subprocess.Popen([*command, str(rank)], text=True, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for host in hosts:
        _, said = host.communicate(timeout=300)
        assert host.returncode == 0, said
    assert (tmp_path / "c" / "damaged-1").is_dir()
    assert (tmp_path / "c" / "damaged-2").is_dir()
    files = read_manifest(tmp_path / "c" / "0")["files"]
    assert {writer_of(name, 2) for name in files} == {0, 1}
    assert damage(tmp_path / "c" / "0") is None
    restored, stream = Checkpoints(tmp_path / "c", config, mesh).restore()
    assert stream == b"12"
    jax.tree.map(np.testing.assert_array_equal, restored, create_state(config, mesh))
