import dataclasses
import json
from pathlib import Path

import pytest

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.key_tables import (
    ARCHITECTURES,
    CHATGLM,
    CHATGLM_6B,
    GLM,
    GLM4,
    GLM4_0414,
    candidates,
    choose,
    for_saving,
)

GOLDEN = Path(__file__).parents[1] / "golden"
CHATGLM2 = json.loads((GOLDEN / "chatglm" / "chatglm2" / "config.json").read_text())
NATIVE = json.loads((GOLDEN / "chatglm" / "glm4_9b" / "config.json").read_text())
GLM_2021 = json.loads((GOLDEN / "glm" / "generation" / "cases.json").read_text())["config"]
GLM_NAME, GLM4_NAME = "model.layers.0.mlp.gate_up_proj.weight", "x.post_self_attn_layernorm.weight"


def without(values, *keys):
    return {key: value for key, value in values.items() if key not in keys}


CHATGLM1 = {
    "model_type": "chatglm",
    "vocab_size": 320,
    "hidden_size": 64,
    "num_layers": 2,
    "num_attention_heads": 4,
    "inner_hidden_size": 256,
    "max_sequence_length": 2048,
}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (GLM_2021, [GLM]),
        (CHATGLM2, [CHATGLM]),
        (NATIVE, [GLM4_0414, GLM4]),
        (without(NATIVE, "model_type", "architectures"), [GLM4_0414, GLM4]),
        # Keys decide, whatever the type says.
        ({**GLM_2021, "model_type": "chatglm"}, [GLM]),
        ({**CHATGLM2, "model_type": "glm"}, [CHATGLM]),
        (CHATGLM1, [CHATGLM_6B]),
        # Published GLM-4-9B files have this key beside their own.
        ({**CHATGLM2, "num_hidden_layers": 2}, [CHATGLM]),
    ],
)
def test_a_config_is_known_by_its_keys(values, expected):
    assert candidates(values, "config.json") == expected


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "glm"},
        {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 128},
        {**without(NATIVE, "rope_parameters"), "model_type": "llama", "rope_theta": 1e4},
    ],
)
def test_an_unknown_architecture_names_those_known(values):
    with pytest.raises(UserError, match="no known architecture") as caught:
        candidates(values, "there/config.json")
    message = str(caught.value)
    assert message.startswith(f"there/config.json (model_type {values['model_type']!r})")
    assert all(architecture.name in message for architecture in ARCHITECTURES)


def test_tensors_decide_where_the_keys_are_the_same():
    found = candidates(NATIVE, "x")
    bare = without(NATIVE, "model_type")
    assert choose(found, NATIVE, [GLM_NAME], "x") is GLM4
    assert choose(found, bare, [GLM_NAME], "x") is GLM4
    assert choose(found, bare, [GLM_NAME, GLM4_NAME], "x") is GLM4_0414
    assert choose(found, {**bare, "model_type": "other"}, [GLM_NAME], "x") is GLM4
    assert choose([CHATGLM], CHATGLM2, [], "x") is CHATGLM


def test_a_config_that_calls_itself_the_other_is_refused():
    found = candidates(NATIVE, "x")
    with pytest.raises(UserError, match=r"disagree: model_type is 'glm', but .* 'glm4'"):
        choose(found, NATIVE, [GLM_NAME, GLM4_NAME], "x")
    with pytest.raises(UserError, match=r"disagree: model_type is 'glm4', but .* 'glm'"):
        choose(found, {**NATIVE, "model_type": "glm4"}, [GLM_NAME], "x")


def test_tensors_of_another_family_are_refused():
    with pytest.raises(UserError, match=r"'x' \(model_type 'glm'\) are of no known architecture"):
        choose(candidates(NATIVE, "x"), NATIVE, ["model.layers.0.mlp.gate_proj.weight"], "x")


def test_a_model_goes_back_to_where_it_came_from():
    config = CHATGLM.read_config(CHATGLM2)
    assert for_saving(config, CHATGLM, "as_loaded") is CHATGLM
    assert for_saving(config, CHATGLM, "original") is CHATGLM
    assert for_saving(config, CHATGLM, "native") is GLM4
    assert for_saving(config, GLM4, "original") is CHATGLM
    assert for_saving(config, GLM4, "native") is GLM4


def test_a_model_without_an_origin_gets_names_that_can_hold_it():
    rotary = CHATGLM.read_config(CHATGLM2)
    sandwich = dataclasses.replace(rotary, residual="sandwich")
    biased = dataclasses.replace(rotary, biases="all")
    for names, config, expected in [
        ("as_loaded", ModelConfig(), GLM),
        ("original", ModelConfig(), GLM),
        ("as_loaded", rotary, GLM4),
        ("original", rotary, CHATGLM),
        ("as_loaded", sandwich, GLM4_0414),
        ("native", sandwich, GLM4_0414),
        ("as_loaded", biased, CHATGLM),
    ]:
        assert for_saving(config, None, names) is expected
    odd = dataclasses.replace(rotary, activation="gelu")
    with pytest.raises(UserError, match=r"this model has no published names, .*format='orbax'"):
        for_saving(odd, None, "as_loaded")


def test_names_that_a_model_does_not_have():
    rotary = CHATGLM.read_config(CHATGLM2)
    with pytest.raises(UserError, match=r"GLM \(2021\) has no native names"):
        for_saving(ModelConfig(), GLM, "native")
    sandwich = dataclasses.replace(rotary, residual="sandwich")
    with pytest.raises(UserError, match=r"GLM-4-0414 has no original names.*residual"):
        for_saving(sandwich, GLM4_0414, "original")
    with pytest.raises(UserError, match=r"names must be 'as_loaded', .* or 'native'; got 'new'"):
        for_saving(rotary, CHATGLM, "new")
