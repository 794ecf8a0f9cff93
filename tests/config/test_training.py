"""The sections `optimizer`, `train` and `mesh`: borders, and what contradicts itself."""

import pytest

from glm_jax.config import MeshConfig, OptimizerConfig, TrainConfig
from glm_jax.config.training import task_and_metric
from glm_jax.errors import UserError
from glm_jax.losses.by_objective import REDUCTIONS


@pytest.mark.parametrize(
    ("section", "name", "allowed", "refused"),
    [
        (OptimizerConfig, "peak_learning_rate", 0.0, -1e-9),
        (OptimizerConfig, "warmup_steps", 0, -1),
        (OptimizerConfig, "weight_decay", 0.0, -0.1),
        (OptimizerConfig, "epsilon", 1e-30, 0.0),
        (OptimizerConfig, "beta1", 0.0, -0.1),
        (OptimizerConfig, "beta2", 0.9999, 1.0),
        (OptimizerConfig, "final_ratio", 1.0, 1.1),
        (OptimizerConfig, "decay_steps", 1, 0),
        (OptimizerConfig, "decay_steps", None, -3),
        (OptimizerConfig, "clip_norm", 1e-9, 0.0),
        (OptimizerConfig, "clip_norm", None, -1.0),
        (OptimizerConfig, "name", "adafactor", "sgd"),
        (OptimizerConfig, "schedule", "linear_published", "cosin"),
        (TrainConfig, "num_steps", 1, 0),
        (TrainConfig, "accumulation_steps", 1, 0),
        (TrainConfig, "eval_batches", 1, 0),
        (TrainConfig, "keep_checkpoints", 1, 0),
        (TrainConfig, "seed", 0, -1),
        (TrainConfig, "log_every", 0, -1),
        (TrainConfig, "eval_every", 0, -1),
        (TrainConfig, "checkpoint_every", 0, -1),
        (TrainConfig, "sample_every", 0, -1),
        (TrainConfig, "keep_best", 0, -1),
        (TrainConfig, "best_metric", "eval/loss/span", "accuracy"),
        (TrainConfig, "best_metric", "loss", "eval"),
        (TrainConfig, "best_is", "highest", "high"),
        (TrainConfig, "eval_examples", 1, 0),
        (TrainConfig, "eval_tasks_every", 0, -1),
        (TrainConfig, "wandb", "project", ""),
        (TrainConfig, "loss_reduction", "objective_mean", "mean"),
        (TrainConfig, "cross_entropy", None, "fused"),
        (TrainConfig, "loss_chunk", 1, 0),
        (MeshConfig, "fsdp", 1, 0),
        (MeshConfig, "tensor", 2, -2),
        (MeshConfig, "sequence", 3, -5),
    ],
)
def test_borders(section, name, allowed, refused):
    assert getattr(section(**{name: allowed}), name) == allowed
    words = {OptimizerConfig: "optimizer", TrainConfig: "train", MeshConfig: "mesh"}
    with pytest.raises(UserError, match=rf"^{words[section]}\.{name} must be .*; got "):
        section(**{name: refused})


@pytest.mark.parametrize(
    ("metric", "is_highest"),
    [
        ("eval/loss", False),
        ("loss/span", False),
        ("eval/loss/accuracy", False),
        ("eval/unigram_loss/span", False),
        ("eval/reviews/accuracy", True),
        ("eval/loss_of_words/f1", True),
        ("eval/wiki/perplexity_per_word", False),
        ("eval/wiki/bits_per_byte", False),
        ("eval/glm_pretrain/loss/span", False),
        ("eval/glm_pretrain/accuracy/span", True),
    ],
)
def test_the_best_is_what_the_metric_says(metric, is_highest):
    assert TrainConfig(best_metric=metric).best_is_highest == is_highest
    # Or what the user says.
    assert TrainConfig(best_metric=metric, best_is="highest").best_is_highest
    assert not TrainConfig(best_metric=metric, best_is="lowest").best_is_highest


def test_a_task_and_its_metric():
    assert task_and_metric("eval/reviews/accuracy/span") == ("reviews", "accuracy/span")
    assert [task_and_metric(name) for name in ("loss", "eval/loss/span", "eval/x", "eval")] == [
        None
    ] * 4


def test_one_axis_at_most_takes_what_is_left():
    assert MeshConfig(data=1, fsdp=-1).fsdp == -1
    with pytest.raises(UserError, match=r"at most one axis of mesh may be -1; got .*'fsdp': -1"):
        MeshConfig(fsdp=-1)  # data is -1 already


def test_the_default_optimizer_is_the_published_one():
    """GLM's own: AdamW (0.9, 0.98, 1e-6), decay 0.1, gradients of norm 1 at most."""
    default = OptimizerConfig()
    assert (default.beta1, default.beta2, default.epsilon) == (0.9, 0.98, 1e-6)
    assert (default.weight_decay, default.clip_norm) == (0.1, 1.0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_reduction_of_the_loss_can_be_asked_for(reduction):
    assert TrainConfig(loss_reduction=reduction).loss_reduction == reduction
    with pytest.raises(UserError) as refused:
        TrainConfig(loss_reduction="?")
    assert f"one of {list(REDUCTIONS)};" in str(refused.value)


def test_limits_of_metrics():
    assert TrainConfig().limits == {}
    asked = TrainConfig(stop_above="kl/k2=20, length/chosen = 1e3")
    assert asked.limits == {"kl/k2": 20.0, "length/chosen": 1000.0}
    for wrong in ("kl/k2", "=3", "kl/k2=x", "kl/k2=nan", "a=1,"):
        with pytest.raises(
            UserError, match=r"train\.stop_above must be metrics with a number each"
        ):
            TrainConfig(stop_above=wrong)
