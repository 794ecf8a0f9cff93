import pytest

from glm_jax.generation.suggested import suggested
from glm_jax.interop.origin import Origin


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ({"temperature": 0.8}, {}),
        ({"do_sample": False, "temperature": 0.8}, {}),
        ({"do_sample": 1, "temperature": 0.8}, {}),
        (
            {"do_sample": True, "temperature": 0.8, "top_p": 0.7, "eos_token_id": 2},
            {"temperature": 0.8, "top_p": 0.7},
        ),
        ({"do_sample": True, "temperature": None, "top_k": 50, "top_p": True}, {"top_k": 50}),
    ],
)
def test_options_count_where_the_checkpoint_samples(values, expected):
    assert suggested(Origin(generation=values)) == expected
