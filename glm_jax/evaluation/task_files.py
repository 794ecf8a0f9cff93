"""Tasks as files: `evaluate --task DIRECTORY`.

    my_tasks/reviews.toml         a task named "reviews"
            /reviews.jsonl        its examples, one JSON object a line
            /wiki/task.toml       a task named "wiki"
            /wiki/test.txt

`glm_jax.evaluation.task_spec` says what a task file holds.
"""

import dataclasses
import hashlib
import itertools
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.evaluation.asked import Prepared
from glm_jax.evaluation.examples import Example, as_json, check_template, read_lines, read_text
from glm_jax.evaluation.kinds import Kind, kind_of
from glm_jax.evaluation.metrics import check_packages
from glm_jax.evaluation.prompting import Prompts
from glm_jax.evaluation.task_spec import Spec, spec_of, with_metrics

_IN_A_FOLDER = "task.toml"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
# Of these a row of metrics.jsonl has `eval/NAME`, or `eval/NAME/OBJECTIVE`.
_TAKEN = ("loss", "unigram_loss")


@dataclasses.dataclass(frozen=True)
class Identity:
    """What two results on one task have in common."""

    task: str
    examples: int
    fingerprint: str
    metrics: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TaskFile:
    """A task and its examples.

    Attributes:
      name: of the file without its suffix, or of its folder.
      spec: what the file says.
      kind: of the task.
      examples: one at least.
    """

    name: str
    spec: Spec
    kind: Kind
    examples: Sequence[Example]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the examples and of all that decides how they are asked."""
        settings = dataclasses.asdict(self.spec)
        for name in ("data", "num_examples", "metrics"):
            del settings[name]
        content = [settings, *(one.content() for one in self.examples)]
        return hashlib.sha256(as_json(content).encode()).hexdigest()

    @property
    def identity(self) -> "Identity":
        """What must be equal where two models are compared."""
        return Identity(self.name, len(self.examples), self.fingerprint, self.spec.metrics)

    def prepared(self, prompts: Prompts) -> list[Prepared]:
        """The examples as one model is asked.

        Raises:
          UserError: the model cannot do the task, or an example does not fit it.
        """
        try:
            return [self.kind.prepare(prompts, self.spec, one) for one in self.examples]
        except UserError as error:
            raise UserError(f"the task {self.name!r}: {error}") from error


def read_tasks(path: Path, most: int | None = None) -> list[TaskFile]:
    """The tasks of a directory, by name, or the one of a file.

    Args:
      path: a directory, or a .toml.
      most: examples of each, at most.

    Raises:
      UserError: there is none, two have one name, or one is wrong; names the file and the line.
    """
    if path.is_dir():
        files = [*path.glob("*.toml"), *path.glob(f"*/{_IN_A_FOLDER}")]
        if not files:
            raise UserError(
                f"{str(path)!r} holds no task: NAME.toml, or NAME/{_IN_A_FOLDER}, with its data "
                "(docs/evaluation.md)"
            )
    else:
        files = [path]
    tasks = sorted((_read(file, most) for file in files), key=lambda task: task.name)
    for one, other in itertools.pairwise(tasks):
        if one.name == other.name:
            raise UserError(f"{str(path)!r} has two tasks of the name {one.name!r}")
    return tasks


def _read(file: Path, most: int | None) -> TaskFile:
    name = file.parent.name if file.name == _IN_A_FOLDER else file.stem
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise UserError(
            f"{file}: a task's name has letters, digits, '_', '.' and '-', and is not "
            f"{' or '.join(_TAKEN)}; got {name!r}"
        )
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {file}: it is not UTF-8 ({error.reason})") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"cannot read {file}: it is not TOML: {error}") from error
    where = str(file)
    if "kind" not in table or "data" not in table:
        raise UserError(f"{where}: a task needs kind = .. and data = ..")
    kind = kind_of(table["kind"], where)
    spec = spec_of(table, where, kind.needs, kind.keys)
    spec = with_metrics(spec, where, kind.metrics, kind.default)
    check_packages(spec.metrics)
    check_template(spec.prompt or "", where)
    count = min((n for n in (spec.num_examples, most) if n is not None), default=None)
    data = file.parent / Path(spec.data).expanduser()
    if spec.kind == "perplexity" and data.suffix == ".txt":
        for key in ("text", "num_examples"):
            if key in table:
                raise UserError(f"{where}: {key} is for lines of JSON; {spec.data} is one text")
        examples = [Example(str(data), read_text(data))]
    else:
        examples = [kind.example(spec, line) for line in read_lines(data, count)]
    return TaskFile(name, spec, kind, examples)
