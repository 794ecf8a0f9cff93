"""The tasks of `python -m glm_jax.evaluate`: functions from a model to metrics, by name.

A module given by --task_module may add tasks, beside the SeqIO tasks that it registers:

    from glm_jax.evaluation.registry import TASKS

    TASKS["mine"] = lambda lm, request: {"accuracy": ...}
"""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from glm_jax.errors import UserError, did_you_mean, how_to_install
from glm_jax.evaluation.request import Request, Task

if TYPE_CHECKING:
    from glm_jax.evaluation.tasks import TaskOnTexts
    from glm_jax.generation.language_model import LanguageModel

# Held-out examples of a task without --num_examples.
EXAMPLES = 200


def pretrain(lm: "LanguageModel", request: Request) -> dict[str, float]:
    """Loss, perplexity and accuracy of each objective on rows of the run's corpus.

    Needs no TensorFlow if the corpus is text files, or if its token store exists.
    """
    from glm_jax.data.record import change_since
    from glm_jax.data.stream import RowStream
    from glm_jax.evaluation.rows import total_sums
    from glm_jax.losses.scores import mean_metrics
    from glm_jax.pipeline.batches import source

    config, count = request.config, request.num_batches
    stream = RowStream(
        source(config, request.split or "eval"),
        config.data.batch_size,
        shuffle=False,
        repeat=count is not None,
    )
    if request.workdir is not None and (what := change_since(request.workdir, stream.data)):
        print(
            f"warning: the data of the run in {str(request.workdir)!r} has changed since: {what}",
            file=sys.stderr,
        )
    try:
        return mean_metrics(total_sums(lm, islice(stream, count)))
    finally:
        stream.close()


def infilling_report(lm: "LanguageModel", request: Request) -> dict[str, float]:
    """Likelihoods in many orders of the spans, and losses by groups; with a report in files."""
    from glm_jax.evaluation.infilling_report import report

    split, count = request.split or "eval", request.num_examples or report.TEXTS
    return report.infilling_report(lm, request.config, split, count, request.workdir)


def held_out_cloze(lm: "LanguageModel", request: Request) -> dict[str, float]:
    """Accuracy by likelihood on the held-out split of a run's own clozes."""
    from glm_jax.evaluation.held_out_cloze import accuracy

    return accuracy(lm, request.config, request.num_examples)


TASKS: dict[str, Task] = {
    "glm_pretrain": pretrain,
    "held_out_cloze": held_out_cloze,
    "infilling_report": infilling_report,
}
# What --help says of `--task`.
HELP = (
    "A directory: every task in it, NAME.toml with its examples, in one table with standard errors "
    "(docs/evaluation.md). glm_pretrain: loss, perplexity and accuracy of each objective on the "
    "held-out rows of the run's own corpus. infilling_report: likelihoods of its spans in many "
    "orders, and losses by span length, position and order, as a directory of tables and plots. "
    "held_out_cloze: accuracy on the held-out examples of a run on clozes. blanks, cloze, "
    "last_word, perplexity, perplexity_bidirectional: on examples made from held-out bundled text. "
    "Any other name: a registered SeqIO task or mixture whose features are those of a Batch."
)
# Tasks that write a directory of files with --output (`glm_jax.evaluation.metrics_with_files`).
WITH_FILES = ("infilling_report",)


# What a request may say of the examples, by the names of options; and what each task acts on. Of
# other names in `TASKS` nothing is known.
OPTIONS = ("split", "num_batches", "num_examples")
_TAKES = {
    "glm_pretrain": ("split", "num_batches"),
    "held_out_cloze": ("num_examples",),
    "infilling_report": ("split", "num_examples"),
}
_ON_TEXTS, _OF_SEQIO = ("num_examples",), ("split", "num_examples")

# The data and the units of each task's metrics.
_ABOUT = {
    "blanks": "fifty blanks of one or two words in held-out bundled text, filled freely; shares; "
    "unigram and bigram are n-gram baselines counted in the training chapters, which are given the "
    "number of words of each blank",
    "glm_pretrain": "each row of the split {split!r} of {corpus}; losses in nats per target, "
    "perplexity is exp(loss), accuracy the share of targets ranked first",
    "cloze": "which of four words fills a blank in held-out bundled text; accuracy is a share",
    "last_word": "the last word of passages of held-out bundled text; accuracy is a share",
    "held_out_cloze": "which of the verbalizers fills the blank in the held-out examples of "
    "{corpus}, by likelihood; accuracy is a share",
    "infilling_report": "spans of windows of the split {split!r} of {corpus}, in many orders, and "
    "losses by objective, span length, position and order; nats per token; --output DIR writes the "
    "report",
    "perplexity": "held-out bundled documents from left to right; loss in nats per token",
    "perplexity_bidirectional": "held-out bundled documents, the context in each window "
    "bidirectional; loss in nats per token",
}


def about(name: str, request: Request) -> str:
    """One line on the data and the units of a task's metrics; empty for a task not of this file."""
    data, some = request.config.data, request.num_batches
    corpus = data.store or (f"the mixture {data.mixture!r}" if data.mixture else data.source)
    line = _ABOUT.get(name, "").format(split=request.split or "eval", corpus=corpus)
    return (
        line.replace("each row", f"{some} batch{'es' if some > 1 else ''} of rows")
        if some
        else line
    )


def check_takes(name: str, asked: Mapping[str, object]) -> None:
    """Refuses what a task, which `find_task` has found, would not act on.

    Args:
      name: of the task.
      asked: values of `OPTIONS`; None: not given.

    Raises:
      UserError: names the first such option, and what the task takes.
    """
    if name in TASKS:
        takes = _TAKES.get(name, OPTIONS)
    else:
        takes = _ON_TEXTS if name in _tasks_on_texts() else _OF_SEQIO
    for option, value in asked.items():
        if value is not None and option not in takes:
            allowed = " and ".join(f"--{one}" for one in takes)
            raise UserError(f"--{option} is not for the task {name!r}, which takes {allowed}")


def find_task(name: str, module: str | None = None) -> Task:
    """Finds a task by its name in `TASKS`, in `glm_jax.evaluation.tasks`, then in SeqIO.

    Args:
      name: of a task.
      module: a module that is imported first, and may register tasks.

    Raises:
      UserError: no such module, or no such task; names the known tasks.
    """
    if module is not None:
        _import(module)
    if name in TASKS:
        return TASKS[name]
    on_texts = _tasks_on_texts()
    if name in on_texts:

        def run_on_texts(lm: "LanguageModel", request: Request) -> dict[str, float]:
            if lm.tokenizer is None:
                raise UserError(f"the task {name!r} needs a tokenizer; the checkpoint holds none")
            return on_texts[name](lm, lm.tokenizer, request.num_examples or EXAMPLES)

        return run_on_texts
    known = sorted({*TASKS, *on_texts})
    if importlib.util.find_spec("seqio") is None:
        raise UserError(
            f"unknown task {name!r}{did_you_mean(name, known)}; known: {known}, and the tasks of "
            f"SeqIO, which is not installed; install it with: {how_to_install('tasks')}"
        )
    _check_seqio(name, known, module)

    def run_seqio(lm: "LanguageModel", request: Request) -> dict[str, float]:
        return _evaluate_seqio(name, lm, request)

    return run_seqio


def _tasks_on_texts() -> dict[str, "TaskOnTexts"]:
    """The tasks that compare a model's answers or score texts, by name."""
    from glm_jax.evaluation import tasks as evaluation_tasks

    return evaluation_tasks.TASKS


def _check_seqio(name: str, known: list[str], module: str | None) -> None:
    """Raises UserError if SeqIO has no such task either. Imports SeqIO, which takes seconds."""
    from glm_jax.tasks.evaluation import registered_names

    others = [task for task in registered_names() if task not in known]
    if name not in others:
        more = "" if module else "; --task_module imports a module that registers more tasks"
        raise UserError(
            f"unknown task {name!r}{did_you_mean(name, [*known, *others])}; known: {known}"
            f"{f', and of SeqIO: {others}' if others else ''}{more}"
        )


def _evaluate_seqio(name: str, lm: "LanguageModel", request: Request) -> dict[str, float]:
    from glm_jax.evaluation.rows import row_sums
    from glm_jax.tasks.evaluation import evaluate_task

    data = request.config.data
    found = evaluate_task(
        name,
        lambda batch: row_sums(lm, batch),
        length=data.sequence_length,
        batch_size=data.batch_size,
        pad_id=lm.special.pad if lm.special else 0,
        split=request.split,
        num_examples=request.num_examples,
    )
    if len(found) == 1:
        return next(iter(found.values()))
    return {f"{task}/{key}": value for task, of in found.items() for key, value in of.items()}


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise UserError(f"--task_module: no module {module!r} on Python's path") from error
