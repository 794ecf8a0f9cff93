from glm_jax.training.watch.tasks import Answers, Tasks, Watched


class Counting:
    fingerprint = "f"

    def __call__(self, params):
        return Answers({"eval/count/steps": float(params)}, "count", "")


def test_what_can_be_asked_is_a_task():
    assert isinstance(Counting(), Tasks)
    assert not isinstance("a name", Tasks)
    assert Watched().tasks is None
    assert Watched(tasks=Counting()).tasks(3).values == {"eval/count/steps": 3.0}
