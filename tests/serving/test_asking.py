import pickle

from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.sampling import Sampling
from glm_jax.serving.asking import Ask, Chosen, Ended, FullError, Scored


def test_what_crosses_the_border_holds_plain_values_alone():
    ask = Ask(Prompt([3, 4], Limits([2], 8), Sampling()), alternatives=2, deadline=1.5)
    scored = Scored(7, -0.5, ((7, -0.5), (9, -1.5)))
    for one in (ask, Chosen(7, scored=scored), Ended("end", reused=4)):
        assert pickle.loads(pickle.dumps(one)) == one


def test_a_full_queue_says_when_to_come_back():
    error = FullError(2.6)
    assert error.retry_after == 2.6
    assert str(error) == "too many requests wait; try again in 3 s"
