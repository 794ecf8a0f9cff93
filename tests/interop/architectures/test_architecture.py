import dataclasses
import math

import pytest

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.architecture import (
    check_fixed,
    check_sayable,
    flag,
    number,
    read_prefix,
    whole,
    write_prefix,
)

VALUES = {"whole": 3, "real": 0.5, "flag": True, "text": "3", "null": None}


def test_values_are_read_by_their_kind():
    assert whole(VALUES, "whole") == 3
    assert number(VALUES, "real", 1.0) == 0.5
    assert isinstance(number(VALUES, "whole", 1.0), float)
    assert flag(VALUES, "flag", False) is True


def test_missing_and_null_are_the_default():
    assert whole(VALUES, "null", 7) == whole(VALUES, "absent", 7) == 7
    assert number(VALUES, "null", 0.25) == 0.25
    assert flag(VALUES, "absent", True) is True


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: whole(VALUES, "absent"), "absent in config.json must be a whole number; got None"),
        (lambda: whole(VALUES, "real"), "real .* whole number; got 0.5"),
        (lambda: whole(VALUES, "flag"), "flag .* whole number; got True"),
        (lambda: number(VALUES, "text", 1.0), "text .* must be a number; got '3'"),
        (lambda: number(VALUES, "flag", 1.0), "flag .* must be a number; got True"),
        (lambda: whole({"a": 0}, "a"), "a in config.json must be between 1 and 2147483647; got 0"),
        (lambda: whole({"a": -64}, "a"), "a .* must be between 1 and 2147483647; got -64"),
        (lambda: whole({"a": 2**31}, "a"), "a .* must be between 1 and 2147483647; got 2147483648"),
        (lambda: number({"a": math.nan}, "a", 1.0), "a .* must be a finite number; got nan"),
        (lambda: number({"a": -math.inf}, "a", 1.0), "a .* must be a finite number; got -inf"),
        (lambda: number({"a": 10**400}, "a", 1.0), r"a .* must be a finite number; got 10+\.\.\."),
        (lambda: whole({"a": "x" * 999}, "a"), r"a .* whole number; got 'x{76}\.\.\.$"),
        (lambda: flag(VALUES, "whole", True), "whole .* must be true or false; got 3"),
    ],
)
def test_other_kinds_are_named(read, message):
    with pytest.raises(UserError, match=message):
        read()


def test_switches_may_only_be_what_is_supported():
    check_fixed(VALUES, {"flag": (True, None), "absent": (0,)})
    with pytest.raises(UserError, match=r"text='3' in config.json is not supported; .* 'a' or 'b'"):
        check_fixed(VALUES, {"text": ("a", "b")})


def test_what_a_format_has_no_word_for_is_named():
    config = ModelConfig(embed_dim=24, num_heads=3)
    check_sayable("this", config, {"head_dim": (8,), "activation": ("gelu", "swiglu")})
    with pytest.raises(UserError, match=r"the this format has model.norm='rms_norm'; this model"):
        check_sayable("this", config, {"norm": ("rms_norm",)})


PLAIN = ModelConfig(
    num_layers=3,
    embed_dim=32,
    num_heads=4,
    num_kv_heads=2,
    position_encoding="rotary",
    prefix_length=5,
)
MODEL = PLAIN.with_prefix(ModelConfig())
PROJECTED = dataclasses.replace(PLAIN, prefix_projection=7)


def test_config_json_says_length_and_projection():
    assert read_prefix({}, MODEL) == read_prefix({"pre_seq_len": None}, MODEL) == MODEL
    assert read_prefix({"pre_seq_len": 0}, MODEL) == MODEL
    assert read_prefix({"pre_seq_len": 5, "prefix_projection": False}, MODEL) == PLAIN
    found = read_prefix({"pre_seq_len": 5, "prefix_projection": True}, MODEL)
    assert found == dataclasses.replace(PLAIN, prefix_projection=32)
    for config in (MODEL, PLAIN, found):
        assert read_prefix(write_prefix("this", config), MODEL) == config


@pytest.mark.parametrize("value", [-3, 2.5, "many", True, False])
def test_a_length_that_is_none(value):
    with pytest.raises(UserError, match=r"pre_seq_len in config.json must be"):
        read_prefix({"pre_seq_len": value}, MODEL)


def test_widths_that_the_published_code_does_not_have():
    with pytest.raises(UserError, match=r"has model.prefix_projection=32; this model has 7"):
        write_prefix("ChatGLM", PROJECTED)
    narrow = dataclasses.replace(PROJECTED, prefix_projection=32, prefix_embed_dim=9)
    with pytest.raises(UserError, match=r"has model.prefix_embed_dim=96; this model has 9"):
        write_prefix("ChatGLM", narrow)
