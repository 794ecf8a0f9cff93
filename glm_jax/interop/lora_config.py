"""adapter_config.json of a LoRA, as PEFT 0.21 reads and writes it.

    {"peft_type": "LORA", "r": 8, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"], ..}

Each value either has its effect here, or has none on the result, or is refused. One that this
module does not know is refused unless it is null, false or empty: it may belong to a kind of LoRA
that computes something else.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from glm_jax.checks import finite_number, whole_number
from glm_jax.errors import UserError
from glm_jax.json_files import JsonObject, read_object, shown

ADAPTER_CONFIG = "adapter_config.json"
PEFT_TYPE = "LORA"
ALL_LINEAR = "all-linear"
_LARGEST_RANK = 2**16

# Values that say where an adapter came from, or how training began.
_WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "fan_in_fan_out",  # of modules that hold their matrix transposed; GLM's do not
        "inference_mode",
        "lora_ga_config",
        "loftq_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
)
_WITH_EFFECT = frozenset(
    {
        "alpha_pattern",
        "bias",
        "exclude_modules",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "r",
        "rank_pattern",
        "target_modules",
        "use_rslora",
    }
)
# Ways to begin that leave the base as it is.
_INITS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
_REFUSED = {
    "modules_to_save": "modules that were trained whole are not part of a LoRA here",
    "trainable_token_indices": "trained rows of the token embedding are not part of a LoRA here",
    "use_dora": "DoRA is not supported",
    "lora_bias": "a bias of lora_B is not supported",
}


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """What adapter_config.json says of the matrices that have an adapter.

    Attributes:
      rank, alpha: r and lora_alpha.
      dropout: in training.
      rank_stabilized: scale is alpha / sqrt(r) and not alpha / r.
      targets: names of modules, or ends of names; or one regular expression for whole names.
      excluded: the same, of modules that have no adapter all the same; () for none.
      layers: the only layers that have one; None: all.
      layer_lists: regular expressions of what stands before the number of a layer; (): anything.
      ranks, alphas: regular expression of the end of a name -> r or lora_alpha of these modules.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    rank_stabilized: bool = False
    targets: tuple[str, ...] | str = ()
    excluded: tuple[str, ...] | str = ()
    layers: tuple[int, ...] | None = None
    layer_lists: tuple[str, ...] = ()
    ranks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    alphas: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def has(self, module: str) -> bool:
        """Whether a module of the model's layers has an adapter: "model.layers.0.mlp.down_proj"."""
        if self.excluded and is_named(module, self.excluded):
            return False
        if isinstance(self.targets, str) and self.targets.lower() == ALL_LINEAR:
            return True
        return is_named(module, self.targets) and self._is_of_layers(module)

    def rank_of(self, module: str) -> int:
        """r of a module."""
        return self.ranks.get(_pattern_of(module, self.ranks), self.rank)

    def scale_of(self, module: str) -> float:
        """The factor of B A of a module."""
        alpha = self.alphas.get(_pattern_of(module, self.alphas), self.alpha)
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)

    def _is_of_layers(self, module: str) -> bool:
        if self.layers is None:
            return True
        patterns = [rf"(?:^|.*?\.){name}\.(\d+)\." for name in self.layer_lists]
        found = (re.match(pattern, module) for pattern in patterns or [r".*?\.[^.]*\.(\d+)\."])
        match = next(filter(None, found), None)
        return match is not None and int(match[1]) in self.layers


def is_named(module: str, names: tuple[str, ...] | str) -> bool:
    """Whether names, or ends of names, or one regular expression, are a module's."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _pattern_of(module: str, patterns: Mapping[str, object]) -> str:
    """The first pattern that a module's name ends with; the name itself without one."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), module)


def holds_lora(path: Path) -> bool:
    """Whether a directory is an adapter of PEFT whose peft_type is LORA."""
    file = path / ADAPTER_CONFIG
    return file.is_file() and read_object(file).get("peft_type") == PEFT_TYPE


def read_lora_config(path: Path) -> LoraSettings:
    """Reads the adapter_config.json of a directory whose peft_type is LORA.

    Raises:
      UserError: a value of a wrong kind, or one that asks for what is not supported; names it.
    """
    values, where = read_object(path / ADAPTER_CONFIG), f"in {str(path / ADAPTER_CONFIG)!r}"
    _refuse(values, where)
    given = {key: value for key, value in values.items() if value is not None}

    def rank(name: str, value: object) -> int:
        return whole_number(f"{name} {where}", value, least=1, most=_LARGEST_RANK)

    def alpha(name: str, value: object) -> float:
        return finite_number(f"{name} {where}", value)

    targets = _names(given, "target_modules", where)
    if not targets:
        raise UserError(f"target_modules {where} must name modules; got {shown(targets)}")
    layers = given.get("layers_to_transform")
    layers = layers if isinstance(layers, list) or layers is None else [layers]
    lists = _names(given, "layers_pattern", where)
    lists = (lists,) if isinstance(lists, str) else lists
    for pattern in lists:
        _check_pattern("layers_pattern", pattern, where)
    return LoraSettings(
        rank=rank("r", given.get("r", 8)),
        alpha=alpha("lora_alpha", given.get("lora_alpha", 8)),
        dropout=finite_number(
            f"lora_dropout {where}", given.get("lora_dropout", 0.0), least=0, most=1
        ),
        rank_stabilized=_flag(given, "use_rslora", where),
        targets=targets,
        excluded=_names(given, "exclude_modules", where),
        layers=tuple(whole_number(f"layers_to_transform {where}", one) for one in layers)
        if layers
        else None,
        layer_lists=lists,
        ranks={k: rank(f"rank_pattern[{k!r}]", v) for k, v in _patterns(given, "rank", where)},
        alphas={k: alpha(f"alpha_pattern[{k!r}]", v) for k, v in _patterns(given, "alpha", where)},
    )


def _refuse(values: JsonObject, where: str) -> None:
    """Refuses values that would change the result and have no effect here."""
    bias, how = values.get("bias"), values.get("init_lora_weights", True)
    if bias not in (None, "none"):
        raise UserError(f"bias={shown(bias)} {where}: trained biases are not supported")
    if not any(how is one or (isinstance(one, str) and how == one) for one in _INITS):
        raise UserError(
            f"init_lora_weights={shown(how)} {where}: such a LoRA is made for a base that was "
            "changed when its training began; save it from PEFT by "
            "save_pretrained(.., path_initial_model_for_weight_conversion=..)"
        )
    for key, value in values.items():
        if key in _WITH_EFFECT | _WITHOUT_EFFECT or value in (None, False, [], {}, ""):
            continue
        why = _REFUSED.get(key, "not supported")
        raise UserError(f"{key}={shown(value)} {where}: {why}")


def _flag(values: JsonObject, key: str, where: str) -> bool:
    value = values.get(key, False)
    if not isinstance(value, bool):
        raise UserError(f"{key} {where} must be true or false; got {shown(value)}")
    return value


def _names(values: JsonObject, key: str, where: str) -> tuple[str, ...] | str:
    """A list of names, or one regular expression."""
    value = values.get(key, [])
    if isinstance(value, str):
        _check_pattern(key, value, where)
        return value
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise UserError(f"{key} {where} must be a list of names or a text; got {shown(value)}")
    return tuple(value)


def _patterns(values: JsonObject, kind: str, where: str) -> list[tuple[str, object]]:
    key = f"{kind}_pattern"
    value = values.get(key, {})
    if not isinstance(value, dict):
        raise UserError(f"{key} {where} must be an object; got {shown(value)}")
    for pattern in value:
        _check_pattern(key, pattern, where)
    return list(value.items())


def _check_pattern(key: str, pattern: str, where: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"{key} {where} must be a regular expression; got {shown(pattern)} ({error})"
        ) from error


@dataclasses.dataclass(frozen=True)
class Module:
    """What a directory says of one module.

    Attributes:
      rank: r.
      scale: the factor of B A.
      dropout: in training.
    """

    rank: int
    scale: float
    dropout: float


def lora_values(modules: Mapping[str, Module], of_model: Collection[str]) -> JsonObject:
    """The values of adapter_config.json that `read_lora_config` reads.

    r and lora_alpha are those of most modules; others have theirs in rank_pattern and
    alpha_pattern.

    Args:
      modules: those with an adapter, by name; one at least.
      of_model: the names of all modules of the layers.
    """
    stabilized = _is_stabilized(list(modules.values()))
    ranks = {name: module.rank for name, module in modules.items()}
    alphas = {name: _alpha(module, stabilized) for name, module in modules.items()}
    both = collections.Counter(zip(ranks.values(), alphas.values(), strict=True))
    rank, alpha = both.most_common(1)[0][0]
    return {
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": max(module.dropout for module in modules.values()),
        "use_rslora": stabilized,
        "target_modules": _shortest(modules.keys(), of_model),
        "rank_pattern": _others(ranks, rank),
        "alpha_pattern": _others(alphas, alpha),
    }


def _alpha(module: Module, stabilized: bool) -> int | float:
    """lora_alpha that gives the scale; whole where it is that but for rounding."""
    alpha = module.scale * (math.sqrt(module.rank) if stabilized else module.rank)
    near = round(alpha)
    return near if near and math.isclose(alpha, near, rel_tol=1e-9) else alpha


def _is_stabilized(modules: list[Module]) -> bool:
    """Whether every lora_alpha is a whole number for rsLoRA, and not for LoRA."""

    def are_whole(stabilized: bool) -> bool:
        return all(isinstance(_alpha(module, stabilized), int) for module in modules)

    return are_whole(True) and not are_whole(False)


def _others(values: Mapping[str, float], default: float) -> JsonObject:
    """Names of modules whose value is not the default -> their value."""
    found: JsonObject = {}
    for value in dict.fromkeys(values.values()):
        if value != default:
            chosen = {name for name in values if values[name] == value}
            found |= dict.fromkeys(_shortest(chosen, values.keys()), value)
    return found


def _shortest(chosen: Collection[str], among: Collection[str]) -> list[str]:
    """Names for the chosen modules: their last parts, where these name no others among all.

    {"layers.0.q", "layers.1.q", "layers.0.v"} of these and layers.1.v    ->    q, layers.0.v
    """
    others = {name.rpartition(".")[2] for name in among if name not in chosen}
    ends = {name.rpartition(".")[2] for name in chosen} - others
    return [*sorted(ends), *(n for n in among if n in chosen and n.rpartition(".")[2] in others)]
