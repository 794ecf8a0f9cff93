"""The section `data` of a config: where text comes from and the shape of a Batch."""

import dataclasses
from collections.abc import Mapping, Sequence

from glm_jax.checks import check, check_types, whole_number
from glm_jax.config.mixture import Component, read_mixture

# More slots per row or rows per batch are a mistake: one array of ids would fill 64 MiB or more.
_LARGEST = 2**24
_SOURCES = "'bundled', a glob of files, 'tfds:NAME:VERSION' or 'task:NAME'"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where text comes from and the shape of a Batch.

    Attributes:
      source: "bundled" (the corpus in the package; "bundled:en", "bundled:zh": one language of it),
        or a glob of files: "my/*.txt" (UTF-8, an empty line ends a document), "my/*.jsonl" (one
        JSON object per line, its text under `text_field`),
        "my/*.tfrecord*" (tf.train.Example, its text under `text_field`); or
        "tfds:NAME:VERSION" (a dataset of TensorFlow Datasets), or "task:NAME" (a registered SeqIO
        task or mixture that gives texts or ids).
      mixture: several sources instead of `source`, each with its share of the rows:
        {"wiki": ("wiki/*.txt", 0.7), "books": ("books/*.jsonl", 0.3)}, or as a string
        "wiki=wiki/*.txt@0.7, books=books/*.jsonl@0.3". Rates are relative. Stored as a tuple of
        (name, source, rate).
      text_field: key of the text in JSON lines, in tf.train.Examples, and in the examples of a
        dataset or a task.
      tokenizer: "bundled", or the path of a sentencepiece model, of a vocabulary of ChatGLM or
        GLM-4 or of a tokenizer.json, or of a directory that holds one.
      sequence_length: T, slots in a row of a Batch: part A and part B together.
      batch_size: B, rows per step over all hosts.
      eval_fraction: share of the documents held out as the split "eval"; a document's split
        depends only on its text.
      store: directory of the token store; None: a directory under the cache (`GLM_JAX_CACHE`, else
        the user's cache directory), named after the corpus, the tokenizer and these settings. For a
        mixture, the directory that holds one store per source, under the source's name. One in a
        bucket, gs://BUCKET/NAME, is copied to the cache first, once.
      tfds_data_dir: directory of "tfds:" sources; None: TensorFlow Datasets' own default.
      task_module: a Python module to import, which registers the tasks of "task:" sources.
      seqio_cache_dir: output of `seqio_cache_tasks`; "task:" sources found in it are read from it.
    """

    source: str = "bundled"
    mixture: str | Mapping[str, object] | Sequence[object] | None = None
    text_field: str = "text"
    tokenizer: str = "bundled"
    sequence_length: int = 512
    batch_size: int = 32
    eval_fraction: float = 0.02
    store: str | None = None
    tfds_data_dir: str | None = None
    task_module: str | None = None
    seqio_cache_dir: str | None = None

    def __post_init__(self):
        check_types(self, "data")
        check(self.source not in ("", "tfds:", "task:"), "data.source", self.source, _SOURCES)
        whole_number("data.sequence_length", self.sequence_length, 16, _LARGEST)
        whole_number("data.batch_size", self.batch_size, 1, _LARGEST)
        check(
            0.0 < self.eval_fraction < 1.0,
            "data.eval_fraction",
            self.eval_fraction,
            "above 0 and below 1",
        )
        if self.mixture is not None:
            mixture = tuple(dataclasses.astuple(part) for part in read_mixture(self.mixture))
            object.__setattr__(self, "mixture", mixture or None)

    @property
    def components(self) -> tuple[Component, ...]:
        """The sources of the mixture; empty if there is only `source`."""
        return () if self.mixture is None else tuple(read_mixture(self.mixture))
