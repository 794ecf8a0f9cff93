"""Where the stores of a corpus lie, and what becomes of a SeqIO mixture."""

import pytest

from glm_jax.config import DataConfig
from glm_jax.data.mixture_store import INDEX, Part, built, sources
from glm_jax.errors import UserError


def test_one_source(tmp_path):
    data = DataConfig(store=str(tmp_path))
    assert sources(data) == built(sources(data)) == [Part("", 1.0, tmp_path, data)]


def test_sources_of_the_config(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    mixture = {"wiki": (str(tmp_path / "*.txt"), 3), "books": ("bundled", 1)}
    data = DataConfig(mixture=mixture, store=str(tmp_path / "stores"), sequence_length=64)
    parts = sources(data)
    assert [(p.name, p.rate) for p in parts] == [("wiki", 3.0), ("books", 1.0)]
    assert [p.directory for p in parts] == [tmp_path / "stores" / name for name in mixture]
    assert [p.data.source for p in parts] == [mixture["wiki"][0], "bundled"]
    assert {p.data.components for p in parts} == {()}
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    own = sources(DataConfig(mixture=mixture))
    # Each under the name that it has alone, so a store is built once for all mixtures.
    assert own[1].directory == sources(DataConfig())[0].directory
    assert own[0].directory.parent == tmp_path / "cache" / "stores"


def test_a_mixture_of_seqio(tmp_path):
    data = DataConfig(source="task:mixed", store=str(tmp_path))
    (tmp_path / INDEX).write_text('{"rates": {"one": 2, "two": 0.5}}')
    parts = built(sources(data))
    assert [(p.name, p.rate, p.directory) for p in parts] == [
        ("one", 2.0, tmp_path / "one"),
        ("two", 0.5, tmp_path / "two"),
    ]
    assert [p.data.source for p in parts] == ["task:one", "task:two"]
    (tmp_path / INDEX).write_text('{"source": "task:other", "rates": {"one": 2}}')
    with pytest.raises(UserError, match=r"made from data\.source='task:other', not 'task:mixed'"):
        built(sources(data))
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / INDEX).write_text('{"rates": {"one": 2}}')
    outer = DataConfig(mixture={"inner": ("task:mixed", 1)}, store=str(tmp_path))
    with pytest.raises(UserError, match="'task:mixed' is one"):
        built(sources(outer))


@pytest.mark.parametrize("content", ["", "{}", '{"rates": []}', '{"rates": {"a": 0}}'])
def test_damage_is_named(tmp_path, content):
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(UserError, match=r"mixture\.json' is damaged"):
        built(sources(DataConfig(source="task:mixed", store=str(tmp_path))))
