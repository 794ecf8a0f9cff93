"""Where a run's parameters come from: drawn, or those of a model (`train.init_from`).

The model may be a Hugging Face directory or the workdir of another run. Its shape becomes the
run's; what `KEPT` lists stays as the config says, so that one line is enough to go on from it:

    --set train.init_from=chatglm3-6b-base
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from glm_jax.config import Config, ModelConfig, from_dict
from glm_jax.errors import UserError
from glm_jax.inference.language_model import find_workdir, load
from glm_jax.interop.checkpoint import open_directory
from glm_jax.interop.tokenizers import load_tokenizer
from glm_jax.models.params import Params, abstract_params, stack_layers, unstack_layers
from glm_jax.models.transformer import uses_scan
from glm_jax.paths import expanded
from glm_jax.training.retention import saved_steps

# How a model is computed and regularised, not what it is.
KEPT = (
    "initializer_range",
    "dropout_rate",
    "attention_dropout_rate",
    "compute_dtype",
    "param_dtype",
    "scan_layers",
    "remat",
    "attention_backend",
)


def starting_point(config: Config, workdir: Path, mesh: Mesh) -> tuple[Config, Params | None]:
    """The config with the model of `train.init_from`, and that model's parameters.

    Args:
      config: as read from files and overrides.
      workdir: of the run; one that has a checkpoint goes on from it, and `init_from` is not read.
      mesh: where the parameters go.

    Returns:
      The config of the run, and its first parameters on the mesh, None where they are drawn or come
      from a checkpoint.

    Raises:
      ValueError: no model there, or one trained with another tokenizer than `data.tokenizer`.
    """
    if config.train.init_from is None:
        return config, None
    if saved_steps(workdir / "checkpoints") and (workdir / "run.json").is_file():
        record = json.loads((workdir / "run.json").read_text(encoding="utf-8"))
        return _with_model(config, from_dict(record).model), None
    model = load(config.train.init_from, dtype=config.model.param_dtype, mesh=mesh)
    _check_tokenizer(config, model.tokenizer)
    config = _with_model(config, model.config)
    change = stack_layers if uses_scan(config.model) else unstack_layers
    like = abstract_params(config.model, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    return config, jax.jit(change, out_shardings=shardings)(model.params)


def planned_config(config: Config) -> Config:
    """The config with the shape of the model of `train.init_from`, whose weights are not read.

    Raises:
      ValueError: no model there.
    """
    if config.train.init_from is None:
        return config
    path = expanded(config.train.init_from)
    workdir = find_workdir(path)
    if workdir is None:
        return _with_model(config, open_directory(path).config)
    record = json.loads((workdir / "run.json").read_text(encoding="utf-8"))
    return _with_model(config, from_dict(record).model)


def _with_model(config: Config, model: ModelConfig) -> Config:
    kept = {name: getattr(config.model, name) for name in KEPT}
    return dataclasses.replace(config, model=dataclasses.replace(model, **kept))


def _check_tokenizer(config: Config, tokenizer: Any) -> None:
    if tokenizer is None:
        return
    used = load_tokenizer(config.data.tokenizer).fingerprint
    if used != tokenizer.fingerprint:
        raise UserError(
            f"the model in {config.train.init_from!r} was trained with another tokenizer than "
            f"data.tokenizer={config.data.tokenizer!r}; set data.tokenizer={config.train.init_from}"
        )
