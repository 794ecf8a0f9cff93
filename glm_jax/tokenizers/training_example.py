"""A conversation as a model is tuned on it: its ids, and which of them are learnt.

    ChatGLM3, published       [gMASK] sop <|user|> ▁ \\n ▁hi <|assistant|> ▁ \\n ▁yes </s>
    learnt                                                              x  x  x    x

The published rules (the fine-tuning code of each repository):

    ChatGLM-6B   part A is the prompt, cut to max_source_length - 1, and [gMASK]; sop, the answer,
                 cut to max_target_length - 2, and eop are learnt
    ChatGLM2     the prompt, cut to max_source_length; the answer, cut to max_target_length, and
                 </s> are learnt
    ChatGLM3     learnt is what follows each id of a message that is neither the system's nor the
                 user's: an answer behind its role, and the id behind it; results of tools too
    GLM-4        the same of the assistant's messages alone; the chat ends in <|user|>
                 the last two are cut at max_source_length + max_target_length + 1

A vocabulary without a chat format, as GLM's of 2021, has one of ours here, `without_format`: part A
is the texts of the messages, a line each, and the answer fills the blank behind them:
[CLS] hi [gMASK] start yes end. A text that has a blank is filled there:
[CLS] I say [MASK] . eos start yes end.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from glm_jax.checks import check_choice, whole_number
from glm_jax.config.examples import LOSS_ON
from glm_jax.errors import UserError, short
from glm_jax.json_files import JsonObject
from glm_jax.tokenizers.chat_formats import Chat
from glm_jax.tokenizers.framing import MASK, blanked_ids
from glm_jax.tokenizers.ids import ids_behind
from glm_jax.tokenizers.messages import Message, with_our_roles
from glm_jax.tokenizers.protocol import Tokenizer

if TYPE_CHECKING:
    from glm_jax.tokenizers.rendering import Rendering

# The label of an id that is not learnt, in the published code.
IGNORED = -100
# Kinds whose ids have a special one at the beginning of each message.
_WITH_ROLES = ("chatglm3", "glm4", "glm4_0414")


@dataclasses.dataclass(frozen=True)
class TrainingExample:
    """A conversation's ids.

    Attributes:
      ids: all of them, the last target included.
      learnt: which of them count in the loss, each predicted from what precedes it.
      prefix: number of ids in part A, for a model that fills blanks; 0: there is none.
      blank: index of the blank in part A that the ids behind it fill; 0 without part A.
    """

    ids: list[int]
    learnt: list[bool]
    prefix: int = 0
    blank: int = 0

    @property
    def labels(self) -> list[int]:
        """The ids, -100 where one is not learnt: the published code's labels, without padding."""
        return [id_ if use else IGNORED for id_, use in zip(self.ids, self.learnt, strict=True)]


@dataclasses.dataclass(frozen=True)
class Conversation:
    """What is made an example of; checked.

    Attributes:
      messages: of the chat, in our roles.
      tools: descriptions of tools, or None.
      loss_on: one of `LOSS_ON`.
      source, target: the published lengths, both or None.
    """

    messages: list[Message]
    tools: list[JsonObject] | None
    loss_on: str
    source: int | None
    target: int | None

    @classmethod
    def of(
        cls,
        messages: list[Message],
        tools: list[JsonObject] | None,
        loss_on: str,
        source: int | None,
        target: int | None,
    ) -> "Conversation":
        """Checks what was asked for.

        Raises:
          UserError: a role or a `loss_on` that there is not, one length alone, or no answer.
        """
        check_choice("loss_on", loss_on, LOSS_ON)
        for name, value in (("max_source_length", source), ("max_target_length", target)):
            if value is not None:
                whole_number(name, value, least=3)
        if (source is None) != (target is None):
            raise UserError(
                "max_source_length and max_target_length must be given together; got "
                f"{source} and {target}"
            )
        given = with_our_roles(messages)
        if not any(one["role"] == "assistant" for one in given):
            raise UserError("the conversation has no message of the assistant, so none to learn")
        return cls(given, tools, loss_on, source, target)


def learns_one_answer(tokenizer: Tokenizer) -> bool:
    """Whether an example has one answer: its format is that of a prompt and what follows it."""
    return tokenizer.kind not in (*_WITH_ROLES, "huggingface")


def each_answer(messages: Sequence[Message]) -> list[list[Message]]:
    """The conversation up to each message of the assistant: [u a u a] -> [u a], [u a u a]."""
    return [
        list(messages[: index + 1])
        for index, one in enumerate(messages)
        if one["role"] == "assistant"
    ]


def in_blank(tokenizer: Tokenizer, chat: Conversation) -> TrainingExample:
    """ChatGLM-6B's: the answer fills the [gMASK] behind the prompt."""
    *prompt, gmask, start = _prompt(tokenizer, chat)
    answer = tokenizer.encode(chat.messages[-1]["content"])
    if chat.source is not None and chat.target is not None:
        prompt, answer = prompt[: chat.source - 1], answer[: chat.target - 2]
    _check_part_a(chat)
    ids = [*prompt, gmask, start, *answer, tokenizer.special.end]
    prefix = len(prompt) + 1
    learnt = [False] * prefix + [chat.loss_on == "published"] + [True] * (len(answer) + 1)
    return TrainingExample(ids, learnt, prefix, prefix - 1)


def behind_prompt(tokenizer: Tokenizer, chat: Conversation) -> TrainingExample:
    """ChatGLM2's: the answer follows the prompt."""
    prompt = _prompt(tokenizer, chat)
    answer = tokenizer.encode(chat.messages[-1]["content"])
    prompt, answer = prompt[: chat.source], answer[: chat.target]
    ids = [*prompt, *answer, tokenizer.special.eos]
    if chat.loss_on == "all":
        return TrainingExample(ids, _all(tokenizer, ids))
    return TrainingExample(ids, [False] * len(prompt) + [True] * (len(answer) + 1))


def by_roles(tokenizer: Tokenizer, chat: Conversation) -> TrainingExample:
    """ChatGLM3's and GLM-4's: each message begins with the id of its role."""
    ids = _ids(tokenizer, chat)
    is_3 = tokenizer.kind == "chatglm3"
    ids.append(tokenizer.special.eos if is_3 else _role_id(tokenizer, "user"))
    if chat.loss_on == "all":
        return _cut(TrainingExample(ids, _all(tokenizer, ids)), chat)
    roles = {_role_id(tokenizer, role): role for role in ("system", "user", "observation")}
    assistant = _role_id(tokenizer, "assistant")
    silent = ("system", "user") if is_3 and chat.loss_on == "published" else tuple(roles.values())
    speaks, said = False, []
    for id_ in ids:
        if id_ == assistant or id_ in roles:
            speaks = id_ == assistant or roles[id_] not in silent
        said.append(speaks)
    if chat.loss_on == "last":
        last = max(index for index, id_ in enumerate(ids) if id_ == assistant)
        # The published rule of GLM-4 for the last answer begins behind the line end.
        first = last if is_3 else last + 1
        said = [one and index >= first for index, one in enumerate(said)]
    return _cut(TrainingExample(ids, [False, *said[:-1]]), chat)


def by_template(
    tokenizer: Tokenizer, chat: Conversation, rendering: "Rendering"
) -> TrainingExample:
    """Any template's: what an assistant says, and the id that ends it."""
    ids, spans = rendering.answers(
        Chat(chat.messages, chat.tools, opens=False), last=chat.loss_on == "last"
    )
    ends = set(tokenizer.chat_end_ids)
    learnt = [False] * len(ids)
    for start, end in spans:
        # Behind the end id a template may write a line end, which no model has to say.
        stop = next((at + 1 for at in range(start, end) if ids[at] in ends), None)
        if stop is None:
            if end == len(ids):
                ids, learnt = [*ids, tokenizer.chat_end_ids[0]], [*learnt, False]
            stop = end + 1 if ids[end] in ends else end
        learnt[start:stop] = [True] * (stop - start)
    if chat.loss_on == "all":
        learnt = _all(tokenizer, ids)
    return _cut(TrainingExample(ids, learnt), chat)


def without_format(tokenizer: Tokenizer, chat: Conversation) -> TrainingExample:
    """Of a vocabulary without a chat format: the answer fills the blank that the messages have, or
    a [gMASK] behind them.

    Raises:
      UserError: tools, no answer, several blanks, or a text with a blank that is longer than
        `max_source_length`, since what would be cut may be the blank.
    """
    if chat.tools or any(one.get("tool_calls") or one.get("tools") for one in chat.messages):
        raise UserError("the tokenizer has no chat format, so none for tools")
    _check_one_answer(chat)
    _check_part_a(chat)
    special, said = tokenizer.special, chat.messages[-1]["content"]
    text = "\n".join(one["content"] for one in chat.messages[:-1])
    if MASK.search(text):
        part_a, answer, blank = _around_blank(tokenizer, text, said, chat.source)
    else:
        prompt, answer = tokenizer.encode(text), tokenizer.encode(said)
        # [CLS] and the blank count, as in ChatGLM-6B's rule.
        prompt = prompt if chat.source is None else prompt[: chat.source - 2]
        part_a, blank = [special.cls, *prompt, special.gmask], len(prompt) + 1
    # The start and the end count as well.
    answer = answer if chat.target is None else answer[: chat.target - 2]
    ids = [*part_a, special.start, *answer, special.end]
    learnt = [False] * (len(part_a) + 1) + [True] * (len(answer) + 1)
    return TrainingExample(ids, learnt, len(part_a), blank)


def _around_blank(
    tokenizer: Tokenizer, text: str, answer: str, most: int | None
) -> tuple[list[int], list[int], int]:
    """Part A of a text with a blank, the ids of what fills it, and the blank's index."""
    before, *rest = MASK.split(text)
    if len(rest) > 1:
        raise UserError(
            f"a prompt has one blank at most, which the answer fills; got {len(rest)}: "
            f"{short(text)}"
        )
    part_a = blanked_ids(tokenizer, text)
    if most is not None and len(part_a) > most:
        raise UserError(
            f"a prompt with a blank is not cut; it has {len(part_a)} ids with what stands around "
            f"it, more than max_source_length={most}: {short(text)}"
        )
    masks = [index for index, id_ in enumerate(part_a) if id_ in tokenizer.special.masks]
    return part_a, ids_behind(tokenizer.encode, before, answer), masks[0]


_RULES: dict[str, Callable[[Tokenizer, Conversation], TrainingExample]] = {
    "chatglm": in_blank,
    "chatglm2": behind_prompt,
    **dict.fromkeys(_WITH_ROLES, by_roles),
}


def training_example(tokenizer: Tokenizer, chat: Conversation) -> TrainingExample:
    """The example of a conversation by the rule of a tokenizer's kind, one of `settings.KINDS`."""
    return _RULES[tokenizer.kind](tokenizer, chat)


def _prompt(tokenizer: Tokenizer, chat: Conversation) -> list[int]:
    """The ids in front of the last answer."""
    _check_one_answer(chat)
    ids = tokenizer.apply_chat_template(chat.messages[:-1], chat.tools)
    assert isinstance(ids, list)
    return ids


def _ids(tokenizer: Tokenizer, chat: Conversation) -> list[int]:
    ids = tokenizer.apply_chat_template(chat.messages, chat.tools, add_generation_prompt=False)
    assert isinstance(ids, list)
    said, last = tokenizer.decode(ids), chat.messages[-1]
    if "</think>" in last["content"] and "</think>" not in said:
        raise UserError(
            "the chat format leaves the thoughts of an answer out (<think> .. </think>), so they "
            "would not be learnt; write them into the prompt's template, or leave them out"
        )
    return ids


def _check_one_answer(chat: Conversation) -> None:
    if chat.messages[-1]["role"] != "assistant":
        raise UserError(
            "the last message must be the assistant's, since it is what is learnt; got "
            f"{chat.messages[-1]['role']!r}"
        )
    if len(chat.messages) < 2:
        raise UserError("the conversation has an answer and nothing in front of it")
    count = sum(one["role"] == "assistant" for one in chat.messages)
    if chat.loss_on == "assistant" and count > 1:
        raise UserError(
            f"an example of this tokenizer has one answer; got {count} and loss_on='assistant': "
            "take loss_on='last', of the messages up to each answer one after the other"
        )


def _check_part_a(chat: Conversation) -> None:
    if chat.loss_on == "all":
        raise UserError(
            "loss_on='all' does not go with this tokenizer: its prompts are seen as a whole "
            "(part A), so there is nothing to predict in them"
        )


def _all(tokenizer: Tokenizer, ids: Sequence[int]) -> list[bool]:
    """All but what every text begins with."""
    begins = {tokenizer.special.gmask, tokenizer.special.start}
    first = next((index for index, id_ in enumerate(ids) if id_ not in begins), len(ids))
    return [index >= max(first, 1) for index in range(len(ids))]


def _cut(example: TrainingExample, chat: Conversation) -> TrainingExample:
    if chat.source is None or chat.target is None:
        return example
    most = chat.source + chat.target + 1
    return TrainingExample(example.ids[:most], example.learnt[:most])


def _role_id(tokenizer: Tokenizer, role: str) -> int:
    return tokenizer.encode(f"<|{role}|>", allow_special=True)[-1]
