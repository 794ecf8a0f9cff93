import pytest

from glm_jax.config import Config, field_types
from glm_jax.config.names import _OTHER_NAMES, suggestion

NAMES = [
    f"{section}.{key}"
    for section in Config.__dataclass_fields__
    for key in field_types(getattr(Config(), section))
]


def test_every_other_name_means_a_name_that_there_is_and_means_one():
    assert set(_OTHER_NAMES) <= set(NAMES)
    others = [other for names in _OTHER_NAMES.values() for other in names.split()]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("model.layers", "model.num_layers"),
        ("model.num_layer", "model.num_layers"),
        ("modle.num_layers", "model.num_layers"),
        ("train.lr", "optimizer.peak_learning_rate"),
        ("lr", "optimizer.peak_learning_rate"),
        ("optimizer.learning-rate", "optimizer.peak_learning_rate"),
        ("train.batch_size", "data.batch_size"),
        ("bs", "data.batch_size"),
        ("model.hidden_size", "model.embed_dim"),
        ("d_model", "model.embed_dim"),
        ("heads", "model.num_heads"),
        ("seq_len", "data.sequence_length"),
        ("steps", "train.num_steps"),
        ("train.warmup", "optimizer.warmup_steps"),
    ],
)
def test_what_was_meant(wrong, right):
    assert suggestion(wrong, NAMES) == f" (did you mean {right!r}?)"


def test_epochs_are_counted_in_steps_here():
    assert suggestion("train.epochs", NAMES).startswith(
        " (did you mean 'train.num_steps'? It count"
    )


def test_no_guess_where_nothing_is_near():
    assert suggestion("foo.bar", NAMES) == ""
