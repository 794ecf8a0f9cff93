import pytest

from glm_jax.config import from_dict, to_dict
from glm_jax.errors import UserError
from glm_jax.training.run.extension import adopted, extended, extends


def longer(change, config, steps):
    return change(config, "train.num_steps", steps)


def test_an_extension_is_recorded(config, change):
    new = extended(longer(change, config, 9), config, 4)
    assert new.optimizer.extended == ((4, 6),)
    assert extends(new, config)
    # The same command again, and one more; a record read back is the same.
    assert extended(longer(change, config, 9), new, 7) == new
    again = extended(longer(change, config, 12), from_dict(to_dict(new)), 9)
    assert again.optimizer.extended == ((4, 6), (9, 9))
    assert extends(again, new)
    assert not extends(again, config)


def test_the_record_is_the_runs(config, change):
    new = extended(longer(change, config, 9), config, 4)
    assert adopted(longer(change, config, 9), new) == new
    assert adopted(config, None) == adopted(config, config) == config
    assert not extends(longer(change, config, 9), config)


def test_what_extends_nothing(config, change):
    with pytest.raises(UserError, match="holds none"):
        extended(longer(change, config, 9), None, 0)
    with pytest.raises(UserError, match="holds none"):
        extended(longer(change, config, 9), config, 0)
    for steps in (5, 6):
        with pytest.raises(UserError, match=f"above the 6 that the run has; got {steps}"):
            extended(longer(change, config, steps), config, 6)


def test_where_no_rate_depends_on_it_there_is_nothing_to_record(config, change):
    config = change(config, "optimizer.schedule", "constant")
    new = extended(longer(change, config, 9), config, 6)
    assert new.optimizer.extended is None
    assert extended(new, new, 6) == new  # the same command again
