"""The section `examples` of a config: files of examples to tune on, in place of texts."""

import dataclasses

from glm_jax.checks import check, check_choice, check_rate, check_types, whole_number
from glm_jax.errors import UserError

FORMATS = ("auto", "prompt_response", "chatglm3", "messages", "sharegpt")
# The options that decide what is made of files; the others decide how rows are made of that.
OF_FILES = (
    *("format", "prompt_field", "response_field", "history_field", "messages_field", "tools_field"),
    *("loss_on", "max_source_length", "max_target_length"),
)
LOSS_ON = ("published", "all", "assistant", "last")


@dataclasses.dataclass(frozen=True)
class ExamplesConfig:
    """Files of examples to tune on; with `format=None`, rows are made of texts.

    `data.source` names the files, .jsonl (an object a line) or .json (a list of objects).

    Attributes:
      format: of each object. "prompt_response", as ChatGLM-6B's: {"prompt": .., "response": ..,
        "history": [[question, answer], ..]}; "chatglm3": {"conversations": [{"role": ..,
        "content": ..}], "tools": ..}; "messages", as of GLM-4 and OpenAI: {"messages":
        [{"role": .., "content": .., "tool_calls": ..}], "tools": ..}; "sharegpt":
        {"conversations": [{"from": "human", "value": ..}]}; "auto": told from the keys of each
        object. None: no examples.
      prompt_field, response_field, history_field: keys of "prompt_response"; only the history may
        be missing.
      messages_field: key of the messages; None: "messages" or "conversations", as published.
      tools_field: key of the descriptions of tools, which may be missing.
      loss_on: what is learnt. "published": by the rule of the model's own fine-tuning code; "all":
        all but the first tokens, of models that read from left to right; "assistant": each answer,
        and the token that ends it; "last": the last answer alone.
        `glm_jax.tokenizers.training_example` has the rules.
      max_source_length, max_target_length: the published limits of prompt and answer, in tokens,
        both or none; None: `data.sequence_length` alone cuts.
      packed: several examples in a row, each attending to itself alone; False: one a row.
      pretraining_rate: share of the rows that are made of the texts of `pretraining_source` by the
        section `objective`, so that the model keeps what it has learnt from texts.
      pretraining_source: texts, as `data.source` has them.
    """

    format: str | None = None
    prompt_field: str = "prompt"
    response_field: str = "response"
    history_field: str = "history"
    messages_field: str | None = None
    tools_field: str = "tools"
    loss_on: str = "published"
    max_source_length: int | None = None
    max_target_length: int | None = None
    packed: bool = True
    pretraining_rate: float = 0.0
    pretraining_source: str | None = None

    def __post_init__(self):
        check_types(self, "examples")
        if self.format is None:
            self._check_nothing_else()
            return
        check_choice("examples.format", self.format, FORMATS)
        check_choice("examples.loss_on", self.loss_on, LOSS_ON)
        for name in ("prompt_field", "response_field", "history_field", "tools_field"):
            check(getattr(self, name) != "", f"examples.{name}", "", "the key of a column")
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

    def _check_nothing_else(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "format" and getattr(self, field.name) != field.default:
                raise UserError(
                    f"examples.{field.name}={getattr(self, field.name)!r} does nothing without "
                    f"examples.format; formats are {list(FORMATS)}"
                )
