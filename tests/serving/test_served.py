import pytest

from glm_jax.errors import UserError
from glm_jax.serving.served import RequestLimits


@pytest.mark.parametrize(
    ("name", "value"),
    [("body_bytes", 0), ("rows", 0), ("candidates", -1), ("new_tokens", 0), ("seconds", 0.0)],
)
def test_a_limit_that_allows_nothing_is_refused_by_name(name, value):
    with pytest.raises(UserError, match=name):
        RequestLimits(**{name: value})


def test_new_tokens_may_be_left_to_the_context():
    assert RequestLimits().new_tokens is None
