"""Tiny runs that train a part of a model: its base, and what trains over it."""

import glm_jax
from glm_jax.config import MeshConfig
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.loop import train
from glm_jax.training.run.start import starting_point
from tests import tiny_run

RANK = 2
# What each kind of tuning sets.
KINDS = {
    "lora": {"lora": {"rank": RANK}},
    "int8": {
        "lora": {"rank": RANK, "targets": "all"},
        "train": {"quantize_base": "int8"},
    },
    "int4": {
        "lora": {"rank": RANK, "targets": "attention/.*, mlp/up"},
        "train": {"quantize_base": "int4", "quantize_group_size": 8},
    },
    "part": {"train": {"trainable": "layers/mlp/.*"}},
    "prefix": {"model": {"prefix_length": 3}, "train": {"trainable": "prefix/.*"}},
    "encoder": {
        "model": {"prefix_length": 3, "prefix_projection": 8},
        "train": {"trainable": "prefix/.*"},
    },
}


def save_base(path, seed=5):
    """Writes a tiny model as a Hugging Face directory."""
    config = tiny_run.tiny_config()
    params = create_params(config.resolved_model, make_mesh(MeshConfig()), seed)
    glm_jax.LanguageModel(config.model, params).save(path)
    return path


def config_of(kind, base, **train):
    """The config of a run of 6 steps over a base."""
    sections = {name: dict(values) for name, values in KINDS[kind].items()}
    sections["train"] = {**sections.get("train", {}), "init_from": str(base), **train}
    return tiny_run.change_fields(tiny_run.tiny_config(), **sections)


def batches(split, shard_index, num_shards):
    return tiny_run.Stream(0 if split == "train" else 10_000, shard_index, num_shards)


def tune(config, workdir):
    """Trains, or goes on; returns the exit status."""
    config, params = starting_point(config, workdir, make_mesh(config.mesh))
    return train(config, workdir, batches, tiny_run.LetterTokenizer(), params)
