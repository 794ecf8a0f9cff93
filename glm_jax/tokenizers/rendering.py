"""A chat by a checkpoint's template: its text, its ids, and which of them an assistant has said.

[user hi] [assistant yes]  ->  <|user|> hi <|end|> <|assistant|> yes <|end|>
                                                                 ^^^^^^^^^^^  `answers`
"""

import dataclasses
import re
from collections.abc import Callable, Mapping

from glm_jax.errors import UserError
from glm_jax.json_files import JsonObject
from glm_jax.tokenizers.calls import Calls, with_calls_as_text
from glm_jax.tokenizers.chat_formats import Chat
from glm_jax.tokenizers.messages import Message
from glm_jax.tokenizers.sandbox import ANSWER_MARKS
from glm_jax.tokenizers.templates import ChatTemplate, Disguise

# How GLM-4's template looks for tools: on a message, not by themselves.
_TOOLS_OF_A_MESSAGE = re.compile(r"\[['\"]tools['\"]\]|\.tools\b")
_BEGIN, _END = ANSWER_MARKS


@dataclasses.dataclass(frozen=True)
class Rendering:
    """How a tokenizer fills in one template.

    Attributes:
      template: of the checkpoint.
      special_ids: the id of every special token, by its spelling.
      spelling: splits a text at these spellings; odd parts are spellings.
      encode: the ids of a text without special tokens.
      names: bos_token and others, as templates are given them.
      calls: how the model calls tools; None: it does not.
    """

    template: ChatTemplate
    special_ids: Mapping[str, int]
    spelling: re.Pattern[str]
    encode: Callable[[str], list[int]]
    names: Mapping[str, str]
    calls: Calls | None

    def text(self, chat: Chat, variables: Mapping[str, object]) -> str:
        """The prompt as text.

        Raises:
          UserError: a variable that the template does not use, or as `ChatTemplate.render`.
        """
        given, disguise = self._given(chat)
        return disguise.take_off(self._render(chat, given, disguise, variables))

    def ids(self, chat: Chat, variables: Mapping[str, object]) -> list[int]:
        """The prompt as ids; as `text`."""
        given, disguise = self._given(chat)
        return self._ids(self._render(chat, given, disguise, variables), disguise)

    def answers(self, chat: Chat, last: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a whole chat, and (start, end) of those that each assistant's message takes.

        A template may say itself what the model says, `{% generation %}`. Of others, an answer is
        what the chat with it has more than the chat before it, opened for an answer.

        Args:
          chat: all of it; not opened.
          last: of the last answer alone.

        Raises:
          UserError: the template writes the messages before an answer in another way with it than
            without; or as `text`.
        """
        given, disguise = self._given(chat)
        if "endgeneration" in self.template.source:
            marked = self._render(chat, given, disguise, {}, marks=True)
            text, spans = _without_marks(marked)
            spans = spans[-1:] if last else spans
        else:
            text = self._render(chat, given, disguise, {})
            spans = self._spans(chat, text, disguise, last)
        ids = self._ids(text, disguise)

        def slot(edge: int) -> int:
            # A token across the edge belongs to the answer.
            return _common(ids, self._ids(text[:edge], disguise))

        cuts = [(slot(start), slot(end)) for start, end in spans]
        return ids, cuts

    def _spans(
        self, chat: Chat, text: str, disguise: Disguise, last: bool
    ) -> list[tuple[int, int]]:
        indices = [n for n, one in enumerate(chat.messages) if one["role"] == "assistant"]
        spans = []
        for index in indices[-1:] if last else indices:
            before = dataclasses.replace(chat, messages=chat.messages[:index], opens=True)
            until = dataclasses.replace(chat, messages=chat.messages[: index + 1])
            edges = []
            for part in (before, until):
                begun = self._render(part, self._fitting(part), disguise, {})
                if not text.startswith(begun):
                    raise UserError(
                        f"{self.template.name} does not allow to tell what the assistant says: it "
                        f"writes messages[{index}] and what is before in another way where more "
                        'follows; take loss_on="last" or "all", or mark the answers in it by '
                        "{% generation %} .. {% endgeneration %}"
                    )
                edges.append(len(begun))
            spans.append((edges[0], edges[1]))
        return spans

    def _given(self, chat: Chat) -> tuple[dict[str, object], Disguise]:
        given = self._fitting(chat)
        return given, Disguise(self.special_ids, given)

    def _render(
        self,
        chat: Chat,
        given: dict[str, object],
        disguise: Disguise,
        variables: Mapping[str, object],
        marks: bool = False,
    ) -> str:
        unknown = sorted(set(variables) - self.template.variables)
        if unknown:
            raise UserError(f"{self.template.name} does not use {', '.join(unknown)}")
        values = {**self.names, **variables, "add_generation_prompt": chat.opens}
        shown = disguise.put_on(given)
        assert isinstance(shown, dict)
        return self.template.render({**values, **shown}, marks)

    def _ids(self, text: str, disguise: Disguise) -> list[int]:
        ids: list[int] = []
        for index, part in enumerate(self.spelling.split(text)):
            if index % 2:
                ids.append(self.special_ids[part])
            elif part:
                ids += self.encode(disguise.take_off(part))
        return ids

    def _fitting(self, chat: Chat) -> dict[str, object]:
        """The messages and tools in the form that the template looks for."""
        messages, tools, source = chat.messages, chat.tools, self.template.source
        if "observation" in source:
            messages = [
                {**one, "role": "observation" if one["role"] == "tool" else one["role"]}
                for one in messages
            ]
        if "tool_calls" not in source and any(one.get("tool_calls") for one in messages):
            if self.calls is None:
                raise UserError(f"{self.template.name} has no calls of tools")
            messages = with_calls_as_text(messages, self.calls)
        if tools is not None and _TOOLS_OF_A_MESSAGE.search(source):
            message: Message = {"role": "system", "content": "", "tools": tools}
            messages, tools = [message, *messages], None
        return {"messages": messages, "tools": tools}


def names_of(config: JsonObject) -> dict[str, str]:
    """bos_token and others of a tokenizer_config.json, as templates are given them."""
    found = {}
    for name, value in config.items():
        value = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(value, str):
            found[name] = value
    return found


def _without_marks(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without marks, and (start, end) of what stood between each pair."""
    parts = re.split(f"[{_BEGIN}{_END}]", text)
    edges, size = [], 0
    for part in parts[:-1]:
        size += len(part)
        edges.append(size)
    return "".join(parts), list(zip(edges[::2], edges[1::2], strict=True))


def _common(ids: list[int], begun: list[int]) -> int:
    """How many ids two lists have in common at their beginning."""
    for index, (one, other) in enumerate(zip(ids, begun, strict=False)):
        if one != other:
            return index
    return min(len(ids), len(begun))
