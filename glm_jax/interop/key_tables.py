"""Published checkpoints: recognises an architecture, and chooses the one a model is saved in.

An architecture is recognised by the keys of config.json and, if two share them, by the names of
tensors. `model_type` alone is not enough: GLM (2021) and GLM-4 both call themselves "glm". Each
architecture has one table of names, which serves for reading and writing.
"""

from collections.abc import Collection, Mapping

from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.architecture import Architecture
from glm_jax.interop.architectures.chatglm import CHATGLM
from glm_jax.interop.architectures.chatglm_6b import CHATGLM_6B
from glm_jax.interop.architectures.glm import GLM
from glm_jax.interop.architectures.native import GLM4, GLM4_0414

# Order matters: a model without an origin is saved in the first architecture that can express it.
ARCHITECTURES = (GLM, CHATGLM_6B, GLM4_0414, GLM4, CHATGLM)
NAMES = ("as_loaded", "original", "native")


def candidates(values: Mapping[str, object], source: str) -> list[Architecture]:
    """The architectures whose keys a config.json has.

    Args:
      values: config.json.
      source: its path, for messages.

    Raises:
      UserError: there are none; names the known ones and the keys that are missing for each.
    """
    found = [architecture for architecture in ARCHITECTURES if architecture.knows(values)]
    if found:
        return found
    known = "; ".join(f"{a.name} needs {_wants(a, values)}" for a in ARCHITECTURES)
    kind = values.get("model_type")
    called = "" if kind is None else f" (model_type {kind!r})"
    raise UserError(f"{source}{called} is of no known architecture: {known}")


def _wants(architecture: Architecture, values: Mapping[str, object]) -> str:
    keys = ", ".join(sorted(architecture.config_keys))
    missing = ", ".join(sorted(architecture.config_keys - values.keys()))
    return f"{keys} (missing: {missing})" if missing else f"model_type {_model_type(architecture)}"


def _model_type(architecture: Architecture) -> object:
    return architecture.identity.get("model_type")


def choose(
    found: list[Architecture],
    values: Mapping[str, object],
    tensor_names: Collection[str],
    source: str,
) -> Architecture:
    """Chooses among the candidates by the names of the tensors.

    Args:
      found: from `candidates`, at least one.
      values: config.json.
      tensor_names: of the whole checkpoint.
      source: its directory, for messages.

    Raises:
      UserError: `model_type` names another of the candidates than the tensors do, or the tensors
        fit none of several candidates.
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
    """The architecture that a model is saved in.

    Args:
      config: of the model.
      origin: the architecture it was loaded from, or None.
      names: "as_loaded" (without an origin: the first architecture that can express the model),
        "original" (of the code it was published with) or "native" (of transformers).

    Raises:
      UserError: unknown names, or no architecture with such names can express the model; says why.
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
