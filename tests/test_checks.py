"""Numbers at their edges: what every option of a config takes, and what it refuses."""

import dataclasses
import json
import math
import typing
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.checks import (
    check_choice,
    check_rate,
    check_types,
    finite_number,
    whole_number,
    whole_numbers,
)
from glm_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    ExamplesConfig,
    LoraConfig,
    MeshConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PublishedOptions,
    TrainConfig,
    from_dict,
    to_dict,
)
from glm_jax.errors import UserError

SECTIONS = {
    "model": ModelConfig,
    "data": DataConfig,
    "examples": ExamplesConfig,
    "objective": ObjectiveConfig,
    "objective.published": PublishedOptions,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "mesh": MeshConfig,
    "compute": ComputeConfig,
    "lora": LoraConfig,
}
NAN, INF = math.nan, math.inf
HUGE = 10**400
# What no field of a type takes, whatever its range.
NEVER = {
    float: [
        NAN,
        INF,
        -INF,
        np.float32(NAN),
        1e39,
        -1e39,
        HUGE,
        True,
        np.bool_(True),
        "1",
        [1.0],
        None,
    ],
    int: [True, np.bool_(True), 2.5, 2.0, NAN, INF, "3", 2**31, 2**64, -(2**31), HUGE, None],
    bool: [0, 1, 1.0, "yes", "True", NAN, None],
    str: [3, True, 2.5, b"text", NAN, None],
}


def fields():
    """(section, name, type, whether it may be None) of all fields of plain types."""
    for section, kind in SECTIONS.items():
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            allowed = typing.get_args(hints[field.name]) or (hints[field.name],)
            types = [one for one in allowed if one is not type(None)]
            if len(types) == 1 and types[0] in NEVER:
                yield section, field.name, types[0], type(None) in allowed


FIELDS = list(fields())


def test_all_fields_are_looked_at():
    assert len(FIELDS) > 90
    others = sum(len(dataclasses.fields(kind)) for kind in SECTIONS.values()) - len(FIELDS)
    # data.mixture and examples.verbalizers, which read themselves, objective.published, which is a
    # part, and what is recorded
    assert others <= 4


@pytest.mark.parametrize(
    ("section", "name", "kind", "optional"), FIELDS, ids=[f"{f[0]}.{f[1]}" for f in FIELDS]
)
def test_no_field_takes_what_its_type_is_not(section, name, kind, optional):
    for value in NEVER[kind]:
        if (value is None and optional) or (name == "seed" and value == 2**31):
            continue
        with pytest.raises(UserError, match=rf"{section}\.{name} must be ") as refused:
            SECTIONS[section](**{name: value})
        assert len(str(refused.value)) < 300


def test_numbers_of_numpy_and_jax_become_those_of_python():
    config = Config(
        ModelConfig(
            num_layers=np.int64(2), dropout_rate=np.float32(0.5), tied_embeddings=np.bool_(True)
        ),
        DataConfig(tokenizer=Path("a") / "b", batch_size=jnp.int32(8)),
        optimizer=OptimizerConfig(peak_learning_rate=1, clip_norm=jnp.float32(2.0)),
    )
    assert type(config.model.num_layers) is int
    assert type(config.optimizer.peak_learning_rate) is float
    assert config.optimizer.clip_norm == 2.0
    assert config.model.tied_embeddings is True
    assert config.data.tokenizer == "a/b"
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        ("optimizer", {"beta1": 1.0}, r"beta1 must be at least 0 and below 1; got 1\.0"),
        ("optimizer", {"beta2": 1 - 1e-9}, r"beta2 must be at least 0 and below 1, as float32 too"),
        ("optimizer", {"epsilon": 0.0}, r"epsilon must be above 0; got 0\.0"),
        ("optimizer", {"epsilon": 1e-50}, r"epsilon must be above 0, as float32 too; got 1e-50"),
        ("optimizer", {"clip_norm": 0.0}, r"clip_norm must be above 0; got 0\.0"),
        ("optimizer", {"clip_norm": 1e-50}, r"clip_norm must be above 0, as float32 too"),
        ("optimizer", {"warmup_steps": -1}, r"warmup_steps must be at least 0; got -1"),
        ("model", {"dropout_rate": 1.0}, r"dropout_rate must be at least 0 and below 1; got 1\.0"),
        ("model", {"attention_dropout_rate": -0.1}, r"attention_dropout_rate must be at least 0"),
        ("objective", {"mean_span_length": 1e-50}, r"mean_span_length must be above 0, as float32"),
        ("objective", {"max_span_length": 2**17}, r"max_span_length must be at most 65536"),
        ("objective", {"span_weight": 0.0}, r"objective\.span_weight must not all be 0"),
        ("data", {"sequence_length": 15}, r"sequence_length must be at least 16; got 15"),
        ("data", {"sequence_length": 2**25}, r"sequence_length must be at most 16777216"),
        ("data", {"batch_size": 0}, r"batch_size must be at least 1; got 0"),
        ("train", {"seed": 2**64}, r"seed must be at most 18446744073709551615; got 1844"),
        ("train", {"seed": -1}, r"seed must be at least 0; got -1"),
    ],
)
def test_bounds(section, options, message):
    with pytest.raises(UserError, match=message):
        SECTIONS[section](**options)


def test_what_is_just_inside_is_taken():
    OptimizerConfig(beta1=0.0, beta2=0.9999999, epsilon=1e-30, clip_norm=1e-30, weight_decay=0)
    ModelConfig(dropout_rate=0.999)
    TrainConfig(seed=2**64 - 1, num_steps=2**31 - 1)
    ObjectiveConfig(span_weight=0.0, span_rate=0.5, document_rate=0.5, max_span_length=65536)


def test_whole_numbers():
    assert whole_number("n", np.uint8(7)) == 7
    assert type(whole_number("n", jnp.int32(7))) is int
    for value, said in (
        (True, "n must be a whole number; got True"),
        (2.0, r"n must be a whole number; got 2\.0"),
        (1, "n must be at least 2; got 1"),
        (10, "n must be at most 9; got 10"),
        (10**5000, "n must be at most 9; got a number of 16610 bits"),
    ):
        with pytest.raises(UserError, match=said):
            whole_number("n", value, 2, 9)
    assert whole_numbers("ids", np.arange(3, dtype=np.int16)) == [0, 1, 2]
    with pytest.raises(UserError, match=r"ids must be whole numbers; got \[1, 2\.5\]"):
        whole_numbers("ids", [1, 2.5])


def test_finite_numbers():
    assert finite_number("x", 1) == 1.0
    assert type(finite_number("x", np.float16(0.5))) is float
    assert finite_number("x", 0.1, least=0.1, most=0.1) == 0.1
    for value, bounds, said in (
        (NAN, {"above": 0}, "x must be a finite number; got nan"),
        (1e39, {}, r"x must be a finite number; got 1e\+39"),
        (0, {"above": 0, "most": 1}, "x must be above 0 and at most 1; got 0"),
        (1.5, {"above": 0, "most": 1}, r"x must be above 0 and at most 1; got 1\.5"),
        (1.0, {"below": 1}, r"x must be below 1; got 1\.0"),
        (-6, {"least": -5}, "x must be at least -5; got -6"),
    ):
        with pytest.raises(UserError, match=said):
            finite_number("x", value, **bounds)


def test_types_of_sections_to_come():
    @dataclasses.dataclass(frozen=True)
    class Section:
        either: int | float = 1
        pairs: tuple = ()

        def __post_init__(self):
            check_types(self, "new")

    assert Section(2, ((1, 2),)) == Section(2.0, ((1, 2),))
    with pytest.raises(UserError, match=r"new\.either must be a finite number"):
        Section(NAN)


@pytest.mark.parametrize(
    ("value", "hint"), [("rmsnorm", "rms_norm"), ("layer-norm", "layer_norm"), ("qqq", None)]
)
def test_a_choice_that_is_nearly_right_is_suggested(value, hint):
    with pytest.raises(UserError) as refused:
        check_choice("model.norm", value, iter(["layer_norm", "rms_norm"]))
    begin = f"model.norm must be one of ['layer_norm', 'rms_norm']; got {value!r}"
    assert str(refused.value).startswith(begin)
    rest = str(refused.value)[len(begin) :]
    assert [name for name in ("layer_norm", "rms_norm") if name in rest] == ([hint] if hint else [])


@pytest.mark.parametrize("rate", [-1e-9, 1 + 1e-9, NAN, INF, -INF])
def test_a_rate_lies_between_0_and_1(rate):
    for good in (0, 0.5, 1.0):
        check_rate("model.dropout_rate", good)
    with pytest.raises(UserError, match=r"^model\.dropout_rate must be between 0 and 1; got "):
        check_rate("model.dropout_rate", rate)
