"""Old names of options: by hand with a sentence, in records silently, with the new name refused."""

import dataclasses
import json

import pytest

from glm_jax import errors
from glm_jax.config import (
    ComputeConfig,
    Config,
    ModelConfig,
    ObjectiveConfig,
    PublishedOptions,
    from_dict,
    to_dict,
)
from glm_jax.config.files import apply_overrides, load_config
from glm_jax.config.moved import FROM_MODEL, FROM_OBJECTIVE
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


OLD_OBJECTIVE = {
    "published": True,
    "published_length": 300,
    "published_rows": 5,
    "short_sequence_rate": 0.5,
    "block_mask_rate": 0.2,
    "context_mask_ratio": 0.0,
    "block_mask_id": 77,
    "random_position": True,
    "sentinel_id": 90,
    "task_masks": False,
    "masked_lm": False,
}
PUBLISHED = PublishedOptions(
    loader=True,
    row_length=300,
    micro_batch_rows=5,
    short_sequence_rate=0.5,
    block_mask_rate=0.2,
    block_mask_id=77,
    random_position=True,
    sentinel_id=90,
    task_masks=False,
)


def test_options_of_the_published_recipes_may_have_their_old_names(caplog):
    now = {field.name for field in dataclasses.fields(PublishedOptions)}
    assert set(FROM_OBJECTIVE.values()) == now
    assert ObjectiveConfig(**OLD_OBJECTIVE) == ObjectiveConfig(published=PUBLISHED)
    assert caplog.messages == [
        f"objective.{old} is now objective.published.{new}; a later version will refuse the old "
        "name"
        for old, new in FROM_OBJECTIVE.items()
    ]
    changed = dataclasses.replace(ObjectiveConfig(published=PUBLISHED), task_masks=True)
    assert changed.published == dataclasses.replace(PUBLISHED, task_masks=True)
    assert ObjectiveConfig(published=dataclasses.asdict(PUBLISHED)).published == PUBLISHED
    assert len(caplog.messages) == 11


def test_a_flag_does_not_take_the_place_of_the_published_options():
    with pytest.raises(UserError, match=r"objective\.published must keep its options; got False"):
        dataclasses.replace(ObjectiveConfig(published=PUBLISHED), published=False)
    with pytest.raises(
        UserError, match=r"objective\.published\.loader must be True or False; got 3"
    ):
        ObjectiveConfig(published=3)


def test_overrides_of_published_options(caplog):
    new = apply_overrides(
        Config(), ["objective.published.task_masks=false", "objective.mask_ratio=0.2"]
    )
    expected = ObjectiveConfig(mask_ratio=0.2, published=PublishedOptions(task_masks=False))
    assert new.objective == expected
    assert caplog.messages == []
    old = apply_overrides(new, ["objective.published=true", "objective.published_length=62"])
    assert old.objective.published == PublishedOptions(loader=True, row_length=62, task_masks=False)
    said = r"objective\.published is now objective\.published\.loader, and both are given"
    with pytest.raises(UserError, match=said):
        apply_overrides(Config(), ["objective.published=true", "objective.published.loader=false"])
    said = r"unknown config name 'objective\.published\.loade' \(did you mean 'objective\.publish"
    with pytest.raises(UserError, match=said):
        apply_overrides(Config(), ["objective.published.loade=true"])


def test_records_with_old_published_options_are_read_silently(caplog):
    config = Config(
        objective=ObjectiveConfig(mask_ratio=0.2, published=PUBLISHED),
    )
    record = json.loads(json.dumps(to_dict(config)))
    assert from_dict(record) == config
    del record["objective"]["published"]
    record["objective"] |= OLD_OBJECTIVE
    assert from_dict(record) == config
    record["objective"]["published"] = False
    assert from_dict(record).objective.published == dataclasses.replace(PUBLISHED, loader=False)
    assert caplog.messages == []
    with pytest.raises(UserError, match=r"unknown config names \['objective\.masked_lm'\]"):
        from_dict({"objective": {"masked_lm": True, "published": {"masked_lm": False}}})
    with pytest.raises(UserError, match=r"unknown config names \['objective\.published\.rows'\]"):
        from_dict({"objective": {"published": {"rows": 3}}})
