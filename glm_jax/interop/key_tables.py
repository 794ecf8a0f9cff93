"""Published checkpoints: how each architecture is known, and which one a model is written in.

A directory is known by the keys of its config.json, and where two architectures share them by the
names of its tensors; never by `model_type` alone: GLM (2021) and GLM-4 both call themselves "glm".
Each architecture has one table of names, which serves both directions.
"""

from collections.abc import Collection, Mapping
from typing import Any

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.architecture import Architecture
from glm_jax.interop.architectures.chatglm import CHATGLM
from glm_jax.interop.architectures.glm import GLM
from glm_jax.interop.architectures.native import GLM4, GLM4_0414

# Those that are asked first where a new model has no origin come first.
ARCHITECTURES = (GLM, GLM4_0414, GLM4, CHATGLM)
NAMES = ("as_loaded", "original", "native")


def candidates(values: Mapping[str, Any], source: str) -> list[Architecture]:
    """The architectures that a config.json may be of.

    Args:
      values: config.json.
      source: its path, for messages.

    Raises:
      UserError: none; names those there are and the keys each one misses.
    """
    found = [architecture for architecture in ARCHITECTURES if architecture.knows(values)]
    if found:
        return found
    known = "; ".join(f"{a.name} needs {_wants(a, values)}" for a in ARCHITECTURES)
    kind = values.get("model_type")
    called = "" if kind is None else f" (model_type {kind!r})"
    raise UserError(f"{source}{called} is of no known architecture: {known}")


def _wants(architecture: Architecture, values: Mapping[str, Any]) -> str:
    keys = ", ".join(sorted(architecture.config_keys))
    missing = ", ".join(sorted(architecture.config_keys - values.keys()))
    return f"{keys} (missing: {missing})" if missing else f"model_type {_model_type(architecture)}"


def _model_type(architecture: Architecture) -> str | None:
    return architecture.identity.get("model_type")


def choose(
    found: list[Architecture],
    values: Mapping[str, Any],
    tensor_names: Collection[str],
    source: str,
) -> Architecture:
    """The one of the candidates that the names of the tensors speak for.

    Args:
      found: by `candidates`, one at least.
      values: config.json.
      tensor_names: of the whole checkpoint.
      source: its directory, for messages.

    Raises:
      UserError: config.json calls itself another of the candidates than its tensors say, or several
        candidates are left and the tensors speak for none.
    """
    if len(found) == 1:
        return found[0]
    marked = [a for a in found if any(a.marker in name for name in tensor_names)]
    if not marked:
        known = "; ".join(f"{a.name} has {a.marker}" for a in ARCHITECTURES)
        kind = values.get("model_type")
        raise UserError(
            f"the weights in {source!r} (model_type {kind!r}) are of no known architecture: {known}"
        )
    chosen, kind = marked[0], values.get("model_type")
    if kind != _model_type(chosen) and kind in [_model_type(a) for a in found]:
        raise UserError(
            f"config.json and weights in {source!r} disagree: model_type is {kind!r}, but the "
            f"tensors are those of {chosen.name}, {_model_type(chosen)!r}"
        )
    return chosen


def for_saving(config: ModelConfig, origin: Architecture | None, names: str) -> Architecture:
    """The architecture that a model is written in.

    Args:
      config: of the model.
      origin: what it was loaded from, or None.
      names: "as_loaded" (without an origin: the first architecture that can hold the model),
        "original" (of the code it was published with) or "native" (of transformers).

    Raises:
      UserError: unknown names, or none of that name can hold the model; says why.
    """
    if names not in NAMES:
        raise UserError(f"names must be {_either(NAMES)}; got {names!r}")
    if origin is not None and names in ("as_loaded", origin.names):
        return origin
    reasons = []
    for architecture in ARCHITECTURES:
        if names not in ("as_loaded", architecture.names):
            continue
        try:
            architecture.write_config(config)
        except UserError as error:
            reasons.append(str(error))
        else:
            return architecture
    model = "this model" if origin is None else origin.name
    kind, other = (
        ("published", "format='orbax'") if names == "as_loaded" else (names, "other names")
    )
    raise UserError(f"{model} has no {kind} names, save it with {other}: {'; '.join(reasons)}")


def _either(words: tuple[str, ...]) -> str:
    return f"{', '.join(map(repr, words[:-1]))} or {words[-1]!r}"
