import pytest

from glm_jax.config import Config, LoraConfig, TrainConfig, from_dict, to_dict
from glm_jax.config.files import apply_overrides
from glm_jax.errors import UserError


def test_the_defaults_are_those_published_for_chatglm3_and_glm4_without_a_rank():
    config = LoraConfig()
    assert (config.rank, config.alpha, config.dropout) == (0, 32.0, 0.1)
    assert config.patterns == ("attention/query", "attention/key", "attention/value")


def test_the_scale_is_alpha_over_the_rank_or_its_root():
    assert LoraConfig(rank=8).scale == 4.0
    assert LoraConfig(rank=16, rank_stabilized=True).scale == 8.0


@pytest.mark.parametrize(
    ("targets", "patterns"),
    [
        ("all", (".*",)),
        ("attention/query", ("attention/query",)),
        (" mlp/.* ,attention/out,", ("mlp/.*", "attention/out")),
    ],
)
def test_targets_are_separated_by_commas(targets, patterns):
    config = apply_overrides(Config(), ["lora.rank=4", f"lora.targets={targets}"])
    assert config.lora.patterns == patterns
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": -1}, r"lora\.rank must be at least 0; got -1"),
        ({"alpha": 0.0}, r"lora\.alpha must be above 0"),
        ({"dropout": 1.0}, r"lora\.dropout must be .*below 1"),
        ({"targets": "mlp/(up"}, r"lora\.targets must be names or regular expressions; .*mlp/\(up"),
        ({"targets": " , "}, r"lora\.targets must name matrices"),
        ({"rank": 1.5}, r"lora\.rank must be a whole number"),
    ],
)
def test_what_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        LoraConfig(**values)


def test_a_quantised_base_is_one_that_is_frozen():
    with pytest.raises(UserError, match=r"train\.quantize_base='int4'.*set lora\.rank"):
        Config(train=TrainConfig(quantize_base="int4"))
    assert Config(train=TrainConfig(quantize_base="int4"), lora=LoraConfig(rank=1)).freezes
    assert Config(train=TrainConfig(quantize_base="int8", trainable=".*norm/.*")).freezes


def test_its_dropout_counts():
    still = {"model.dropout_rate": 0.0, "model.attention_dropout_rate": 0.0}
    config = apply_overrides(Config(), [f"{name}={value}" for name, value in still.items()])
    assert not config.has_dropout
    assert apply_overrides(config, ["lora.rank=2"]).has_dropout
    assert not apply_overrides(config, ["lora.rank=2", "lora.dropout=0"]).has_dropout
    assert Config().has_dropout
