import json

import numpy as np
import pytest

from glm_jax.config import Config, DataConfig, ModelConfig
from glm_jax.config.examples import ExamplesConfig
from glm_jax.errors import UserError
from glm_jax.pipeline.batches import source

seqio = pytest.importorskip("seqio")
pytest.importorskip("glm_jax.tasks")
examples = pytest.importorskip("glm_jax.tasks.examples")

pytestmark = pytest.mark.tensorflow

T = 48


def config_of(path, **options):
    return Config(
        ModelConfig(vocab_size=7168, num_layers=1, embed_dim=8, num_heads=2),
        DataConfig(source=str(path), sequence_length=T, batch_size=2, eval_fraction=0.3),
        examples=ExamplesConfig(packed=False, **options),
    )


def rows(task, split="train"):
    dataset = task.get_dataset({"tokens": T}, split=split, shuffle=False)
    return list(dataset.as_numpy_iterator())


def keys(found):
    """Rows without their order: SeqIO's is that of the files, the store's is drawn."""
    return sorted(
        tuple(np.concatenate([np.asarray(row[name], np.float64) for name in sorted(row)]))
        for row in found
    )


def of_the_store(config, split):
    builder = source(config, split).builders[0]
    count = np.arange(builder.num_rows)
    fields = builder.build(np.zeros_like(count), count)[0].to_dict()
    return [{name: value[i] for name, value in fields.items()} for i in count]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_rows_are_those_of_the_store(tmp_path, monkeypatch, split):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "clozes.jsonl"
    lines = [
        {"text": f"The day number {n} was long.", "label": ["good", "bad"][n % 2]}
        for n in range(20)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = {"good": "great", "bad": "a waste of time"}
    options = {"pattern": "{text} It was [MASK].", "verbalizers": words}
    config = config_of(path, format="cloze", **options)
    found = rows(examples.examples_task(config), split)
    assert len(found) > 3
    assert keys(found) == keys(of_the_store(config, split))


def test_sources_and_targets_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.source").write_text("".join(f"number {n}\n" for n in range(10)))
    (tmp_path / "a.target").write_text("".join(f"it is {n}\n" for n in range(10)))
    config = config_of(tmp_path / "a.source", format="seq2seq")
    for _ in range(2):
        examples.register_glm_examples(config, "sources")
    found = rows(seqio.get_mixture_or_task("sources"))
    assert keys(found) == keys(of_the_store(config, "train"))


def test_texts_have_a_task_of_their_own():
    with pytest.raises(UserError, match=r"needs examples.format; it is None"):
        examples.examples_task(Config())
