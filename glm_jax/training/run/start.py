"""The initial parameters of a run: random, or those of a model (`train.init_from`).

The model may be a Hugging Face directory or the workdir of another run. The run takes over its
shape; the fields in `KEPT` stay as the config says. So one option is enough to start from a model:

    --set train.init_from=chatglm3-6b-base

A model without a prefix gets the one that the config asks for (`--set model.prefix_length=128`),
drawn anew, and one without a value head that (`model.value_head=True`).

`--set train.init_from` replaces the `model` of the config file, with a warning. A model option
beside it (`--set model.num_layers=7`), or a file that has both, must agree with the model.
"""

import dataclasses
import logging
import re
from collections.abc import Iterable
from pathlib import Path

import jax
from jax.sharding import Mesh

from glm_jax.adapters.held import abstract_base
from glm_jax.checkpoints.finding import find_workdir, on_this_machine
from glm_jax.checkpoints.loading import load_base
from glm_jax.checkpoints.params import base_of
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.config import Config
from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.checkpoint import open_directory
from glm_jax.models.params import abstract_params, create_part, param_names
from glm_jax.models.trees import Params, stack_layers
from glm_jax.models.value_head import NAME as VALUE_HEAD
from glm_jax.paths import checkpoint
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.tokenizers.tokenizer import load_tokenizer
from glm_jax.training.run.workdir import read_record

_LOG = logging.getLogger(__name__)
# Fields that say how a model is stored and regularised, not which model it is.
KEPT = (
    *("initializer_range", "dropout_rate", "attention_dropout_rate", "prefix_dropout_rate"),
    "param_dtype",
)


def starting_point(
    config: Config, workdir: Path, mesh: Mesh, overrides: Iterable[str] = ()
) -> tuple[Config, Params | None]:
    """The config with the model of `train.init_from`, and that model's parameters.

    Args:
      config: as read from files and overrides.
      workdir: of the run; if it has a checkpoint, that is resumed, and `init_from` is read only if
        the checkpoint holds the trained part alone, or if rollouts are compared with it.
      mesh: where the parameters go.
      overrides: the options that were given by `--set`.

    Returns:
      The config of the run, and its initial parameters on the mesh, layers stacked; None if they
      are random or all come from a checkpoint.

    Raises:
      UserError: there is no model, it was trained with another tokenizer than `data.tokenizer`, its
        shape contradicts a model option beside `init_from`, it is quantised otherwise than
        `train.quantize_base` says, or it is given a prefix or value head that is not trained.
    """
    if config.train.init_from is None:
        return config, None
    if saved_steps(workdir / "checkpoints") and (record := read_record(workdir)) is not None:
        config = _with_model(config, record.model, overrides, begun=True)
        needed = config.freezes and base_of(workdir) is not None
        if not needed and not config.policy.has_reference:
            return config, None
    else:
        config = planned_config(config, overrides)
    model = load_base(config, str(config.train.init_from), mesh)
    _check_tokenizer(config, model.tokenizer)
    like = abstract_base(config, abstract_params(config.resolved_model, mesh))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    params = model.params
    asked = {"prefix": config.model.prefix_length > 0, VALUE_HEAD: config.model.value_head}
    for part in [name for name, wanted in asked.items() if wanted and name not in params]:
        _check_is_trained(config, part)
        drawn = create_part(config.resolved_model, mesh, config.train.seed, part)
        params = {**params, part: drawn}
    return config, jax.jit(stack_layers, out_shardings=shardings)(params)


def _check_is_trained(config: Config, part: str) -> None:
    """Refuses a prefix or a value head that is drawn anew and would stay as it was drawn."""
    names = [one for one in param_names(config.resolved_model) if one.startswith(f"{part}/")]
    chosen = config.train.trainable
    if config.freezes and not all(chosen and re.fullmatch(chosen, name) for name in names):
        what = f"model.prefix_length={config.model.prefix_length} adds a prefix"
        if part == VALUE_HEAD:
            what = "model.value_head=True adds a value head"
        raise UserError(
            f"{what} to the model of train.init_from={config.train.init_from!r}, and nothing "
            f"trains it; set train.trainable='{part}/.*', got {chosen!r}"
        )


def planned_config(config: Config, overrides: Iterable[str] = ()) -> Config:
    """The config with the shape of the model of `train.init_from`; its weights are not read.

    Raises:
      UserError: there is no model, or its shape contradicts a model option beside `init_from`.
    """
    if config.train.init_from is None:
        return config
    path = checkpoint(config.train.init_from)
    workdir = find_workdir(path)
    if workdir is None:
        return _with_model(config, open_directory(on_this_machine(path, None)).config, overrides)
    record = read_record(workdir)
    if record is None:
        raise UserError(f"train.init_from={str(path)!r} holds no run.json")
    return _with_model(config, record.model, overrides)


def _with_model(
    config: Config, model: ModelConfig, overrides: Iterable[str], begun: bool = False
) -> Config:
    """The config with another model, except for the fields in `KEPT`.

    Args:
      config, overrides: as in `starting_point`.
      model: replaces `config.model`.
      begun: whether the run has started before; its first start has printed the warning.

    Raises:
      UserError: a model option beside or after `train.init_from` contradicts the model.
    """
    if not model.prefix_length:
        model = model.with_prefix(config.model)
    if config.model.value_head:
        model = dataclasses.replace(model, value_head=True)
    by_set = {override.partition("=")[0].strip() for override in overrides}
    default, asked, there = ModelConfig(), _plain(config.model), _plain(model)
    differing = {
        name: f"model.{name}={value!r} (not {getattr(asked, name)!r})"
        for name, value in dataclasses.asdict(there).items()
        if name not in KEPT
        and value != getattr(asked, name)
        and (f"model.{name}" in by_set or getattr(config.model, name) != getattr(default, name))
    }
    contradicting = {
        name for name in differing if f"model.{name}" in by_set or "train.init_from" not in by_set
    }
    if contradicting:
        raise UserError(
            f"train.init_from={config.train.init_from!r} is a model with "
            f"{', '.join(differing[name] for name in differing if name in contradicting)}; its "
            "shape is the run's: leave these names out, or ask for what it has"
        )
    if differing and not begun:
        _LOG.warning(
            "the model of train.init_from takes the place of the config's: %s",
            ", ".join(differing.values()),
        )
    kept = {name: getattr(config.model, name) for name in KEPT}
    return dataclasses.replace(config, model=dataclasses.replace(model, **kept))


def _plain(model: ModelConfig) -> ModelConfig:
    """A canonical form of configs of equal models: sizes filled in, rotary bases multiplied out."""
    model = model.with_sizes()
    if model.rotary_scaling == "base":
        base = model.rotary_base * model.rotary_factor
        model = dataclasses.replace(model, rotary_scaling="none", rotary_base=base)
    if model.rotary_scaling == "none":
        model = dataclasses.replace(model, rotary_factor=1.0)
    if model.rotary_scaling != "yarn":
        return dataclasses.replace(model, rotary_original_positions=None)
    original = model.rotary_original_positions or round(model.max_positions / model.rotary_factor)
    return dataclasses.replace(model, rotary_original_positions=original)


def _check_tokenizer(config: Config, tokenizer: Tokenizer | None) -> None:
    if tokenizer is None:
        return
    used = load_tokenizer(config.data.tokenizer).fingerprint
    if used != tokenizer.fingerprint:
        raise UserError(
            f"the model in {config.train.init_from!r} was trained with another tokenizer than "
            f"data.tokenizer={config.data.tokenizer!r}; set data.tokenizer={config.train.init_from}"
        )
