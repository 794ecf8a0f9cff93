"""What a task file says, checked: `kind = "choice"`, its data, its prompt, its metrics.

kind = "choice"
data = "reviews.jsonl"                  {"text": "Never again.", "stars": "bad"} in each line
prompt = "{text} It was [MASK]."
choices = ["great", "terrible"]
answer = "stars"
labels = ["good", "bad"]                what stands in the column for each choice
metrics = ["accuracy", "accuracy_per_token"]
"""

import dataclasses
import types
import typing
from collections.abc import Mapping

from glm_jax.checks import check, check_choice, finite_number, whole_number
from glm_jax.errors import UserError, did_you_mean, short
from glm_jax.evaluation.metrics import LANGUAGES, METRICS, Wording, first_k
from glm_jax.generation.options import Options, decoding

_UNCONDITIONAL = "accuracy_unconditional"


@dataclasses.dataclass(frozen=True)
class Spec:
    """The keys of a task file; `glm_jax.evaluation.kinds` says which of them a kind takes.

    Attributes:
      kind: of task, a name in `glm_jax.evaluation.kinds.KINDS`.
      data: file of examples, relative to the task file: one JSON object a line; for "perplexity"
        also a .txt, which is one text.
      prompt: text with columns in braces, "{text} It was [MASK]."; "{{" is a brace. A mask in it is
        a blank; a column is plain text, in "fill" with blanks.
      answer: column of the right answer: a text, or a list of texts, any of which is right; for
        "fill" a list holds one text per blank; for "choice" a label, a choice, or its index.
      choices: texts to choose from, or the column of a list of them.
      labels: what `answer` holds for each of `choices`, in their order.
      messages: column of the messages of a chat; instead of `prompt`, which is one of a user.
      text: column of the text.
      metrics: names; the first is the one that a table shows first.
      num_examples: how many, from the first line on; all by default.
      language: "en" or "zh", how answers are compared (`glm_jax.evaluation.metrics`).
      stemmer: ROUGE compares stems.
      max_new_tokens: ids of the longest answer.
      stop: texts at which an answer ends, without them.
      decoding: of generated answers: num_beams, temperature, seed, .. as of `lm.generate`.
      unconditional: the prompt of "accuracy_unconditional", whose score is subtracted.
      unidirectional: of models that fill blanks: `[CLS] [gMASK] | text`, read from left to right.
      bidirectional: of models that fill blanks, "perplexity": the context in a window is.
      window, stride: of "perplexity", ids of a window and new ids of each; the model's by default.
    """

    kind: str
    data: str
    prompt: str | None = None
    answer: str = "answer"
    choices: tuple[str, ...] | str | None = None
    labels: tuple[str, ...] | None = None
    messages: str | None = None
    text: str = "text"
    metrics: tuple[str, ...] = ()
    num_examples: int | None = None
    language: str = "en"
    stemmer: bool = False
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    decoding: Mapping[str, float] = dataclasses.field(default_factory=dict)
    unconditional: str = "[MASK]"
    unidirectional: bool = False
    bidirectional: bool = False
    window: int | None = None
    stride: int | None = None

    @property
    def wording(self) -> Wording:
        return Wording(self.language, self.stemmer)

    @property
    def candidates(self) -> int:
        """The largest K of its metrics "first_K"; 0: none."""
        return max(map(first_k, self.metrics), default=0)


def spec_of(
    table: Mapping[str, object], name: str, needs: tuple[str, ...], takes: set[str]
) -> Spec:
    """The content of a task file, checked but for its metrics.

    Args:
      table: the content.
      name: of the file, for errors.
      needs: keys without a default that the kind asks for.
      takes: all keys of the kind.

    Raises:
      UserError: an unknown or missing key, or a value of a wrong type or out of range.
    """
    known = {field.name for field in dataclasses.fields(Spec)}
    for key in table:
        if key not in known:
            raise UserError(
                f"{name}: unknown key {key!r}{did_you_mean(key, known)}; a task of the kind "
                f"{table['kind']!r} takes {', '.join(sorted(takes))}"
            )
        if key not in takes:
            raise UserError(
                f"{name}: {key} is not for a task of the kind {table['kind']!r}, which takes "
                f"{', '.join(sorted(takes))}"
            )
    for key in needs:
        if key not in table:
            raise UserError(f"{name}: a task of the kind {table['kind']!r} needs {key} = ..")
    hints = typing.get_type_hints(Spec)
    values = {key: _typed(f"{name}: {key}", value, hints[key]) for key, value in table.items()}
    spec = Spec(**values)
    for key in ("num_examples", "max_new_tokens", "window", "stride"):
        if getattr(spec, key) is not None:
            whole_number(f"{name}: {key}", getattr(spec, key), least=1)
    check_choice(f"{name}: language", spec.language, LANGUAGES)
    _check_decoding(spec, name)
    return spec


def with_metrics(spec: Spec, name: str, allowed: tuple[str, ...], default: tuple[str, ...]) -> Spec:
    """The spec with its metrics, or the default ones of its kind.

    Raises:
      UserError: a metric that the kind does not have, or one named twice; a key that does nothing
        without another metric.
    """
    for metric in spec.metrics:
        if metric in allowed or (first_k(metric) and "first_5" in allowed):
            continue
        of_others = metric in METRICS or first_k(metric)
        why = f"is not for the kind {spec.kind!r}" if of_others else "is unknown"
        raise UserError(
            f"{name}: the metric {metric!r} {why}{did_you_mean(metric, allowed)}; there are "
            f"{', '.join(allowed)}"
        )
    check(len(set(spec.metrics)) == len(spec.metrics), f"{name}: metrics", spec.metrics, "distinct")
    found = dataclasses.replace(spec, metrics=spec.metrics or default)
    stems = any(metric.startswith("rouge") for metric in found.metrics) and spec.language == "en"
    if spec.stemmer and not stems:
        raise UserError(f"{name}: stemmer = true is for ROUGE of English alone")
    if spec.unconditional != Spec.unconditional and _UNCONDITIONAL not in found.metrics:
        raise UserError(f"{name}: unconditional is for the metric {_UNCONDITIONAL!r} alone")
    return found


# `Any`: a value of the type that `annotation` says, which is not known here.
def _typed(name: str, value: object, annotation: object) -> typing.Any:
    """A value of TOML as its annotation says; a list becomes a tuple."""
    choices = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else ()
    kinds = [typing.get_origin(one) or one for one in choices or (annotation,)]
    if isinstance(value, list) and tuple in kinds:
        good = bool(value) and all(isinstance(one, str) for one in value)
        check(good, name, value, "texts, one at least")
        return tuple(value)
    if isinstance(value, dict) and Mapping in kinds:
        return value
    for kind in (str, bool, int):
        if kind in kinds and type(value) is kind:
            return value
    said = {tuple: "a list of texts", str: "a text", bool: "true or false", int: "a whole number"}
    said |= {Mapping: "a table"}
    wanted = " or ".join(said[kind] for kind in kinds if kind in said)
    raise UserError(f"{name} must be {wanted}; got {short(value)}")


def _check_decoding(spec: Spec, name: str) -> None:
    allowed = sorted(typing.get_type_hints(Options))
    for key, value in spec.decoding.items():
        check_choice(f"{name}: a key of decoding", key, allowed)
        finite_number(f"{name}: decoding.{key}", value)
    try:
        decoding(None, dict(spec.decoding))
    except UserError as error:
        raise UserError(f"{name}: decoding: {error}") from error
    if spec.candidates and spec.decoding:
        raise UserError(
            f"{name}: first_{spec.candidates} is found by a beam search of its own; leave decoding "
            "out"
        )
