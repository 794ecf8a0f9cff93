"""The checks of a workdir before anything is written, and the record of its run.

WORKDIR/run.json        the whole config, and the format of the rows (`row_format`)
        tokenizer.model
        metrics.jsonl   one JSON object per line
        goodput.jsonl   where the time went, see `glm_jax.training.watch.goodput_log`
        loss.png
        samples.txt     filled blanks beside the original text
        answers.txt     what the model answers in the tasks of `train.eval_tasks`
        data.json       what the data was made from, see `glm_jax.data.record`
        unigram.npz     how often each id is a target, see `glm_jax.training.unigram`
        checkpoints/
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path

from jax.sharding import Mesh

from glm_jax.adapters.held import split_held
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.config import Config, differences, to_dict
from glm_jax.config.examples import OF_FILES
from glm_jax.config.files import read_run
from glm_jax.data.record import keep_tokenizer, read_data
from glm_jax.data.rows import ROW_FORMAT
from glm_jax.errors import UserError
from glm_jax.files import write_whole
from glm_jax.losses.registry import loss_of
from glm_jax.sharding.mesh import row_groups, slot_groups
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.training.run.extension import extends
from glm_jax.training.state import held_params

FILES = (
    "run.json",
    "metrics.jsonl",
    "goodput.jsonl",
    "goodput.png",
    "samples.txt",
    "answers.txt",
    "loss.png",
    "data.json",
    "unigram.npz",
    "skipped.json",
    "wandb.json",
)
DIRECTORIES = ("checkpoints", "rewound", "tensorboard", "wandb", "profile")

# Fields that may differ when a run is resumed: how often things happen and where arrays are, but
# nothing that changes what is computed.
MAY_CHANGE = {
    "compute.attention_backend",
    "compute.remat",
    "compute.scan_layers",
    "data.store",
    "preferences.reference",
    "mesh.data",
    "mesh.fsdp",
    "mesh.sequence",
    "mesh.tensor",
    "train.accept_data_change",
    "train.best_is",
    "train.best_metric",
    "train.checkpoint_every",
    "train.cross_entropy",
    "train.eval_batches",
    "train.eval_every",
    "train.eval_examples",
    "train.eval_tasks",
    "train.eval_tasks_every",
    "train.keep_best",
    "train.keep_checkpoints",
    "train.keep_freed_memory",
    "train.loss_chunk",
    "train.log_every",
    "train.preemption_deadline",
    "train.sample_every",
    "train.stop_above",
    "train.tensorboard",
    "train.verify_checkpoints",
    "train.wandb",
}

# Fields that name the corpus and the tokenizer; data.json tells whether their content has changed.
_TOLD_BY_CONTENT = {
    "data.source",
    "data.tokenizer",
    "data.tfds_data_dir",
    "data.task_module",
    "data.seqio_cache_dir",
    "examples.pretraining_source",
}
# Other values mean other data, which `train.accept_data_change` allows.
_OTHER_DATA = {
    "data.mixture",
    "data.text_field",
    "data.eval_fraction",
    *(f"examples.{name}" for name in OF_FILES),
}


def check_config(config: Config, mesh: Mesh, vocab_size: int, num_hosts: int = 1) -> None:
    """Refuses a config that would fail, or give wrong results, later on.

    Args:
      config: of the run.
      mesh: its devices.
      vocab_size: ids of the tokenizer.
      num_hosts: processes that share a batch.

    Raises:
      UserError: no such loss, weights, trainable parameters or targets of LoRA; ids or positions
        beyond a table of the model; rows that cannot be divided evenly among devices, hosts and
        micro-batches; or slots that mesh.sequence does not divide.
    """
    model, data = config.model, config.data
    loss_of(config)
    if config.freezes or config.train.weights != "plain":
        split_held(config, held_params(config, mesh))
    rotates_plainly = not (model.has_position_table or model.uses_block_positions)
    if rotates_plainly and config.has_texts and config.objective.causal_rate != 1.0:
        raise UserError(
            f"model.position_encoding={model.position_encoding!r} has no block positions, which "
            "tell the tokens of a span apart; set objective.causal_rate=1 and the other rates to "
            "0, or use 'learned_block' or 'rotary_block'; got "
            f"objective.causal_rate={config.objective.causal_rate:g}"
        )
    if vocab_size > model.vocab_size:
        raise UserError(
            f"model.vocab_size must be at least the tokenizer's {vocab_size}; "
            f"got {model.vocab_size}"
        )
    if (needed := _positions_needed(config)) > model.table_rows:
        raise UserError(
            f"data.sequence_length={data.sequence_length} needs model.max_positions="
            f"{needed} for its positions; got {model.max_positions}, "
            f"a table of {model.table_rows} rows"
        )
    shards = row_groups(mesh)
    count = config.train.accumulation_steps
    devices = f"{shards} devices of the mesh (data x fsdp)"
    for number, name in (
        (shards * count, f"{devices} times {count} micro-batches "),
        (num_hosts, f"{num_hosts} hosts "),
    ):
        if data.batch_size % number:
            raise UserError(
                f"data.batch_size must be a multiple of {number}, for {name}"
                f"(train.accumulation_steps={count}); got {data.batch_size}, "
                f"nearest {max(1, round(data.batch_size / number)) * number}"
            )
    groups = slot_groups(mesh)
    if data.sequence_length % groups:
        raise UserError(
            f"data.sequence_length must be a multiple of mesh.sequence={groups}; got "
            f"{data.sequence_length}, nearest "
            f"{max(1, round(data.sequence_length / groups)) * groups}"
        )


def _positions_needed(config: Config) -> int:
    """The first positions that a segment needs: those of an example begin anew in its row.

    A store of examples of other lengths is refused (`glm_jax.pipeline.examples`).
    """
    length = config.data.sequence_length
    if config.has_texts:
        return config.objective.published.positions_needed(length)
    return min(length, config.examples.longest(config.model.fills_blanks) or length)


def check_files(workdir: Path) -> None:
    """Refuses a workdir with a directory in place of a file, or a file in place of a directory.

    Raises:
      UserError: names the first of them.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"the workdir {str(workdir)!r} is a file")
    for name in FILES:
        if (workdir / name).exists() and not (workdir / name).is_file():
            raise UserError(f"{str(workdir / name)!r} must be a file; move the directory away")
    for name in DIRECTORIES:
        if (workdir / name).exists() and not (workdir / name).is_dir():
            raise UserError(f"{str(workdir / name)!r} must be a directory; move the file away")


def read_record(workdir: Path) -> Config | None:
    """The config in `run.json`; None if there is no such file.

    Raises:
      UserError: the file holds something else, or cannot be read.
    """
    found = _read_record(workdir)
    return None if found is None else found[0]


def _read_record(workdir: Path) -> tuple[Config, Mapping[str, object]] | None:
    """The config in `run.json`, and the whole content of the file."""
    record = workdir / "run.json"
    if not record.exists():
        return None
    return read_run(record)


def check_workdir(workdir: Path, config: Config) -> None:
    """Refuses a workdir that was made with another config.

    `MAY_CHANGE` lists the fields that may differ. `train.num_steps` may differ too, if learning
    rates do not depend on it (a constant schedule, or `optimizer.decay_steps` set) or if the config
    extends the run (`glm_jax.training.run.extension`).

    Raises:
      ValueError: names each field that differs, with both values.
    """
    check_files(workdir)
    found = _read_record(workdir)
    if found is None:
        if saved_steps(workdir / "checkpoints"):
            raise UserError(f"{str(workdir)!r} holds checkpoints but no run.json")
        return
    old, recorded = found
    allowed = set(MAY_CHANGE)
    if not config.optimizer.depends_on_num_steps or extends(config, old):
        allowed |= {"train.num_steps", "optimizer.extended"}
    allowed |= _allowed_data(workdir, old, config)
    differing = {k: v for k, v in differences(old, config).items() if k not in allowed}
    if differing:
        listed = ", ".join(f"{k} was {a!r}, is {b!r}" for k, (a, b) in differing.items())
        hint = ""
        if "train.num_steps" in differing:
            hint += (
                f" (train.num_steps may grow with --extend; this run is at {old.train.num_steps})"
            )
        if not set(differing) - _TOLD_BY_CONTENT - _OTHER_DATA:
            hint += " (train --accept_data_change goes on with other data)"
        raise UserError(
            f"the workdir {str(workdir)!r} was made with another config: {listed}{hint}; "
            "use another workdir"
        )
    row_format = recorded.get("row_format", 1)
    if row_format != ROW_FORMAT and saved_steps(workdir / "checkpoints") and _draws_spans(config):
        raise UserError(
            f"the run in {str(workdir)!r} was trained on rows of format {row_format!r}, this "
            f"version makes format {ROW_FORMAT}, with spans cut elsewhere; finish it with the "
            "version that began it, or go on from its weights in another workdir "
            f"(train.init_from={workdir})"
        )


def _draws_spans(config: Config) -> bool:
    """Whether rows differ between formats 1 and 2: those of several spans of random lengths do."""
    objective = config.objective
    return not objective.published.loader and (
        (objective.span_rate > 0 and objective.single_span_rate < 1) or objective.sentence_rate > 0
    )


def _allowed_data(workdir: Path, old: Config, new: Config) -> set[str]:
    """The fields of `data` that may differ: the data itself is compared later, or accepted."""
    record = read_data(workdir)
    if new.train.accept_data_change:
        return _TOLD_BY_CONTENT | _OTHER_DATA
    if record is None:
        return set()
    named = [[(part.name, part.rate) for part in one.data.components] for one in (old, new)]
    return _TOLD_BY_CONTENT | ({"data.mixture"} if named[0] == named[1] else set())


# Seconds until every host sees what one has written: those that NFS may keep an old answer.
_SEEN = 70.0


def check_shared(workdir: Path) -> None:
    """Refuses a workdir that the first process has written, and this one does not see.

    Raises:
      UserError: there is no `run.json` after a minute.
    """
    end = time.monotonic() + _SEEN
    while not (workdir / "run.json").exists():
        if time.monotonic() > end:
            raise UserError(
                f"what process 0 writes to the workdir {str(workdir)!r} is not seen here; give a "
                "workdir on a disk that all hosts share"
            )
        time.sleep(0.1)


def record_run(workdir: Path, config: Config, tokenizer: Tokenizer | None = None) -> None:
    """Writes `run.json`, and the tokenizer unless the workdir has it."""
    workdir.mkdir(parents=True, exist_ok=True)
    record = {"row_format": ROW_FORMAT, **to_dict(config)}
    write_whole(workdir / "run.json", (json.dumps(record, indent=2) + "\n").encode())
    if tokenizer is not None:
        keep_tokenizer(workdir, tokenizer)
