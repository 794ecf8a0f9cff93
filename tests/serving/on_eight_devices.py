"""Run by test_scheduler.py in a process of its own: rows on a mesh of eight devices say what they
say on one, step by step in changing company, and nothing is compiled for them.

python on_eight_devices.py            a causal model on one mesh
python on_eight_devices.py every      further meshes, and a model that fills blanks
"""

import os
import sys

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import threading

import jax
import numpy as np

from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
from glm_jax.generation.cache import cache_parts
from glm_jax.generation.language_model import LanguageModel
from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.sampling import Sampling
from glm_jax.models.params import create_params
from glm_jax.serving.asking import Ask, Chosen, Echoed, Ended
from glm_jax.serving.memory import row_bytes
from glm_jax.serving.scheduler import Scheduler
from glm_jax.sharding.mesh import make_mesh

SHAPE = {"vocab_size": 64, "num_layers": 2, "embed_dim": 32, "num_heads": 4, "dropout_rate": 0.0}
SHAPE |= {"attention_dropout_rate": 0.0, "initializer_range": 0.3}
FILLS = ModelConfig(**SHAPE, max_positions=64).resolved(ComputeConfig(scan_layers=False))
# ChatGLM2's parts: two key heads, which a tensor axis of four cannot split.
CAUSAL = ModelConfig(
    **SHAPE,
    num_kv_heads=2,
    activation="swiglu",
    norm="rms_norm",
    tied_embeddings=False,
    position_encoding="rotary",
    max_positions=128,
).resolved(ComputeConfig(scan_layers=False))
HOWS = (Sampling(), Sampling(1.0, top_k=9, top_p=0.9, seed=3), Sampling(repetition_penalty=1.5))


COMPILED = []


def compiles(name, seconds, **others):
    if name == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(seconds)


def asks(config):
    """Eleven rows, with scores, echoes and a prompt that begins as another does."""
    random = np.random.default_rng(0)
    ids = [random.integers(7, 64, length).tolist() for length in (1, 5, 20, 33, 9, 2, 3, 40, 7, 6)]
    found = []
    for number, row in enumerate([*ids, ids[3]]):
        blanks = [0, len(row) // 2] if config.fills_blanks else []
        prompt = Prompt(row, Limits([6], 9), HOWS[number % 3], blanks, 5)
        echo = number % 4 == 3 and not config.fills_blanks
        found.append(Ask(prompt, 3 if number % 2 else None, echo))
    return found


def told(config, mesh, **sizes):
    """What each row is told, in order."""
    model = LanguageModel(config, create_params(config, mesh, seed=0))
    scheduler = Scheduler(model, slots=4, context=64, width=16, **sizes)
    held = jax.tree.leaves([(one.keys, one.values) for one in scheduler._batch._slots.caches])
    on_one = sum(leaf.addressable_shards[0].data.nbytes for leaf in held)
    counted = 4 * row_bytes(config, 64) // cache_parts(config, mesh.shape["tensor"])
    # A sequence axis splits them too, which is not counted on.
    assert on_one == counted if mesh.shape["sequence"] == 1 else on_one < counted
    rows = asks(config)
    events, done = [[] for _ in rows], threading.Semaphore(0)

    def take(index, event):
        events[index].append(event)
        if isinstance(event, Ended):
            done.release()

    ready = threading.Event()
    scheduler.start(on_ready=lambda seconds: ready.set())
    assert ready.wait(600)
    COMPILED.clear()
    scheduler.submit(rows, take)
    assert all(done.acquire(timeout=300) for _ in rows)
    assert not COMPILED, f"{len(COMPILED)} programs compiled under load"
    assert scheduler.counts().state == "ready"
    scheduler.close()
    return events


def same(found, expected):
    """Ids, reasons and what was reused are equal; log-probabilities to the rounding."""
    for ours, theirs in zip(found, expected, strict=True):
        assert [type(one) for one in ours] == [type(one) for one in theirs], (ours, theirs)
        for one, other in zip(ours, theirs, strict=True):
            if isinstance(one, Ended):
                assert one == other
                continue
            if isinstance(one, Chosen):
                assert (one.id, one.answer, one.ends) == (other.id, other.answer, other.ends)
            scores = zip(
                one.scores if isinstance(one, Echoed) else [one.scored],
                other.scores if isinstance(other, Echoed) else [other.scored],
                strict=True,
            )
            for score, wanted in scores:
                assert (score is None) == (wanted is None)
                if score is not None:
                    difference = abs(score.log_probability - wanted.log_probability)
                    assert difference < 2e-5, difference


def main():
    jax.monitoring.register_event_duration_secs_listener(compiles)
    one = make_mesh(MeshConfig(), jax.devices()[:1])
    runs = [(CAUSAL, {}, [(1, 2, 4, 1)])]
    if sys.argv[1:] == ["every"]:
        runs = [
            (CAUSAL, {}, [(2, 2, 2, 1), (1, 4, 1, 2)]),
            (FILLS, {"blanks": 2}, [(2, 2, 2, 1)]),
        ]
    for config, sizes, each in runs:
        expected = told(config, one, **sizes)
        ended = [events[-1].reason for events in expected]
        assert set(ended) <= {"end", "length"}, ended
        assert max(len(events) for events in expected) > 9
        for axes in each:
            same(told(config, make_mesh(MeshConfig(*axes)), **sizes), expected)
            kind = "fills" if config.fills_blanks else "causal"
            print(kind, "x".join(map(str, axes)), flush=True)


if __name__ == "__main__":
    main()
