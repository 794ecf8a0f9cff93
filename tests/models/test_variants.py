"""Sizes of the published models, to the unit."""

import dataclasses

import pytest

from glm_jax.config import ComputeConfig
from glm_jax.models import variants
from glm_jax.models.params import count_params

COUNTS = {
    "glm-base": 109_338_624,
    "glm-large": 334_688_256,
    "glm-roberta-large": 354_873_344,
    "glm-large-chinese": 355_659_776,
    "glm-410m": 410_265_600,
    "glm-515m": 514_632_960,
    "glm-2b": 1_920_122_880,
    "glm-10b": 9_880_682_496,
    "glm-10b-chinese": 9_879_633_920,
    "chatglm-6b": 6_173_286_400,
    "chatglm2-6b": 6_243_584_000,
    "chatglm2-6b-32k": 6_243_584_000,
    "chatglm3-6b": 6_243_584_000,
    "chatglm3-6b-32k": 6_243_584_000,
    "chatglm3-6b-128k": 6_243_584_000,
    "codegeex2-6b": 6_243_584_000,
    "glm4-9b": 9_399_951_360,
    "glm4-9b-chat": 9_399_951_360,
    "glm4-9b-chat-1m": 9_483_857_920,
    "glm4-9b-0414": 9_400_279_040,
    "glm4-32b-0414": 32_566_081_536,
}


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_parameter_count(name):
    assert count_params(variants.VARIANTS[name]) == COUNTS[name]


def test_every_published_size_has_a_name_and_a_constant():
    assert set(variants.VARIANTS) == set(COUNTS)
    for name, config in variants.VARIANTS.items():
        assert getattr(variants, name.upper().replace("-", "_")) is config
        assert config.resolved().head_dim == (64 if name.startswith("glm-") else 128)


def test_a_shape_is_known_however_it_is_computed():
    changed = dataclasses.replace(variants.GLM_LARGE, dropout_rate=0.3, param_dtype="bfloat16")
    assert variants.variant_name(changed) == "glm-large"
    assert variants.variant_name(changed.resolved(ComputeConfig(remat="full"))) == "glm-large"
    assert variants.variant_name(variants.CODEGEEX2_6B) == "chatglm3-6b"  # the same shape
    assert variants.variant_name(dataclasses.replace(changed, num_layers=5)) is None
