"""The section `model`: what sizes and choices go together, and what follows from them."""

import dataclasses

import pytest

from glm_jax.config import ComputeConfig, ModelConfig, ResolvedModel
from glm_jax.errors import UserError
from glm_jax.models.positions import POSITION_ENCODINGS


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, (4, 24, 384)),
        ({"num_kv_heads": 2}, (2, 24, 384)),
        ({"head_dim": 10}, (4, 10, 384)),
        ({"mlp_dim": 7}, (4, 24, 7)),
        ({"num_kv_heads": 1, "head_dim": 5, "mlp_dim": 6}, (1, 5, 6)),
    ],
)
def test_sizes_that_follow(options, sizes):
    config = ModelConfig(embed_dim=96, num_heads=4, **options).resolved()
    assert (config.num_kv_heads, config.head_dim, config.mlp_dim) == sizes
    assert type(config) is ResolvedModel
    assert config.resolved() is config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 0}, r"model\.vocab_size must be at least 1; got 0"),
        ({"num_layers": -1}, r"model\.num_layers must be at least 1; got -1"),
        ({"num_kv_heads": 0}, r"model\.num_kv_heads must be at least 1; got 0"),
        ({"mlp_dim": 0}, r"model\.mlp_dim must be at least 1; got 0"),
        ({"embed_dim": 97, "num_heads": 4}, r"embed_dim=97, num_heads=4"),
        ({"num_heads": 4, "num_kv_heads": 3}, r"multiple of model\.num_kv_heads; got 4 and 3"),
        ({"num_heads": 2, "num_kv_heads": 4}, r"multiple of model\.num_kv_heads; got 2 and 4"),
        ({"activation": "glu"}, r"model\.activation must be one of .*; got 'glu'"),
        ({"param_dtype": "int8"}, r"model\.param_dtype must be one of .*float16.*; got 'int8'"),
        ({"dropout_rate": 1.1}, r"model\.dropout_rate must be .*below 1; got 1\.1"),
        ({"attention_dropout_rate": -0.1}, r"model\.attention_dropout_rate must be at least 0"),
        ({"prefix_dropout_rate": 1.0}, r"model\.prefix_dropout_rate must be .*below 1; got 1\.0"),
        ({"prefix_length": -1}, r"model\.prefix_length must be at least 0; got -1"),
        (
            {"prefix_projection": 8},
            r"model\.prefix_projection needs model\.prefix_length above 0; got 8 beside 0",
        ),
        (
            {"prefix_length": 2, "prefix_embed_dim": 8},
            r"model\.prefix_embed_dim needs model\.prefix_projection; got 8 beside None",
        ),
        (
            {"position_encoding": "rotary", "rotary_base": 0.99},
            r"model\.rotary_base must be at least 1; got 0\.99",
        ),
        (
            {"position_encoding": "rotary", "rotary_factor": -1.0},
            r"model\.rotary_factor must be above 0; got -1\.0",
        ),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**options)


def test_a_resolved_model_is_what_it_is_and_how_it_runs():
    plain, compute = ModelConfig(embed_dim=96, num_heads=4), ComputeConfig(remat="full")
    model = plain.resolved(compute)
    assert isinstance(model, ModelConfig)
    assert (model.embed_dim, model.compute) == (96, compute)
    assert plain.resolved().compute == ComputeConfig()
    scanned = model.with_compute(scan_layers=True)
    assert scanned.compute == ComputeConfig(remat="full", scan_layers=True)
    assert scanned != model
    assert scanned.resolved(compute) == model
    assert model.with_sizes() == dataclasses.replace(
        plain, num_kv_heads=4, head_dim=24, mlp_dim=384
    )


def test_a_resolved_model_has_sizes():
    with pytest.raises(UserError, match=r"model\.num_kv_heads must be at least 1; got 0"):
        ResolvedModel()
    with pytest.raises(UserError, match=r"model\.head_dim must be a whole number; got None"):
        dataclasses.replace(ModelConfig().resolved(), head_dim=None)


def test_a_width_that_heads_do_not_share_needs_their_size():
    assert ModelConfig(embed_dim=97, num_heads=4, head_dim=8).resolved().head_dim == 8


@pytest.mark.parametrize(
    ("fraction", "fine"),
    [(0.5, True), (1.0, True), (1 / 8, True), (1 / 16, False), (0.55, False), (1.25, False)],
)
def test_an_even_share_of_a_head_is_rotated(fraction, fine):
    """Of 16 numbers 8, 16 and 2; not 1, 8.8 nor 20."""
    options = {"embed_dim": 32, "num_heads": 2, "rotary_fraction": fraction}
    ModelConfig(**options)  # the encoding that is not used is not looked at
    if fine:
        ModelConfig(position_encoding="rotary", **options)
        return
    with pytest.raises(UserError, match=r"model\.rotary_fraction .* of 16"):
        ModelConfig(position_encoding="rotary", **options)


def test_what_a_config_allows_is_what_there_is():
    """A choice without its code would be a KeyError deep inside, code without its choice dead."""

    def refused(name):
        with pytest.raises(UserError) as error:
            ModelConfig(**{name: "?"})
        listed = str(error.value).split("[")[1].split("]")[0]
        return {word.strip().strip("'") for word in listed.split(",")}

    assert refused("position_encoding") == set(POSITION_ENCODINGS)


@pytest.mark.parametrize(
    ("encoding", "table", "blocks"),
    [
        ("learned", True, False),
        ("learned_block", True, True),
        ("rotary", False, False),
        ("rotary_block", False, True),
    ],
)
def test_what_a_model_does_with_positions(encoding, table, blocks):
    config = ModelConfig(position_encoding=encoding)
    assert (config.has_position_table, config.uses_block_positions) == (table, blocks)
    assert (config.fills_blanks, config.continues_texts) == (blocks, not blocks)


def test_half_a_head_is_rotated_evenly():
    ModelConfig(position_encoding="rotary_block", embed_dim=16, num_heads=2, rotary_fraction=0.5)
    with pytest.raises(UserError, match=r"an even share of half a head; got 0\.25 of 4"):
        ModelConfig(
            position_encoding="rotary_block", embed_dim=16, num_heads=2, rotary_fraction=0.25
        )


def test_alpha_is_of_the_number_of_layers_or_of_the_one_given():
    assert ModelConfig(num_layers=8).residual_alpha is None
    scaled = ModelConfig(num_layers=8, residual="scaled_norm")
    assert scaled.residual_alpha == 4.0
    assert dataclasses.replace(scaled, residual_alpha_layers=18).residual_alpha == 6.0
    with pytest.raises(UserError, match=r"residual_alpha_layers is of .* 28 beside 'sandwich'"):
        ModelConfig(residual="sandwich", residual_alpha_layers=28)
    with pytest.raises(UserError, match="residual_alpha_layers must be at least 1"):
        ModelConfig(residual="scaled_norm", residual_alpha_layers=0)


def test_the_table_under_a_projection_is_as_wide_as_published():
    """ChatGLM-6B: as the model. ChatGLM2 and later: as keys and values of all layers."""
    sizes = {"num_layers": 3, "embed_dim": 96, "num_heads": 4, "num_kv_heads": 2}
    prefix = {"prefix_length": 5, "prefix_projection": 7}
    rotary = ModelConfig(**sizes, **prefix, position_encoding="rotary")
    assert rotary.prefix_row == 2 * 3 * 2 * 24
    assert rotary.resolved().prefix_embed_dim == rotary.prefix_row
    blocks = dataclasses.replace(rotary, position_encoding="rotary_block")
    assert blocks.resolved().prefix_embed_dim == 96
    assert dataclasses.replace(blocks, prefix_embed_dim=11).resolved().prefix_embed_dim == 11
    bare = rotary.with_prefix(ModelConfig())
    assert bare == ModelConfig(**sizes, position_encoding="rotary")
    assert bare.resolved().prefix_embed_dim is None
    assert bare.with_prefix(rotary) == rotary
