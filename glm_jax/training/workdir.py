"""What a workdir is checked for before anything is written, and the record of its run.

WORKDIR/run.json        the whole config, and the format of the rows (`row_format`)
        tokenizer.model
        metrics.jsonl   one JSON object a line
        loss.png
        samples.txt     blanks filled, beside what stood there
        data.json       what the data was made from, see data_record.py
        unigram.npz     how often each id is a target, see unigram.py
        checkpoints/
"""

import json
from pathlib import Path

from jax.sharding import Mesh

from glm_jax.config import Config, differences, from_dict, to_dict
from glm_jax.data.rows import ROW_FORMAT
from glm_jax.errors import UserError
from glm_jax.files import write_whole
from glm_jax.interop.tokenizers import Tokenizer
from glm_jax.models.positions import table_rows
from glm_jax.sharding import place_groups, row_groups
from glm_jax.training.data_record import keep_tokenizer, read_data
from glm_jax.training.retention import saved_steps

# What may differ when a run goes on: how often things happen and where the arrays lie, but nothing
# that changes what is computed.
MAY_CHANGE = {
    "data.store",
    "mesh.data",
    "mesh.fsdp",
    "mesh.sequence",
    "mesh.tensor",
    "model.attention_backend",
    "model.remat",
    "model.scan_layers",
    "train.accept_data_change",
    "train.best_metric",
    "train.checkpoint_every",
    "train.cross_entropy",
    "train.eval_batches",
    "train.eval_every",
    "train.keep_best",
    "train.keep_checkpoints",
    "train.loss_chunk",
    "train.log_every",
    "train.sample_every",
    "train.tensorboard",
    "train.verify_checkpoints",
    "train.wandb",
}

# Which text and tokenizer, and where they lie: data.json tells whether they are what they were.
_TOLD_BY_CONTENT = {
    "data.source",
    "data.tokenizer",
    "data.tfds_data_dir",
    "data.task_module",
    "data.seqio_cache_dir",
}
# With other values the data is other data, which `train.accept_data_change` goes on with.
_OTHER_DATA = {"data.mixture", "data.text_field", "data.eval_fraction"}


def check_config(config: Config, mesh: Mesh, vocab_size: int, num_hosts: int = 1) -> None:
    """Refuses what would fail, or be wrong, later on.

    Args:
      config: of the run.
      mesh: its devices.
      vocab_size: ids of the tokenizer.
      num_hosts: processes that share a batch.

    Raises:
      ValueError: ids or positions beyond a table of the model, rows that the devices, hosts and
        accumulation parts cannot share evenly, or places that mesh.sequence does not divide.
    """
    model, data = config.model, config.data
    if model.position_encoding == "rotary" and config.objective.causal_rate != 1.0:
        raise UserError(
            "model.position_encoding='rotary' has no block positions, which tell the tokens of a "
            "span apart; set objective.causal_rate=1 and the other rates to 0, or use "
            f"'learned_block'; got objective.causal_rate={config.objective.causal_rate:g}"
        )
    if vocab_size > model.vocab_size:
        raise UserError(
            f"model.vocab_size must be at least the tokenizer's {vocab_size}; "
            f"got {model.vocab_size}"
        )
    table = table_rows(model)
    needed = config.objective.positions_needed(data.sequence_length)
    if needed > table:
        raise UserError(
            f"data.sequence_length={data.sequence_length} needs model.max_positions="
            f"{needed} for its positions; got {model.max_positions}, "
            f"a table of {table} rows"
        )
    shards = row_groups(mesh)
    parts = config.train.accumulation_steps
    for number, name in (
        (shards * parts, f"{shards} devices of the mesh (data x fsdp) times {parts} parts "),
        (num_hosts, f"{num_hosts} hosts "),
    ):
        if data.batch_size % number:
            raise UserError(
                f"data.batch_size must be a multiple of {number}, for {name}"
                f"(train.accumulation_steps={parts}); got {data.batch_size}, "
                f"nearest {max(1, round(data.batch_size / number)) * number}"
            )
    places = place_groups(mesh)
    if data.sequence_length % places:
        raise UserError(
            f"data.sequence_length must be a multiple of mesh.sequence={places}; got "
            f"{data.sequence_length}, nearest "
            f"{max(1, round(data.sequence_length / places)) * places}"
        )


def check_workdir(workdir: Path, config: Config) -> None:
    """Refuses a workdir that another config made.

    `MAY_CHANGE` lists what may differ. `train.num_steps` may too, where the learning rate of a step
    does not depend on it: with a constant schedule, or `optimizer.decay_steps` given.

    Raises:
      ValueError: names each field that differs, with both values.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"the workdir {str(workdir)!r} is a file")
    record = workdir / "run.json"
    if not record.exists():
        if saved_steps(workdir / "checkpoints"):
            raise UserError(f"{str(workdir)!r} holds checkpoints but no run.json")
        return
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))
        old = from_dict(recorded)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{record} is not the record of a run: {error}") from error
    allowed = set(MAY_CHANGE)
    if config.optimizer.schedule == "constant" or config.optimizer.decay_steps is not None:
        allowed.add("train.num_steps")
    allowed |= _allowed_data(workdir, old, config)
    differing = {k: v for k, v in differences(old, config).items() if k not in allowed}
    if differing:
        listed = ", ".join(f"{k} was {a!r}, is {b!r}" for k, (a, b) in differing.items())
        hint = ""
        if "train.num_steps" in differing:
            hint += " (train.num_steps may change only where optimizer.decay_steps is given)"
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
    """Whether rows differ between formats 1 and 2: texts with several spans of drawn lengths."""
    objective = config.objective
    return not objective.published and (
        (objective.span_rate > 0 and objective.single_span_rate < 1) or objective.sentence_rate > 0
    )


def _allowed_data(workdir: Path, old: Config, new: Config) -> set[str]:
    """The names of `data` that may differ, since the data itself is compared later, or accepted."""
    record = read_data(workdir)
    if new.train.accept_data_change:
        return _TOLD_BY_CONTENT | _OTHER_DATA
    if record is None:
        return set()
    named = [[(part.name, part.rate) for part in one.data.components] for one in (old, new)]
    return _TOLD_BY_CONTENT | ({"data.mixture"} if named[0] == named[1] else set())


def record_run(workdir: Path, config: Config, tokenizer: Tokenizer | None = None) -> None:
    """Writes `run.json`, and the tokenizer where it is not there already."""
    workdir.mkdir(parents=True, exist_ok=True)
    record = {"row_format": ROW_FORMAT, **to_dict(config)}
    write_whole(workdir / "run.json", (json.dumps(record, indent=2) + "\n").encode())
    if tokenizer is not None:
        keep_tokenizer(workdir, tokenizer)
