"""A tiny run: rows that are a function of their number, and a config that trains in a second."""

import dataclasses

import jax
import numpy as np
import pytest

from glm_jax.batch import DOCUMENT, SPAN, Batch
from glm_jax.config import Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainConfig
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=1, gmask=2, smask=3, start=4, end=5, cls=6, eos=7, pad=0)
VOCAB, LENGTH, ROWS = 32, 24, 4


def make_row(number):
    """One text with one blank: part A, the mask in it, and a span of four with its end."""
    random = np.random.default_rng(number)
    text = random.integers(8, VOCAB, LENGTH - 6)
    objective = SPAN if number % 2 else DOCUMENT
    blank = int(random.integers(1, LENGTH - 10))
    span = text[blank : blank + 4]
    part_a = [SPECIAL.cls, *text[:blank], SPECIAL.mask, *text[blank + 4 :]]
    prefix = len(part_a)
    used = prefix + 5
    row = {name: np.zeros(LENGTH, np.int32) for name in Batch.__dataclass_fields__}
    row["loss_weights"] = np.zeros(LENGTH, np.float32)
    row["tokens"][:used] = [*part_a, SPECIAL.start, *span]
    row["targets"][:used] = [*part_a, *span, SPECIAL.end]
    row["loss_weights"][prefix:used] = 1.0
    row["objective"][prefix:used] = objective
    row["positions"][:used] = [*range(prefix), *[blank + 1] * 5]
    row["block_positions"][prefix:used] = range(1, 6)
    row["attend_end"][:used] = np.maximum(prefix, np.arange(1, used + 1))
    return row


class Stream:
    """Stands for a `RowStream`: the same interface over `make_row`."""

    def __init__(self, first=0, shard_index=0, num_shards=1, rows=ROWS):
        self.num_rows = 64
        self.statistics, self.data = {}, {}
        self._next, self._first, self._rows = 0, first, rows
        self._shard = (shard_index, num_shards)

    def __next__(self):
        start = self._first + self._next * self._rows
        rows = [make_row(start + i) for i in range(self._rows)]
        index, count = self._shard
        share = self._rows // count
        rows = rows[index * share : (index + 1) * share]
        batch = Batch(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})
        self._next += 1
        counted = {"rows": len(rows), "places_used": int((batch.attend_end > 0).sum())}
        for name, value in {**counted, "rows_fewer_spans": 0}.items():
            self.statistics[name] = self.statistics.get(name, 0) + value
        return batch

    def __iter__(self):
        return self

    def get_state(self):
        return str(self._next).encode()

    def set_state(self, state):
        self._next = int(state)

    def close(self):
        pass


@pytest.fixture(autouse=True, scope="session")
def _compile_once(tmp_path_factory):
    """Programs that several tests build anew are compiled once a session."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture
def stream():
    return Stream


@pytest.fixture
def batch():
    return next(Stream())


@pytest.fixture
def open_batches():
    def batches(split, shard_index, num_shards):
        return Stream(0 if split == "train" else 10_000, shard_index, num_shards)

    return batches


def tiny_config():
    return Config(
        model=ModelConfig(
            vocab_size=VOCAB, num_layers=2, embed_dim=16, num_heads=2, max_positions=LENGTH
        ),
        data=DataConfig(sequence_length=LENGTH, batch_size=ROWS),
        optimizer=OptimizerConfig(peak_learning_rate=1e-2, warmup_steps=2),
        train=TrainConfig(
            num_steps=6, log_every=1, eval_every=3, eval_batches=2, checkpoint_every=2
        ),
        mesh=MeshConfig(),
    )


def change_fields(config, **sections):
    """change_fields(config, train={"num_steps": 3}) -> a copy with these fields changed."""
    new = {k: dataclasses.replace(getattr(config, k), **v) for k, v in sections.items()}
    return dataclasses.replace(config, **new)


@pytest.fixture
def config():
    return tiny_config()


@pytest.fixture
def change():
    """change(config, "train.num_steps", 3) -> a copy with one field changed."""

    def changed(config, name, value):
        section, key = name.split(".")
        return change_fields(config, **{section: {key: value}})

    return changed


class LetterTokenizer:
    """Stands for a tokenizer: every id is one letter."""

    vocab_size = VOCAB
    special = SPECIAL
    fingerprint = "letters"
    chat_end_ids = ()

    def decode(self, ids, skip_special=False):
        return "".join(chr(ord("a") + i) if i >= 8 else f"<{i}>" for i in ids)

    def save(self, directory):
        (directory / "tokenizer.model").write_text("letters")


@pytest.fixture
def tokenizer():
    return LetterTokenizer()
