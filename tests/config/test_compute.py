"""The section `compute`: its choices are those that the code has."""

import pytest

from glm_jax.attention.dispatch import BACKENDS
from glm_jax.config import ComputeConfig
from glm_jax.errors import UserError
from glm_jax.models.remat import POLICIES


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("dtype", {"float32", "bfloat16"}),
        ("remat", {"none", *POLICIES}),
        ("attention_backend", {"auto", *BACKENDS}),
    ],
)
def test_what_is_allowed_is_what_there_is(name, allowed):
    for value in allowed:
        assert getattr(ComputeConfig(**{name: value}), name) == value
    with pytest.raises(UserError, match=rf"compute\.{name} must be one of") as error:
        ComputeConfig(**{name: "?"})
    listed = str(error.value).split("[")[1].split("]")[0]
    assert {word.strip().strip("'") for word in listed.split(",")} == allowed


def test_float16_is_not_computed_in():
    with pytest.raises(UserError, match=r"compute\.dtype must be one of .*; got 'float16'"):
        ComputeConfig(dtype="float16")
