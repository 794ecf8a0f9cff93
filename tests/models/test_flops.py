import dataclasses

import pytest

from glm_jax.config import (
    Config,
    DataConfig,
    LoraConfig,
    MeshConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainConfig,
)
from glm_jax.models.flops import (
    attention_density,
    attention_flops_per_token,
    describe_groups,
    flops_per_token,
    matrix_parameters,
    parameter_groups,
    predicted_share,
    trained_parameters,
)
from glm_jax.models.params import abstract_params
from glm_jax.models.variants import CHATGLM2_6B, GLM_LARGE
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.state import abstract_state

CAUSAL = ObjectiveConfig(span_rate=0.0, causal_rate=1.0)
SMALL = ModelConfig(
    vocab_size=32,
    num_layers=3,
    embed_dim=8,
    num_heads=4,
    num_kv_heads=2,
    mlp_dim=20,
    activation="swiglu",
    norm="rms_norm",
    biases="qkv",
    tied_embeddings=False,
    position_encoding="rotary",
    rotary_fraction=1.0,
)


def params_of(model, **options):
    return abstract_params(model, make_mesh(MeshConfig()), **options)


@pytest.mark.parametrize("listed", [True, False])
def test_groups_of_a_small_model_by_hand(listed):
    groups = parameter_groups(params_of(SMALL, listed=listed))
    assert groups == {
        "embedding": 32 * 8,
        # Queries and output of 4 heads of 2, keys and values of 2 heads; biases of the first three.
        "attention": 3 * (2 * 8 * 8 + 2 * 8 * 4 + 8 + 2 * 4),
        "mlp": 3 * 3 * 8 * 20,
        "norms": 3 * 2 * 8 + 8,
        "output": 32 * 8,
        "prefix": 0,
        "adapters": 0,
        "other": 0,
    }


def test_a_prefix_is_a_group_that_no_token_is_multiplied_with():
    model = dataclasses.replace(SMALL, prefix_length=5, prefix_projection=8)
    row = 2 * 3 * 2 * 2  # keys and values, layers, key heads, head dimension
    params = params_of(model)
    assert parameter_groups(params)["prefix"] == 5 * row + (row * 8 + 8) + (8 * row + row)
    assert matrix_parameters(params) == matrix_parameters(params_of(SMALL))
    more = attention_flops_per_token(model.resolved(), 64, 0.5)
    assert more == 12 * 3 * 8 * (64 * 0.5 + 5)


def test_matrices_are_kernels_and_the_output_and_no_table_that_is_looked_up():
    params = params_of(SMALL)
    assert matrix_parameters(params) == 3 * (2 * 64 + 2 * 32 + 480) + 32 * 8
    tied = ModelConfig(vocab_size=32, num_layers=1, embed_dim=8, num_heads=2)
    assert matrix_parameters(params_of(tied)) == 4 * 64 + 2 * 8 * 32 + 32 * 8


def test_flops_of_a_token_by_hand():
    config = Config(SMALL, DataConfig(sequence_length=64), CAUSAL)
    # 12 * 3 layers * 8 features * 64 slots * half of the pairs.
    attention = 12 * 3 * 8 * 64 * 0.5
    assert attention_flops_per_token(SMALL.resolved(), 64, 0.5) == attention
    assert flops_per_token(config, params_of(SMALL)) == 6 * (3 * 672 + 256) + attention


def test_published_models_have_their_published_sizes():
    assert sum(parameter_groups(params_of(CHATGLM2_6B)).values()) == 6_243_584_000
    # GLM-Large: 335 M (arXiv:2103.10360, table 10), its LM head in the embedding.
    groups = parameter_groups(params_of(GLM_LARGE))
    assert groups["output"] == 0
    assert sum(groups.values()) == pytest.approx(335e6, rel=0.01)


def test_a_6b_model_takes_the_flops_of_six_per_matrix_parameter():
    config = Config(CHATGLM2_6B, DataConfig(sequence_length=2048), CAUSAL)
    flops = flops_per_token(config, params_of(CHATGLM2_6B))
    attention = 12 * 28 * 4096 * 2048 * 0.5
    assert flops == pytest.approx(6 * (6_243_584_000 - 65024 * 4096) + attention, rel=1e-3)


@pytest.mark.parametrize(
    ("objective", "density", "share"),
    [
        (CAUSAL, 0.5, 1.0),
        # A sentence row: 20 of 100 slots see part A and half of themselves.
        (
            ObjectiveConfig(span_rate=0.0, sentence_rate=1.0, sentence_mask_ratio=0.2),
            0.8 + 0.2 * 0.2 / 2,
            0.2,
        ),
        # Stretches of 0.5 to 1 of the text: E[1 - s + s^2 / 2], E[s^2] = 7 / 12.
        (ObjectiveConfig(span_rate=0.0, document_rate=1.0), 0.25 + 7 / 24, 0.75),
        (
            ObjectiveConfig(span_rate=0.0, document_rate=0.5, causal_rate=0.5),
            0.5 * (0.25 + 7 / 24) + 0.25,
            0.875,
        ),
    ],
)
def test_density_and_share_of_targets_by_hand(objective, density, share):
    assert attention_density(objective) == pytest.approx(density)
    assert predicted_share(objective) == pytest.approx(share)


def test_span_rows_count_the_tokens_that_come_in_with_each_span():
    objective = ObjectiveConfig(mask_ratio=0.15, mean_span_length=3.0)
    # 1000 tokens, 150 in spans of 3 / (1 - e^-3) = 3.157: 47.5 spans, 1095 slots, 197.5 in part B.
    share = 197.5 / 1095.0
    assert predicted_share(objective) == pytest.approx(share, rel=1e-3)
    assert attention_density(objective) == pytest.approx(1 - share + share**2 / 2, rel=1e-3)


def held_by(**sections):
    """The state of a run of SMALL."""
    config = Config(model=SMALL, data=DataConfig(sequence_length=64), objective=CAUSAL, **sections)
    return config, abstract_state(config, make_mesh(MeshConfig()))


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_adapters_count_beside_the_matrices_and_what_is_frozen_costs_less(quantize):
    config, state = held_by(
        lora=LoraConfig(rank=2, targets="attention/query, mlp/down"),
        train=TrainConfig(quantize_base=quantize),
    )
    beside = 3 * (2 * (8 + 8) + 2 * (20 + 8))
    groups, plain = parameter_groups(state.params), parameter_groups(params_of(SMALL))
    assert groups == {**plain, "adapters": beside}
    assert trained_parameters(state.trainable) == beside
    matrices = 3 * 672 + 256
    attention = attention_flops_per_token(SMALL.resolved(), 64, 0.5)
    flops = flops_per_token(config, state.params, state.frozen)
    assert flops == 4 * matrices + 6 * beside + attention


def test_a_table_that_is_trained_costs_what_it_costs():
    config, state = held_by(train=TrainConfig(trainable="output/table|layers/mlp/up/kernel"))
    frozen = 3 * (672 - 160) + 0
    attention = attention_flops_per_token(SMALL.resolved(), 64, 0.5)
    flops = flops_per_token(config, state.params, state.frozen)
    assert flops == 6 * (3 * 672 + 256) - 2 * frozen + attention


def test_a_description_says_how_many_are_trained():
    assert describe_groups({"mlp": 1000, "adapters": 20}, 20) == (
        "1,020 parameters: mlp 1,000, adapters 20; 20 of them are trained"
    )
    assert describe_groups({"mlp": 1000}, 1000) == "1,000 parameters: mlp 1,000"


def test_a_description_leaves_empty_groups_out():
    assert describe_groups({"embedding": 1000, "mlp": 0, "norms": 5}) == (
        "1,005 parameters: embedding 1,000, norms 5"
    )
