"""Old names of options: by hand with a sentence, in records silently, with the new name refused."""

import dataclasses
import json

import pytest

from glm_jax import errors
from glm_jax.config import ComputeConfig, Config, ModelConfig, from_dict, to_dict
from glm_jax.config.files import apply_overrides, load_config
from glm_jax.config.moved import FROM_MODEL
from glm_jax.errors import UserError

OLD = {
    "compute_dtype": "bfloat16",
    "scan_layers": True,
    "remat": "full",
    "attention_backend": "xla",
}
NEW = ComputeConfig(dtype="bfloat16", scan_layers=True, remat="full", attention_backend="xla")


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(errors, "_SAID", set())


def test_all_that_moved_is_here():
    assert set(FROM_MODEL.values()) == {field.name for field in dataclasses.fields(ComputeConfig)}
    assert FROM_MODEL.keys() == OLD.keys()


def test_a_config_file_may_have_the_old_names_and_is_told_the_new_ones(tmp_path, caplog):
    path = tmp_path / "mine.py"
    path.write_text(
        "import dataclasses\n"
        "from glm_jax.config import Config, ModelConfig\n"
        "def get_config():\n"
        f"    model = ModelConfig(num_layers=3, **{OLD!r})\n"
        "    return Config(model=dataclasses.replace(model, embed_dim=96))\n"
    )
    config = load_config(path)
    assert config == Config(model=ModelConfig(num_layers=3, embed_dim=96), compute=NEW)
    assert caplog.messages == [
        f"model.{old} is now compute.{new}; a later version will refuse the old name"
        for old, new in FROM_MODEL.items()
    ]
    # Once it is moved, the new name changes it.
    assert apply_overrides(config, ["compute.remat=dots"]).compute.remat == "dots"
    assert len(caplog.messages) == 4


def test_overrides_may_have_the_old_names(caplog):
    config = apply_overrides(Config(), ["model.remat = full", "model.num_layers=3"])
    assert (config.compute, config.model.num_layers) == (ComputeConfig(remat="full"), 3)
    assert caplog.messages == [
        "model.remat is now compute.remat; a later version will refuse the old name"
    ]
    with pytest.raises(UserError, match=r"compute\.dtype must be one of"):
        apply_overrides(Config(), ["model.compute_dtype=float16"])


def test_one_option_with_two_values_is_refused():
    for name, value in OLD.items():
        new = FROM_MODEL[name]
        agreeing = ComputeConfig(**{new: value})
        assert Config(ModelConfig(**{name: value}), compute=agreeing).compute == agreeing
    said = (
        r"model\.remat is now compute\.remat, and both are given: 'full' and 'dots'; "
        r"give compute\.remat alone"
    )
    with pytest.raises(UserError, match=said):
        Config(ModelConfig(remat="full"), compute=ComputeConfig(remat="dots"))
    with pytest.raises(UserError, match=said):
        ModelConfig(remat="full").resolved(ComputeConfig(remat="dots"))
    for overrides in (
        ["model.remat=full", "compute.remat=dots"],
        ["compute.remat=dots", "model.remat=full"],
    ):
        with pytest.raises(UserError, match=said):
            apply_overrides(Config(), overrides)
    same = apply_overrides(Config(), ["model.remat=full", "compute.remat=full"])
    assert same.compute.remat == "full"


def test_records_of_older_versions_are_read_silently(caplog):
    record = to_dict(Config(model=ModelConfig(num_layers=3)))
    del record["compute"]
    record["model"] |= OLD
    assert from_dict(json.loads(json.dumps(record))) == Config(
        model=ModelConfig(num_layers=3), compute=NEW
    )
    assert caplog.messages == []
    # No version writes both names.
    with pytest.raises(UserError, match=r"unknown config names \['model\.remat'\]"):
        from_dict({"model": {"remat": "full"}, "compute": {"remat": "dots"}})
    with pytest.raises(UserError, match="compute must be an object; got 3"):
        from_dict({"compute": 3})


def test_a_model_is_known_by_what_it_is_and_runs_as_it_was_told():
    model = ModelConfig(**OLD)
    assert model == ModelConfig()
    assert model.resolved().compute == model.with_sizes().resolved().compute == NEW
    with pytest.raises(UserError, match=r"compute\.dtype must be one of"):
        ModelConfig(compute_dtype="float16")
    with pytest.raises(TypeError, match="num_layer"):
        ModelConfig(num_layer=3)


def test_a_resolved_model_takes_and_gives_old_names():
    model = ModelConfig().resolved(ComputeConfig(remat="dots"))
    changed = dataclasses.replace(model, remat="full", compute_dtype="bfloat16", num_layers=3)
    assert changed.compute == ComputeConfig(dtype="bfloat16", remat="full")
    assert (changed.compute_dtype, changed.remat, changed.num_layers) == ("bfloat16", "full", 3)
    with pytest.raises(AttributeError, match="depth"):
        _ = changed.depth
    with pytest.raises(AttributeError, match="remat"):
        _ = ModelConfig().remat  # it does not know how it runs
