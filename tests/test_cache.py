import os
import subprocess
import sys

import pytest

from glm_jax import cache
from glm_jax.config import DataConfig
from glm_jax.data.store import StoreWriter
from glm_jax.errors import UserError
from glm_jax.pipeline import corpus
from glm_jax.tokenizers.tokenizer import load_tokenizer

CONFIG = "from glm_jax.config import Config\n\ndef get_config():\n    return Config()\n"


def run(tmp_path, *arguments):
    (tmp_path / "config.py").write_text(CONFIG)
    command = [sys.executable, "-m", "glm_jax.cache", "--config", str(tmp_path / "config.py")]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "GLM_JAX_CACHE": str(tmp_path / "cache")}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment)


def write_store(directory):
    tokenizer = load_tokenizer()
    with StoreWriter(
        directory,
        vocab_size=tokenizer.vocab_size,
        special=tokenizer.special,
        sentence_ends=tokenizer.sentence_ends(),
        description={},
    ) as writer:
        writer.add("train", [[300, 301, 302], [303]])
        writer.add("eval", [[304]])


def test_describe(tmp_path):
    write_store(tmp_path / "store")
    assert cache.describe(tmp_path / "store") == (
        f"{tmp_path / 'store'}, train 2 documents 4 tokens, eval 1 documents 1 tokens"
    )


def test_the_stores_of_a_mixture(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "a.txt").write_text("\n\n".join(f"text {n}" for n in range(40)))
    write_store(tmp_path / "stores" / "there")
    mixture = f"data.mixture=there=bundled@1, new={tmp_path}/a.txt@1"
    overrides = ["--set", mixture, "--set", f"data.store={tmp_path}/stores"]
    monkeypatch.setattr(sys, "argv", ["cache", "--config", str(tmp_path / "config.py"), *overrides])
    cache.main()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"there: there already: {tmp_path}/stores/there, train 2 documents")
    assert second.startswith(f"new: built: {tmp_path}/stores/new, train ")


@pytest.mark.processes
def test_says_that_a_store_is_there(tmp_path):
    write_store(tmp_path / "store")
    done = run(tmp_path, "--set", f"data.store={tmp_path / 'store'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"there already: {tmp_path / 'store'}, train 2 documents")


@pytest.mark.processes
@pytest.mark.tensorflow
def test_builds(tmp_path):
    pytest.importorskip("seqio")
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree")
    done = run(tmp_path, "--set", f"data.source={tmp_path}/*.txt")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"built: {tmp_path / 'cache' / 'stores'}/")
    assert "train 2 documents" in done.stdout
    assert "eval 1 documents" in done.stdout


@pytest.mark.tensorflow
def test_builds_anew_in_place_of_the_old_store(tmp_path):
    pytest.importorskip("seqio")
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree")
    data = DataConfig(source=str(tmp_path / "*.txt"))
    write_store(tmp_path / "stores" / "one")
    for _ in range(2):
        corpus.rebuild(data, tmp_path / "stores" / "one")
        assert "train 2 documents" in cache.describe(tmp_path / "stores" / "one")
    assert [path.name for path in (tmp_path / "stores").iterdir()] == ["one"]

    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match="empty corpus"):
        corpus.rebuild(data, tmp_path / "stores" / "one")
    assert "train 2 documents" in cache.describe(tmp_path / "stores" / "one")


def test_a_kill_between_two_renames_loses_no_store(tmp_path, monkeypatch):
    """Whatever call a kill comes before, the old store or the new one is there at the next try."""
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree")
    data = DataConfig(source=str(tmp_path / "*.txt"))

    class Killed(BaseException):
        pass

    target, calls = tmp_path / "stores" / "one", []
    write_store(target)
    for name in ("rename", "rmdir"):
        real = getattr(os, name)

        def counting(*arguments, real=real, **options):
            calls.append(arguments)
            if len(calls) == stop:
                raise Killed
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, counting)
    for stop in range(1, 20):
        calls.clear()
        try:
            corpus.rebuild(data, target)
        except Killed:
            stores = [path for path in (tmp_path / "stores").iterdir() if corpus._is_store(path)]
            assert stores, f"no store is left of a kill at call {stop}"
        else:
            break
    assert stop > 2
    assert "train 2 documents" in cache.describe(target)


@pytest.mark.processes
def test_a_missing_corpus_is_one_sentence_and_nothing_written(tmp_path):
    done = run(tmp_path, "--set", "data.source=nowhere/*.txt")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no file matches data.source='nowhere/*.txt'")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "cache").exists()


def test_force_removes_nothing_but_a_store(tmp_path):
    pytest.importorskip("seqio")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="is not a token store; remove it by hand"):
        corpus.rebuild(DataConfig(), tmp_path / "notes")
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"
