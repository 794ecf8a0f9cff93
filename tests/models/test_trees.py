"""Parameters as a nested dict: paths, layouts, parts."""

import re

import pytest

from glm_jax.errors import UserError
from glm_jax.models.trees import (
    join_params,
    split_params,
    stack_layers,
    to_paths,
    unstack_layers,
)
from tests.models.twelve_layers import same


def test_converters_are_inverse_and_leave_the_other_form_alone(params):
    stacked = stack_layers(params)
    assert stacked["layers"]["mlp"]["up"]["kernel"].shape == (12, 32, 128)
    assert same(unstack_layers(stacked), params)
    assert stack_layers(stacked) is stacked
    assert unstack_layers(params) is params


@pytest.mark.parametrize("chosen", ["layers/mlp/.*", "embedding/table", ".*bias", None])
def test_parameters_are_split_by_their_names_in_both_layouts(params, chosen):
    for tree in (params, stack_layers(params)):
        first, second = split_params(tree, chosen)
        assert same(join_params(first, second), tree)
    names = {re.sub(r"/\d+/", "/", name) for name in to_paths(split_params(params, chosen)[0])}
    assert names == set(to_paths(first))
    if chosen == "layers/mlp/.*":
        assert names == {f"layers/mlp/{x}/{y}" for x in ("up", "down") for y in ("kernel", "bias")}
    if chosen is None:
        assert second == {}


@pytest.mark.parametrize("chosen", ["embedding/table", "layers/mlp/up/kernel"])
def test_a_part_of_the_parameters_changes_its_layout_too(params, chosen):
    part, _ = split_params(params, chosen)
    stacked, _ = split_params(stack_layers(params), chosen)
    assert same(stack_layers(part), stacked)
    assert same(unstack_layers(stacked), part)


def test_a_choice_of_nothing_names_what_there_is(params):
    with pytest.raises(
        UserError, match=r"train\.trainable='layers/mlp' matches no parameter.*mlp/up"
    ):
        split_params(params, "layers/mlp")
