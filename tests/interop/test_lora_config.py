"""adapter_config.json of a LoRA: each value has its effect, has none, or is refused by name."""

import json
import math

import pytest

from glm_jax.errors import UserError
from glm_jax.interop.lora_config import (
    LoraSettings,
    Module,
    holds_lora,
    is_named,
    lora_values,
    read_lora_config,
)

NAMES = [
    f"model.layers.{layer}.{name}"
    for layer in range(12)
    for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj")
]
Q, DOWN = "model.layers.1.self_attn.q_proj", "model.layers.11.mlp.down_proj"


def write(path, **values):
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (path / "adapter_config.json").write_text(json.dumps({**config, **values}))
    return path


def targets(path, **values):
    settings = read_lora_config(write(path, **values))
    return [name for name in NAMES if settings.has(name)]


def test_a_directory_of_another_kind_is_none(tmp_path):
    assert not holds_lora(tmp_path)
    assert holds_lora(write(tmp_path))
    assert not holds_lora(write(tmp_path, peft_type="PREFIX_TUNING"))


def test_what_is_not_said_is_as_peft_has_it(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"target_modules": ["q_proj"]}')
    assert read_lora_config(tmp_path) == LoraSettings(rank=8, alpha=8.0, targets=("q_proj",))


def test_scales_and_ranks(tmp_path):
    settings = read_lora_config(
        write(
            tmp_path,
            rank_pattern={"down_proj": 2, r"layers\.1\.self_attn\.q_proj": 16},
            alpha_pattern={"q_proj": 5, "layers.[0-9]+.mlp.down_proj": 3},
        )
    )
    other, k = "model.layers.2.self_attn.q_proj", "model.layers.2.self_attn.k_proj"
    assert [settings.rank_of(name) for name in (Q, DOWN, other, k)] == [16, 2, 4, 4]
    assert [settings.scale_of(name) for name in (Q, DOWN, other, k)] == [5 / 16, 3 / 2, 5 / 4, 2]
    stabilized = read_lora_config(write(tmp_path, use_rslora=True, rank_pattern={"q_proj": 9}))
    assert (stabilized.scale_of(Q), stabilized.scale_of(DOWN)) == (8 / 3, 4)


def test_targets(tmp_path):
    qs = [name for name in NAMES if name.endswith("q_proj")]
    assert targets(tmp_path) == qs
    assert targets(tmp_path, target_modules=["self_attn.q_proj"]) == qs
    assert targets(tmp_path, target_modules=["proj"]) == []
    assert targets(tmp_path, target_modules=[Q, DOWN]) == [Q, DOWN]
    both = [name for name in NAMES if not name.endswith("down_proj")]
    assert targets(tmp_path, target_modules=r".*\.(q_proj|k_proj)") == both
    assert targets(tmp_path, target_modules="q_proj") == []
    assert targets(tmp_path, target_modules="all-linear") == NAMES
    without = [name for name in NAMES if name != Q]
    assert targets(tmp_path, target_modules="all-linear", exclude_modules=[Q]) == without
    assert targets(tmp_path, exclude_modules=r"model\.layers\.1.*") == [
        name for name in qs if ".1" not in name
    ]


def test_targets_of_some_layers(tmp_path):
    assert targets(tmp_path, layers_to_transform=1) == [Q]
    assert targets(tmp_path, layers_to_transform=[1, 11], layers_pattern="layers") == [
        Q,
        "model.layers.11.self_attn.q_proj",
    ]
    assert targets(tmp_path, layers_to_transform=[1], layers_pattern=["blocks"]) == []
    assert len(targets(tmp_path, layers_to_transform=[])) == 12


def test_values_without_effect_pass(tmp_path):
    harmless = {
        "auto_mapping": {"base_model_class": "GlmForCausalLM"},
        "base_model_name_or_path": "THUDM/glm-4-9b",
        "fan_in_fan_out": True,
        "init_lora_weights": "gaussian",
        "lora_bias": False,
        "megatron_core": "megatron.core",
        "of_a_later_version": None,
        "also_of_a_later_version": {},
        "qalora_group_size": 16,
        "revision": "main",
        "runtime_config": {"ephemeral_gpu_offload": False},
    }
    assert targets(tmp_path, **harmless) == targets(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"use_dora": True}, r"use_dora=True in '.*adapter_config.json': DoRA is not supported"),
        ({"bias": "lora_only"}, r"bias='lora_only' .*: trained biases are not supported"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\] .*trained whole"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices=.*rows of the token embedding"),
        ({"lora_bias": True}, r"lora_bias=True .*a bias of lora_B"),
        ({"layer_replication": [[0, 2], [1, 2]]}, r"layer_replication=.*: not supported"),
        ({"use_qalora": True}, r"use_qalora=True .*: not supported"),
        ({"alora_invocation_tokens": [1]}, r"alora_invocation_tokens=\[1\] .*: not supported"),
        ({"target_parameters": ["experts.w"]}, r"target_parameters=.*: not supported"),
        ({"megatron_config": {"a": 1}}, r"megatron_config=.*: not supported"),
        ({"of_a_later_version": 1}, r"of_a_later_version=1 .*: not supported"),
        ({"init_lora_weights": "pissa_niter_16"}, r"'pissa_niter_16' .*a base that was changed"),
        ({"init_lora_weights": "olora"}, r"save_pretrained\(.., path_initial_model_for_weight"),
        ({"init_lora_weights": 1}, r"init_lora_weights=1 "),
        ({"r": 0}, r"r in '.*adapter_config.json' must be at least 1; got 0"),
        ({"r": "8"}, r"r in '.*' must be a whole number.*; got '8'"),
        ({"r": 10**9}, r"r in '.*' must be "),
        ({"lora_alpha": "x"}, r"lora_alpha in '.*' must be a.* number; got 'x'"),
        ({"lora_dropout": 2}, r"lora_dropout in '.*' must be "),
        ({"use_rslora": "yes"}, r"use_rslora in '.*' must be true or false; got 'yes'"),
        ({"target_modules": None}, r"target_modules in '.*' must name modules"),
        ({"target_modules": []}, r"target_modules in '.*' must name modules"),
        ({"target_modules": [1]}, r"target_modules in '.*' must be a list of names or a text"),
        ({"target_modules": "(q_proj"}, r"target_modules in '.*' must be a regular expression"),
        ({"layers_to_transform": ["a"]}, r"layers_to_transform in '.*' must be a whole number"),
        ({"layers_pattern": "("}, r"layers_pattern in '.*' must be a regular expression"),
        ({"rank_pattern": [4]}, r"rank_pattern in '.*' must be an object; got \[4\]"),
        ({"rank_pattern": {"(": 4}}, r"rank_pattern in '.*' must be a regular expression"),
        ({"rank_pattern": {"q_proj": 0}}, r"rank_pattern\['q_proj'\] in '.*' must be "),
        ({"alpha_pattern": {"q_proj": None}}, r"alpha_pattern\['q_proj'\] in '.*' must be "),
    ],
    ids=str,
)
def test_values_that_would_change_the_result_are_refused(values, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        read_lora_config(write(tmp_path, **values))
    assert "\n" not in str(error.value)


def modules(**scales):
    """Those of 12 layers by the last part of their names, which have (rank, scale)."""
    return {
        name: Module(*scales[name.rpartition(".")[2]], 0.0)
        for name in NAMES
        if name.rpartition(".")[2] in scales
    }


def test_what_is_written_is_short_where_it_can_be():
    values = lora_values(modules(q_proj=(4, 2.0), k_proj=(4, 2.0)), NAMES)
    assert values == {
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "target_modules": ["k_proj", "q_proj"],
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    of_some = modules(q_proj=(4, 2.0))
    del of_some[Q]
    assert lora_values(of_some, NAMES)["target_modules"] == list(of_some)


def test_what_is_written_is_read_back(tmp_path):
    given = modules(q_proj=(4, 2.0), k_proj=(12, 0.3), down_proj=(3, 8 / math.sqrt(3)))
    given[Q] = Module(7, 1.1, 0.0)
    values = lora_values(given, NAMES)
    settings = read_lora_config(write(tmp_path, **values))
    for name, module in given.items():
        assert settings.has(name)
        assert settings.rank_of(name) == module.rank
        assert settings.scale_of(name) == pytest.approx(module.scale, rel=1e-12)


def test_scales_of_rslora_have_whole_alphas():
    values = lora_values(
        modules(q_proj=(8, 16 / math.sqrt(8)), k_proj=(2, 16 / math.sqrt(2))), NAMES
    )
    assert (values["use_rslora"], values["lora_alpha"], values["alpha_pattern"]) == (True, 16, {})
    values = lora_values(modules(q_proj=(4, 4.0)), NAMES)
    assert (values["use_rslora"], values["lora_alpha"]) == (False, 16)
    values = lora_values(modules(q_proj=(4, 0.1)), NAMES)
    assert (values["use_rslora"], values["lora_alpha"]) == (False, 0.4)


def test_names_end_at_a_dot():
    assert is_named("a.q_proj", ("q_proj",))
    assert not is_named("a.xq_proj", ("q_proj",))
    assert is_named("q_proj", "q_.*")
    assert not is_named("a.q_proj", "q_.*")
