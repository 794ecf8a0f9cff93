"""LoRA directories of PEFT, read and written: adapter_config.json and adapter_model.safetensors.

    base_model.model.transformer.encoder.layers.3.self_attention.query_key_value
        .lora_A.weight [r, D], .lora_B.weight [(N + 2 K) H, r]
    <-> layers/3/attention/{query,key,value}/kernel    a [D, r], b [r, N or K, H]

A fused matrix has one A; its parts share it and have their rows of B. Parts with an A of their own
are written with these one below the other, and B is 0 between them: the same product of more ranks.

    q = a1 b1, k = a2 b2    ->    A = | a1^T |     B = | b1^T   0   |      rank r1 + r2
                                      | a2^T |         |  0    b2^T |

The rows of B are those of the matrix, and are put in our order as these are
(`glm_jax.interop.architectures`).
"""

import collections
import dataclasses
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from glm_jax.adapters.factors import Factors
from glm_jax.adapters.quantised import num_inputs
from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError, did_you_mean
from glm_jax.files import replaced_directory
from glm_jax.interop.architectures.architecture import Architecture
from glm_jax.interop.architectures.rows import Row
from glm_jax.interop.finite import is_finite
from glm_jax.interop.key_tables import ARCHITECTURES, for_saving
from glm_jax.interop.lora_config import (
    ADAPTER_CONFIG,
    PEFT_TYPE,
    LoraSettings,
    Module,
    is_named,
    lora_values,
    read_lora_config,
)
from glm_jax.interop.origin import Origin
from glm_jax.interop.packed import is_layer_matrix
from glm_jax.interop.recorded_base import BASE, Digests, RecordedBase, write_base
from glm_jax.interop.weights import (
    ADAPTER_WEIGHTS,
    StoredTensor,
    TensorToWrite,
    open_adapter,
    write_safetensors,
)
from glm_jax.json_files import JsonObject, shown, some

_LOG = logging.getLogger(__name__)
_FRONT = "base_model.model."
_KEY = re.compile(rf"{re.escape(_FRONT)}(.+)\.lora_(A|B)\.weight")
_LAYER = re.compile(r"\.(\d+)\.")


@dataclasses.dataclass(frozen=True)
class _Scheme:
    """Names of the modules of a model.

    Attributes:
      rows: of the matrices of the layers, by the name of their module.
      tables: names of the token embedding and the LM head.
    """

    rows: Mapping[str, Row]
    tables: tuple[str, ...]


def _scheme(architecture: Architecture, prefix: str, config: ModelConfig) -> _Scheme:
    rows = architecture.rows(config)
    named = {prefix + row.key.removesuffix(".weight"): row for row in rows}
    return _Scheme(
        {name: row for name, row in named.items() if is_layer_matrix(row)},
        tuple(name for name, row in named.items() if row.paths[0].endswith("/table")),
    )


def _schemes(config: ModelConfig, origin: Origin) -> Iterator[_Scheme]:
    """Of the names that the model was loaded with, then of all others that it can have."""
    if origin.architecture is not None:
        yield _scheme(origin.architecture, origin.prefix, config)
    for architecture in ARCHITECTURES:
        try:
            architecture.write_config(config)
        except UserError:
            continue
        for prefix in architecture.prefixes:
            yield _scheme(architecture, prefix, config)


def read_low_rank(path: Path, config: ModelConfig, origin: Origin) -> dict[str, Factors]:
    """Reads a LoRA directory.

    Args:
      path: of the directory, which has an adapter_config.json with peft_type LORA.
      config: of the model that it is for.
      origin: of the model. Names of another of its architectures are read too.

    Returns:
      The factors by the path of their matrix. Parts of a fused matrix have the same array `a`,
      except where B is 0 in whole columns of a part, which are left out.

    Raises:
      UserError: the directory asks for what is not supported, is for another model, is damaged,
        or has values that are not finite.
    """
    settings, tensors = read_lora_config(path), open_adapter(path)
    if tensors is None:
        raise UserError(f"{str(path)!r} holds no {ADAPTER_WEIGHTS}")
    stored = _stored(path, tensors)
    schemes = list(_schemes(config.with_prefix(ModelConfig()), origin))
    if not schemes:
        raise UserError(
            f"the model has no published names, by which the matrices in {str(path)!r} are named"
        )
    scheme = max(schemes, key=lambda one: len(stored.keys() & one.rows.keys()))
    _check_modules(path, stored, settings, scheme, config.num_layers)
    found: dict[str, Factors] = {}
    for name, pair in stored.items():
        row = scheme.rows[name]
        _check_shapes(path, name, row, pair, settings.rank_of(name))
        a, b = (_read(path, f"{name}.lora_{letter}", pair[letter]) for letter in "AB")
        found |= _split(row, a, b, (settings.scale_of(name), settings.dropout), config)
    return found


def _stored(path: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, dict[str, StoredTensor]]:
    """The tensors A and B by the name of their module."""
    stored: dict[str, dict[str, StoredTensor]] = {}
    others = []
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            others.append(key)
        else:
            stored.setdefault(match[1], {})[match[2]] = tensor
    if tables := sorted(key for key in others if "lora_embedding_" in key):
        raise UserError(
            f"{str(path)!r} has a LoRA of a table, {some(tables)}: only those of the layers' "
            "matrices are read"
        )
    if others:
        raise UserError(f"{str(path)!r} holds more than a LoRA of matrices: {some(sorted(others))}")
    lacking = [
        f"{name}.lora_{letter}.weight"
        for name, pair in stored.items()
        for letter in "AB"
        if letter not in pair
    ]
    if lacking or not stored:
        raise UserError(f"{str(path)!r} lacks {some(lacking) if stored else 'any lora_A.weight'}")
    return stored


def _check_modules(
    path: Path,
    stored: Mapping[str, object],
    settings: LoraSettings,
    scheme: _Scheme,
    num_layers: int,
) -> None:
    """Refuses modules that the model has not, and what config and tensors do not agree on."""
    for name in scheme.tables:
        if name in stored or _ends_in(settings.targets, name):
            raise UserError(
                f"{str(path)!r} has a LoRA of {name}: only those of the layers' matrices are read, "
                "not of the token embedding and the LM head"
            )
    unknown = sorted(stored.keys() - scheme.rows.keys())
    beyond = [name for name in unknown if _layer(name) >= num_layers]
    if beyond:
        raise UserError(
            f"{str(path)!r} is for a model of another number of layers: it has {some(beyond)}; "
            f"this model has {num_layers} layers"
        )
    if unknown:
        name = unknown[0]
        raise UserError(
            f"{str(path)!r} is for another model: this one has no {some(unknown)}"
            f"{did_you_mean(name, _likely(name, scheme))}"
        )
    _warn_of_others(path, settings, scheme)
    asked = {name for name in scheme.rows if settings.has(name)}
    if lacking := sorted(asked - stored.keys()):
        last = max(map(_layer, stored))
        layers = f" (it has layers 0 to {last}, this model {num_layers})"
        raise UserError(
            f"{str(path)!r} lacks {some(lacking)}, which target_modules in its {ADAPTER_CONFIG} "
            f"names{layers if min(map(_layer, lacking)) > last else ''}"
        )
    if extra := sorted(stored.keys() - asked):
        raise UserError(
            f"{str(path)!r} holds {some(extra)}, which target_modules in its {ADAPTER_CONFIG} does "
            "not name"
        )


def _warn_of_others(path: Path, settings: LoraSettings, scheme: _Scheme) -> None:
    """Warns of targets that are no module's; PEFT passes over them, and tools list many."""
    for target in settings.targets if isinstance(settings.targets, tuple) else ():
        if not any(is_named(name, (target,)) for name in scheme.rows):
            ends = {name.rpartition(".")[2] for name in scheme.rows}
            _LOG.warning(
                "target_modules in %s: this model has no %s%s; passed over",
                path / ADAPTER_CONFIG,
                shown(target),
                did_you_mean(target, ends),
            )


def _ends_in(names: Sequence[str] | str, module: str) -> bool:
    """Whether a list of names has the last part of a module's."""
    return not isinstance(names, str) and module.rpartition(".")[2] in names


def _likely(name: str, scheme: _Scheme) -> list[str]:
    """The model's modules of the same layer."""
    return [other for other in scheme.rows if _layer(other) == _layer(name)] or [*scheme.rows]


def _layer(module: str) -> int:
    """The number of its layer; -1 without one."""
    match = _LAYER.search(module)
    return int(match[1]) if match else -1


def _check_shapes(
    path: Path, name: str, row: Row, pair: Mapping[str, StoredTensor], rank: int
) -> None:
    outputs, inputs = row.shape
    stored = pair["A"].shape
    if stored[1:] == (inputs,) and stored[0] != rank:
        raise UserError(
            f"{name}.lora_A.weight in {str(path)!r} is {list(stored)}, of rank {stored[0]}; its "
            f"{ADAPTER_CONFIG} says {rank}"
        )
    for letter, wanted in (("A", (rank, inputs)), ("B", (outputs, rank))):
        if pair[letter].shape != wanted:
            raise UserError(
                f"{name}.lora_{letter}.weight in {str(path)!r} is {list(pair[letter].shape)}; "
                f"beside this model's matrix {list(row.shape)} it is {list(wanted)}"
            )


def _read(path: Path, name: str, tensor: StoredTensor) -> np.ndarray:
    if tensor.dtype is None or tensor.dtype == np.int8:
        raise UserError(
            f"{name}.weight in {str(path)!r} must be float32, float16 or bfloat16; got "
            f"{tensor.code}"
        )
    array = np.array(tensor.read(), np.float32)
    if not is_finite(array):
        raise UserError(f"NaN or infinite values in {name}.weight of {str(path)!r}")
    return array


def _split(
    row: Row, a: np.ndarray, b: np.ndarray, how: tuple[float, float], config: ModelConfig
) -> dict[str, Factors]:
    """The factors of the parts of a matrix; a is [r, inputs], b [outputs, r], how (scale, rate)."""
    sizes = config.resolved()
    heads = (sizes.num_heads, sizes.head_dim)
    inputs = heads if num_inputs(row.paths[0]) == 2 else row.shape[1:]
    shared = np.ascontiguousarray(a.T).reshape(*inputs, len(a))
    found = {}
    for name, part in zip(row.paths, row.outputs.split(b), strict=True):
        part = np.ascontiguousarray(np.moveaxis(part, -1, 0))
        used = part.reshape(len(a), -1).any(1)
        if used.all() or not b.any():
            found[name] = Factors(shared, part, *how)
        elif used.any():
            found[name] = Factors(np.ascontiguousarray(shared[..., used]), part[used], *how)
    return found


def save_low_rank(
    path: Path,
    config: ModelConfig,
    factors: Mapping[str, Factors],
    origin: Origin,
    names: str = "as_loaded",
    fingerprint: Digests | None = None,
) -> None:
    """Writes the LoRA of a model as a directory of PEFT, all of it or nothing.

    Args:
      path: the directory; one that holds nothing but an adapter of PEFT is replaced.
      config, origin: of the model.
      factors: as of `read_low_rank`; one at least.
      names: as of `glm_jax.interop.key_tables.for_saving`.
      fingerprint: of the base, which is recorded beside the adapter.

    Raises:
      UserError: unknown names, a model that has no such names, or `path` holds something else.
    """
    config = config.with_prefix(ModelConfig())
    architecture = for_saving(config, origin.architecture, names)
    as_loaded = architecture is origin.architecture and names == "as_loaded"
    prefix = origin.prefix if as_loaded else architecture.prefixes[0]
    rows = _scheme(architecture, prefix, config).rows
    modules, tensors = {}, []
    for name, row in rows.items():
        parts = [factors.get(part) for part in row.paths]
        if present := [part for part in parts if part is not None]:
            scales = [part.scale for part in present if part.scale] or [1.0]
            scale = collections.Counter(scales).most_common(1)[0][0]
            a, b = _join(row, parts, scale)
            modules[name] = Module(len(a), scale, present[0].rate)
            tensors += [_to_write(name, "A", a), _to_write(name, "B", b)]
    values = {**_about(origin), **lora_values(modules, rows.keys())}
    with replaced_directory(path, _is_adapter) as directory:
        for _ in write_safetensors(directory / ADAPTER_WEIGHTS, tensors):
            pass
        text = json.dumps(dict(sorted(values.items())), indent=2, ensure_ascii=False) + "\n"
        (directory / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
        if fingerprint is not None:
            write_base(directory, RecordedBase(values["base_model_name_or_path"], fingerprint))


def _join(row: Row, parts: Sequence[Factors | None], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """A [r, inputs] and B [outputs, r] of a matrix, some of whose parts have factors.

    By how much the scale of a part differs from that of the matrix is in its rows of B.
    """
    present = [part for part in parts if part is not None]
    blocks: list[np.ndarray] = []
    begins = []
    for part in present:
        same = (i for i, a in enumerate(blocks) if np.array_equal(a, part.a))
        index = next(same, len(blocks))
        blocks += [part.a] if index == len(blocks) else []
        begins.append(sum(a.shape[-1] for a in blocks[:index]))
    rank = sum(a.shape[-1] for a in blocks)
    rows = [
        np.zeros((*one.shape[:-1], rank), np.float32)
        for one in row.outputs.split(np.zeros((row.shape[0], 1), np.float32))
    ]
    filled = (one for one, part in zip(rows, parts, strict=True) if part is not None)
    for one, part, begin in zip(filled, present, begins, strict=True):
        factor = 1.0 if part.scale == scale else part.scale / scale
        one[..., begin : begin + part.rank] = np.moveaxis(part.b, 0, -1) * np.float32(factor)
    together = np.concatenate([a.reshape(-1, a.shape[-1]) for a in blocks], axis=1)
    return np.ascontiguousarray(together.T), row.outputs.join(*rows)


def _to_write(name: str, letter: str, array: np.ndarray) -> TensorToWrite:
    key = f"{_FRONT}{name}.lora_{letter}.weight"
    return TensorToWrite(key, array.shape, np.dtype(np.float32), lambda: array)


def _is_adapter(path: Path) -> bool:
    """Whether a directory holds only files of an adapter of PEFT."""
    return {file.name for file in path.iterdir()} - {BASE} == {ADAPTER_CONFIG, ADAPTER_WEIGHTS}


def _about(origin: Origin) -> JsonObject:
    base = origin.values.get("_name_or_path") or (origin.directory and origin.directory.name)
    return {
        "auto_mapping": None,
        "base_model_name_or_path": str(base or ""),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "peft_type": PEFT_TYPE,
        "revision": None,
        "task_type": "CAUSAL_LM",
    }
