"""`seqio.Evaluator` on rows of a small corpus."""

import numpy as np
import pytest

from glm_jax.batch import NUM_OBJECTIVES
from glm_jax.config import Config, DataConfig
from glm_jax.errors import UserError
from glm_jax.losses.scores import SUMS

seqio = pytest.importorskip("seqio")
tasks = pytest.importorskip("glm_jax.tasks")
from glm_jax.tasks.evaluation import evaluate_task  # noqa: E402

pytestmark = pytest.mark.tensorflow
T = 64


@pytest.fixture(scope="module", autouse=True)
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "small.txt"
    path.write_text("\n\n".join(f"the light of day {n} was good, and so on" for n in range(80)))
    config = Config(data=DataConfig(source=str(path), eval_fraction=0.4))
    yield tasks.register_glm_pretrain(config, "e_pretrain")
    seqio.TaskRegistry.remove("e_pretrain")


def score(batch):
    """A loss of 2 at each target; those with an even id are right."""
    present = batch.loss_weights > 0
    member = (batch.objective[..., None] == np.arange(NUM_OBJECTIVES)) & present[..., None]
    count = member.sum(1).astype(float)
    correct = (member & (batch.targets % 2 == 0)[..., None]).sum(1)
    losses = 2.0 * count
    return dict(zip(SUMS, (losses, count, correct, losses, count), strict=True))


def test_the_evaluator_gives_means_by_objective(task):
    found = evaluate_task("e_pretrain", score, length=T, batch_size=4)
    rows = list(task.get_dataset({"tokens": T}, "eval", shuffle=False, seed=42).as_numpy_iterator())
    targets = np.concatenate([row["targets"][row["loss_weights"] > 0] for row in rows])
    assert list(found) == ["e_pretrain"]
    metrics = found["e_pretrain"]
    assert metrics["loss"] == metrics["loss/span"] == 2.0
    assert metrics["targets"] == len(targets) > 20
    assert metrics["perplexity/span"] == pytest.approx(np.exp(2.0))
    assert metrics["accuracy/span"] == pytest.approx((targets % 2 == 0).mean())
    few = evaluate_task("e_pretrain", score, length=T, batch_size=4, num_examples=1)
    assert few["e_pretrain"]["targets"] < metrics["targets"]


def test_mistakes():
    with pytest.raises(UserError, match="no SeqIO task 'e_pretrian' is registered"):
        evaluate_task("e_pretrian", score, length=T, batch_size=4)
    with pytest.raises(UserError, match="must have the split 'test'"):
        evaluate_task("e_pretrain", score, length=T, batch_size=4, split="test")
