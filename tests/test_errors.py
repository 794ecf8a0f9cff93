"""Tests of glm_jax.errors."""

from glm_jax.errors import UserError, did_you_mean


def test_nearest_name_is_offered():
    assert did_you_mean("num_layer", ["num_heads", "num_layers"]) == " (did you mean 'num_layers'?)"


def test_nothing_is_offered_when_nothing_is_near():
    assert did_you_mean("zebra", ["num_heads", "num_layers"]) == ""


def test_user_errors_are_value_errors():
    assert issubclass(UserError, ValueError)
