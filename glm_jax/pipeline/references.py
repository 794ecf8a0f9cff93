"""The reference of losses over pairs: the model that a run begins with, asked once.

Its log-probabilities of all pairs are computed before the first step and kept beside the store of
examples, STORE.reference/KEY, where KEY tells the model and the examples. So training holds no
second model, and runs with other settings (beta, learning rate, adapters) share them.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from glm_jax.adapters.fingerprint import fingerprint, shortened
from glm_jax.batch import Batch
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.config import Config
from glm_jax.data.documents import SPLITS
from glm_jax.data.examples.reference import (
    MadeOf,
    ReferenceStore,
    ReferenceWriter,
    is_there,
)
from glm_jax.data.examples.rows import ExampleRowBuilder
from glm_jax.data.examples.store import ExampleStore
from glm_jax.errors import UserError
from glm_jax.losses.pairs import log_probabilities
from glm_jax.models.params import bind
from glm_jax.models.trees import Params
from glm_jax.paths import expanded
from glm_jax.pipeline.examples import directory, opened
from glm_jax.sharding.mesh import batch_sharding, replicated
from glm_jax.training.defaults import for_devices
from glm_jax.training.distributed import largest_of, on_first, require_same, share, wait_for_all
from glm_jax.training.feed import to_devices
from glm_jax.training.run.workdir import read_record
from glm_jax.training.watch.progress import say

# Batches between two parts that are written.
_BATCHES_OF_A_PART = 32


def with_reference(config: Config, workdir: Path, mesh: Mesh, params: Params | None) -> Config:
    """The config with the directory of the reference's log-probabilities, which are there then.

    A loss that compares with no reference leaves the config as it is. All processes call it.

    Args:
      config: of the run, as `starting_point` gives it.
      workdir: of the run; one that was begun goes on with what it began with.
      mesh: of the run.
      params: that the run begins with, as `starting_point` gives them.

    Raises:
      UserError: the run begins with no model, or `preferences.reference` is of another.
    """
    if not config.has_reference:
        return config
    if config.train.init_from is None:
        raise UserError(
            f"train.loss={config.train.loss!r} compares with the model that a run begins with: set "
            "train.init_from, or preferences.reference_free=True"
        )
    place = config.preferences.reference
    if saved_steps(workdir / "checkpoints") and (record := read_record(workdir)) is not None:
        place = place or record.preferences.reference
    if params is None:
        return _with_place(config, _of_begun_run(place, workdir))
    store = opened(config)
    made_of = MadeOf(
        model=shortened(fingerprint(params)),
        examples=store.fingerprint,
        sequence_length=config.data.sequence_length,
        dtype=config.compute.dtype,
    )
    require_same({"the reference, or the examples": made_of.fingerprint})
    where = _beside(config, made_of) if place is None else expanded(place)
    if largest_of(on_first(lambda: int(not is_there(where)), "look for the reference") or 0):
        _compute(config, mesh, params, store, where, made_of)
    if not is_there(where):
        raise UserError(
            f"the reference's log-probabilities in {str(where)!r} are not seen by process "
            f"{share()[0]}; put data.store, or preferences.reference, on a disk that all see"
        )
    ReferenceStore.open(where).check(made_of)
    return _with_place(config, where)


def _of_begun_run(place: str | None, workdir: Path) -> Path:
    """Where the log-probabilities are of a run whose first parameters are not at hand."""
    if place is None or not is_there(expanded(place)):
        raise UserError(
            f"the reference's log-probabilities that the run in {str(workdir)!r} began with are "
            f"gone from {str(place)!r}; put them back, or begin again in another workdir"
        )
    return expanded(place)


def _with_place(config: Config, place: Path) -> Config:
    settings = dataclasses.replace(config.preferences, reference=str(place))
    return dataclasses.replace(config, preferences=settings)


def _beside(config: Config, made_of: MadeOf) -> Path:
    store = directory(config)
    return store.with_name(f"{store.name}.reference") / made_of.fingerprint[:16]


def _compute(
    config: Config, mesh: Mesh, params: Params, store: ExampleStore, place: Path, made_of: MadeOf
) -> None:
    """Computes the log-probabilities of all pairs that rows hold; the first process writes."""
    writer = on_first(lambda: ReferenceWriter(place, made_of), "write the reference")
    computed = _Computed(for_devices(config, mesh), mesh, params, writer)
    wait_for_all()
    for split in SPLITS:
        length, seed = config.data.sequence_length, config.train.seed
        rows = ExampleRowBuilder(split, store, length, False, seed, config.examples.sharing)
        computed.rows_of(split, rows)

    def close() -> None:
        assert writer is not None  # on the first process
        writer.close({name: len(examples.tokens) for name, examples in store.splits.items()})

    on_first(close, "write the reference")


class _Computed:
    """Computes and writes the log-probabilities of splits, from where an earlier start ended."""

    def __init__(self, config: Config, mesh: Mesh, params: Params, writer: ReferenceWriter | None):
        """`writer` is None on all but the first process."""
        self._size = config.data.batch_size // config.train.accumulation_steps
        self._sharding, self._params, self._writer = batch_sharding(mesh), params, writer

        def score(params: Params, batch: Batch) -> jax.Array:
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                model = bind(config.resolved_model, params)
                found = log_probabilities(config.train, mesh, model, batch)
            return jnp.where(batch.loss_weights > 0, found, 0.0)

        self._score = jax.jit(score, out_shardings=replicated(mesh))

    def rows_of(self, split: str, rows: ExampleRowBuilder) -> None:
        """All rows of a split."""
        first = largest_of(self._writer.rows_done(split) if self._writer is not None else 0)
        while first < rows.num_rows:
            end = min(first + _BATCHES_OF_A_PART * self._size, rows.num_rows)
            self._part(split, rows, first, end)
            say(f"reference   {split}: {end:,} of {rows.num_rows:,} pairs")
            first = end

    def _part(self, split: str, rows: ExampleRowBuilder, first: int, end: int) -> None:
        tokens, found = [], []
        for start in range(first, end, self._size):
            numbers = np.arange(start, start + self._size)
            # Rows beyond the last are all padding.
            numbers = np.where(numbers < end, numbers, rows.num_rows)
            scored = np.asarray(self._score(self._params, self._batch(rows, numbers)))
            token = rows.tokens_of(numbers)
            tokens.append(token[token >= 0])
            found.append(scored[token >= 0])
        index, values = np.concatenate(tokens), np.concatenate(found)
        if not np.isfinite(values).all():
            raise UserError(
                f"the reference gives log-probabilities that are not finite in the rows {first} to "
                f"{end - 1} of the split {split!r}; is train.init_from a trained model?"
            )

        def write() -> None:
            assert self._writer is not None  # on the first process
            self._writer.add(split, first, end, index, values)

        on_first(write, "write the reference")

    def _batch(self, rows: ExampleRowBuilder, numbers: np.ndarray) -> Batch:
        """The global batch of rows, of which each process makes its share."""
        own, processes = share()
        numbers = np.split(numbers, processes)[own]
        return to_devices(rows.build(np.zeros_like(numbers), numbers)[0], self._sharding)
