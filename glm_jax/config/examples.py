"""The section `examples` of a config: files of examples to tune on, in place of texts."""

import dataclasses
import json
from collections.abc import Mapping

from glm_jax.checks import check, check_choice, check_rate, check_types, whole_number
from glm_jax.config.patterns import NamedPattern, named_pattern, read_pattern
from glm_jax.errors import UserError, short

CONVERSATIONS = ("auto", "prompt_response", "chatglm3", "messages", "sharegpt")
FORMATS = (*CONVERSATIONS, "seq2seq", "cloze", "preferences", "prompts")
# The options that decide what is made of files; the others decide how rows are made of that.
OF_FILES = (
    *("format", "prompt_field", "response_field", "history_field", "messages_field", "tools_field"),
    *("loss_on", "max_source_length", "max_target_length"),
    *("source_field", "target_field", "pattern", "verbalizers", "label_field"),
    *("candidates", "chosen_field", "rejected_field", "margin_field"),
)
LOSS_ON = ("published", "all", "assistant", "last")


@dataclasses.dataclass(frozen=True)
class ExamplesConfig:
    """Files of examples to tune on; with `format=None`, rows are made of texts.

    `data.source` names the files, .jsonl (an object a line), .json (a list of objects), .tsv (the
    first line names the columns), or .source beside .target (a text a line each).

    Attributes:
      format: of each object. "prompt_response", as ChatGLM-6B's: {"prompt": .., "response": ..,
        "history": [[question, answer], ..]}; "chatglm3": {"conversations": [{"role": ..,
        "content": ..}], "tools": ..}; "messages", as of GLM-4 and OpenAI: {"messages":
        [{"role": .., "content": .., "tool_calls": ..}], "tools": ..}; "sharegpt":
        {"conversations": [{"from": "human", "value": ..}]}; "auto": told from the keys of each
        object. "seq2seq": a source and a target text; "cloze": a label for columns of text, as
        what fills the blank of a pattern; "preferences": two answers to a prompt, the better one
        named (docs/align.md has the shapes); "prompts": a prompt that the policy is to answer, and
        whatever else a reward is told of it (the section `rollouts`). None: no examples.
      prompt_field, response_field, history_field: keys of "prompt_response"; only the history may
        be missing. The first is of "preferences" and "prompts" too.
      messages_field: key of the messages; None: "messages" or "conversations", as published.
      tools_field: key of the descriptions of tools, which may be missing.
      source_field, target_field: columns of "seq2seq".
      pattern: of "cloze", a text with one blank and columns, '"{hypothesis:bare}" ? [MASK],
        "{premise}"' (`glm_jax.config.patterns`), or the name of a published one: rte, cb, boolq,
        wic, multirc, copa, wsc, record, with a number behind a slash, "rte/4".
      verbalizers: what fills the blank for each label, {"entailment": "Yes", "not_entailment":
        "No"}, or JSON of that; stored as JSON. A named pattern has its own. None: the column
        `label_field` holds what fills it.
      label_field: the column of the label.
      candidates: a row holds one cloze with each of its candidates, the right one first, for
        `train.loss="choices"`. A cloze whose candidates do not fit a row is left out and counted.
      loss_on: what is learnt. "published": by the rule of the model's own fine-tuning code; "all":
        all but the first tokens, of models that read from left to right; "assistant": each answer,
        and the token that ends it; "last": the last answer alone.
        `glm_jax.tokenizers.training_example` has the rules. Only of conversations.
      max_source_length, max_target_length: the published limits of prompt and answer, in tokens,
        both or none; None: `data.sequence_length` alone cuts, and may cut an answer off. A cloze
        loses tokens of its columns, from their end.
      packed: several examples in a row, each attending to itself alone; False: one a row. A pair of
        "preferences" has a row of its own either way.
      pretraining_rate: share of the rows that are made of the texts of `pretraining_source` by the
        section `objective`, so that the model keeps what it has learnt from texts.
      pretraining_source: texts, as `data.source` has them.
      chosen_field, rejected_field: keys of the two answers of "preferences".
      margin_field: key of a number, by how much more than `preferences.margin` the chosen answer of
        a pair must win (Llama 2, arXiv:2307.09288, section 3.2.2; TRL calls it "margin"). None:
        pairs have none.
    """

    format: str | None = None
    prompt_field: str = "prompt"
    response_field: str = "response"
    history_field: str = "history"
    messages_field: str | None = None
    tools_field: str = "tools"
    source_field: str = "source"
    target_field: str = "target"
    pattern: str | None = None
    verbalizers: str | Mapping[str, object] | None = None
    label_field: str = "label"
    candidates: bool = False
    loss_on: str = "published"
    max_source_length: int | None = None
    max_target_length: int | None = None
    packed: bool = True
    pretraining_rate: float = 0.0
    pretraining_source: str | None = None
    chosen_field: str = "chosen"
    rejected_field: str = "rejected"
    margin_field: str | None = None

    def __post_init__(self):
        check_types(self, "examples")
        if self.format is None:
            self._check_nothing_else()
            return
        check_choice("examples.format", self.format, FORMATS)
        check_choice("examples.loss_on", self.loss_on, LOSS_ON)
        for name in OF_FILES:
            if name.endswith("_field"):
                check(getattr(self, name) != "", f"examples.{name}", "", "the key of a column")
        self._check_format()
        lengths = (self.max_source_length, self.max_target_length)
        for name, value in zip(("max_source_length", "max_target_length"), lengths, strict=True):
            if value is not None:
                whole_number(f"examples.{name}", value, 3)
        if lengths.count(None) == 1:
            raise UserError(
                "examples.max_source_length and examples.max_target_length must be given together; "
                f"got {lengths[0]} and {lengths[1]}"
            )
        check_rate("examples.pretraining_rate", self.pretraining_rate)
        check(
            self.pretraining_rate < 1.0,
            "examples.pretraining_rate",
            self.pretraining_rate,
            "below 1",
        )
        if (self.pretraining_source is None) != (self.pretraining_rate == 0.0):
            raise UserError(
                "examples.pretraining_rate and examples.pretraining_source must be given together; "
                f"got {self.pretraining_rate} and {self.pretraining_source!r}"
            )

    def longest(self, fills_blanks: bool) -> int | None:
        """Slots of the longest example, where `max_source_length` and `max_target_length` cut.

        The rules of `glm_jax.data.examples` and `glm_jax.tokenizers.training_example` count special
        tokens so. None: nothing cuts but the row. Not of "cloze" for a causal model, which goes on
        to the end of the text.

        Args:
          fills_blanks: `ModelConfig.fills_blanks`.
        """
        if self.max_source_length is None or self.max_target_length is None:
            return None
        if self.format == "cloze" and not fills_blanks:
            return None
        return self.max_source_length + self.max_target_length

    @property
    def sharing(self) -> str | None:
        """What the examples of one line are that share a row: "candidates", "answers" or None."""
        if self.format == "preferences":
            return "answers"
        return "candidates" if self.candidates else None

    @property
    def words(self) -> dict[str, str] | None:
        """What fills the blank for each label; None: the text of `label_field`."""
        named = self.named
        if self.verbalizers is None:
            own = named[1].verbalizers if named else None
            return None if own is None else dict(own)
        return _words(self.verbalizers)

    @property
    def named(self) -> tuple[str, NamedPattern] | None:
        """The task and the pattern that `pattern` names; None where it is one itself."""
        return None if self.pattern is None else named_pattern(self.pattern)

    def _check_format(self) -> None:
        """Refuses options of another format, and a cloze that is none."""
        of = {
            **dict.fromkeys(("source_field", "target_field"), ("seq2seq",)),
            **dict.fromkeys(("pattern", "verbalizers", "label_field", "candidates"), ("cloze",)),
            **dict.fromkeys(("response_field", "history_field", "loss_on"), CONVERSATIONS),
            **dict.fromkeys(
                ("prompt_field", "messages_field", "tools_field"),
                (*CONVERSATIONS, "preferences", "prompts"),
            ),
            **dict.fromkeys(
                ("max_source_length", "max_target_length", "packed"),
                tuple(form for form in FORMATS if form != "prompts"),
            ),
            **dict.fromkeys(("chosen_field", "rejected_field", "margin_field"), ("preferences",)),
        }
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if self.format not in of.get(field.name, FORMATS) and value != field.default:
                raise UserError(
                    f"examples.{field.name}={short(value)} does nothing with "
                    f"examples.format={self.format!r}"
                )
        if self.format != "cloze":
            return
        if self.pattern is None:
            raise UserError(
                "examples.format='cloze' needs examples.pattern, such as '{text} It was [MASK].'"
            )
        if self.verbalizers is not None:
            text = json.dumps(_words(self.verbalizers), ensure_ascii=False)
            object.__setattr__(self, "verbalizers", text)
        if self.named is None:
            read_pattern(self.pattern)

    def _check_nothing_else(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "format" and getattr(self, field.name) != field.default:
                raise UserError(
                    f"examples.{field.name}={getattr(self, field.name)!r} does nothing without "
                    f"examples.format; formats are {list(FORMATS)}"
                )


def _words(given: str | Mapping[str, object]) -> dict[str, str]:
    """Verbalizers, from a mapping or JSON of one."""
    try:
        found = json.loads(given) if isinstance(given, str) else dict(given)
    except (ValueError, RecursionError):
        found = None
    if (
        not isinstance(found, dict)
        or len(found) < 2
        or not all(isinstance(word, str) and word.strip() for word in found.values())
    ):
        raise UserError(
            'examples.verbalizers must be texts by label, of two labels at least, {"good": '
            f'"great", "bad": "terrible"}}; got {short(given)}'
        )
    if len({word.strip() for word in found.values()}) < len(found):
        raise UserError(f"examples.verbalizers must differ; got {short(found)}")
    return {str(label): str(word).strip() for label, word in found.items()}
