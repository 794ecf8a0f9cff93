"""Tests of glm_jax.config.files."""

import dataclasses
from pathlib import Path

import jax
import pytest

from glm_jax.config import Config
from glm_jax.config.files import apply_overrides, load_config
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.tokenizer import load_tokenizer
from glm_jax.training.run.workdir import check_config

CONFIGS = Path(__file__).parents[2] / "configs"

CONFIG_FILE = """
from glm_jax.config import Config, ModelConfig

def get_config():
    return Config(model=ModelConfig(num_layers=3, embed_dim=64, num_heads=4))
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG_FILE)
    return path


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_config_of_the_project_can_run(file):
    config = load_config(file)
    vocab_size = load_tokenizer("bundled").vocab_size
    check_config(config, make_mesh(config.mesh, jax.devices()[:1]), vocab_size)
    assert f"configs/{file.name}" in file.read_text(), "the header says how it is run"


def test_a_file_gives_its_config(config_file):
    assert load_config(config_file).model.num_layers == 3


def test_overrides_change_single_values(config_file):
    config = load_config(config_file, ["train.num_steps=12", "data.source=my/*.txt"])
    expected = load_config(config_file)
    assert config.train == dataclasses.replace(expected.train, num_steps=12)
    assert config.data.source == "my/*.txt"
    assert config.model == expected.model


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimizer.clip_norm=none", None),
        ("optimizer.clip_norm=2", 2.0),
        ("optimizer.peak_learning_rate=1e-3", 1e-3),
        ("compute.scan_layers=true", True),
        ("model.head_dim=32", 32),
        ("compute.dtype='bfloat16'", "bfloat16"),
        ("data.store=7", "7"),
    ],
)
def test_values_are_read_by_the_type_of_the_field(override, value):
    name = override.partition("=")[0]
    section, key = name.split(".")
    got = getattr(getattr(apply_overrides(Config(), [override]), section), key)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.num_layer=4",
            "unknown config name 'model.num_layer' .did you mean 'model.num_la",
        ),
        ("modl.num_layers=4", "unknown config name 'modl.num_layers' .did you mean 'model.num_lay"),
        ("num_layers=4", "unknown config name 'num_layers'"),
        ("model=4", "unknown config name 'model'"),
        ("model.num_layers=four", "model.num_layers takes int; got 'four'"),
        ("model.num_layers=4.5", "model.num_layers takes int; got '4.5'"),
        ("model.num_layers=True", "model.num_layers takes int; got 'True'"),
        ("optimizer.clip_norm=x", "optimizer.clip_norm takes float or None; got 'x'"),
        ("model.num_layers", "an override is NAME=VALUE; got 'model.num_layers'"),
        ("model.num_layers=0", "model.num_layers must be at least 1; got 0"),
        ("model.num_heads=5", "multiple of model.num_heads .* embed_dim=768, num_heads=5"),
        (
            "compute.remat=ful",
            r"compute.remat must be one of .*got 'ful' \(did you mean 'full'\?\)",
        ),
        ("objective.span_rate=0.4", "must sum to 1; got 0.4"),
        ("objective.document_min_ratio=2.0", "0 < min <= max <= 1; got 2.0 and 1.0"),
        ("train.accumulation_steps=5", "multiple of train.accumulation_steps; got 32 and 5"),
        ("mesh.data=0", "mesh.data must be at least 1, or -1"),
        ("mesh.fsdp=-1", "at most one axis of mesh may be -1"),
        ("data.eval_fraction=1.0", "data.eval_fraction must be above 0 and below 1; got 1.0"),
    ],
)
def test_mistakes_name_the_thing_the_value_and_what_is_allowed(override, message):
    with pytest.raises(ValueError, match=message):
        apply_overrides(Config(), [override])


def test_values_that_must_agree_change_together():
    config = apply_overrides(Config(), ["objective.span_rate=0.4", "objective.document_rate=0.6"])
    assert (config.objective.span_rate, config.objective.document_rate) == (0.4, 0.6)


def test_missing_file_offers_the_nearest(config_file):
    with pytest.raises(ValueError, match=r"no config file .*min.py' \(did you mean .*mine.py"):
        load_config(config_file.parent / "min.py")


def test_a_file_without_get_config_is_refused(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("")
    with pytest.raises(ValueError, match=r"defines no get_config\(\)"):
        load_config(path)
    path.write_text("def get_config(): return 3")
    with pytest.raises(ValueError, match="got int"):
        load_config(path)
