"""A chat model's answer in the form of OpenAI's API, whole or in parts.

"<think>hm</think>yes"              {"reasoning_content": "hm", "content": "yes"}
'get_weather\\n{"city": "x"}'        {"tool_calls": [{"id": "call_..", "type": "function",
                                      "function": {"name": "get_weather",
                                                   "arguments": '{"city": "x"}'}}]}

Parts are found by reading the answer so far again (`Tokenizer.read_answer`), and passing on by how
much each field has grown; what may yet turn out to be something else waits.
"""

import itertools
import json
import re
import secrets
from collections.abc import Callable, Iterator, Sequence

from glm_jax.json_files import JsonObject
from glm_jax.serving.stops import longest_beginning

# Part of a message, as the "delta" of a chunk holds it.
Delta = JsonObject
# Reads the text of an answer.
Read = Callable[[str], JsonObject]

# What may stand in the text of an answer, and is none of its content.
_MARKS = ("<think>", "</think>", "<|assistant|>", "[[训练时间]]")
# ChatGLM-6B's signs become full-width ones beside a Chinese character, which may yet come.
_CHANGING = re.compile(r"[,!:;?]+$")
# The first line of a call is the name of a function, and its arguments follow.
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}", re.ASCII)


def whole(text: str, read: Read) -> JsonObject:
    """The message of an answer that has ended.

    Returns:
      role, content (None beside calls alone); tool_calls, reasoning_content and metadata (a name
      that the model wrote in front of its text, such as that of a tool of its own) if there are
      any.
    """
    message = read(text)
    parts = _parts(message)
    calls = [call for part in parts for call in part.get("tool_calls", [])]
    texts = [part["content"] for part in parts if not part.get("tool_calls")]
    content = "\n".join(filter(None, texts))
    found: JsonObject = {"role": "assistant", "content": content if content or not calls else None}
    thoughts = [part["reasoning_content"] for part in parts if part.get("reasoning_content")]
    if thoughts:
        found["reasoning_content"] = "\n".join(thoughts)
    if calls:
        found["tool_calls"] = [_call(call["function"]) for call in calls]
    elif message.get("metadata"):
        found["metadata"] = message["metadata"]
    return found


class Reply:
    """An answer in parts. Joined, they are what `whole` gives.

    Attributes:
      calls: number of calls of functions so far.
    """

    def __init__(self, read: Read, has_tools: bool):
        """Args:
        read: the text of an answer -> its message.
        has_tools: whether the model was given functions to call.
        """
        self.calls = 0
        self._read, self._has_tools = read, has_tools
        self._text, self._index = "", 0
        self._shown = {"reasoning_content": "", "content": ""}
        self._said: set[str] = set()

    def push(self, text: str) -> list[Delta]:
        """Takes more text."""
        self._text += text
        return list(self._new(False)) if text else []

    def finish(self) -> list[Delta]:
        """What waits, when nothing follows."""
        return list(self._new(True))

    def _new(self, ended: bool) -> Iterator[Delta]:
        parts = _parts(self._read(self._text))
        while self._index < len(parts):
            part = parts[self._index]
            closed = ended or self._index < len(parts) - 1
            yield from self._of_part(part, closed)
            if not closed:
                return
            self._index += 1
            self._shown = dict.fromkeys(self._shown, "")

    def _of_part(self, part: JsonObject, closed: bool) -> Iterator[Delta]:
        """What a message of the answer has more than before; `closed`: it stays as it is."""
        yield from self._grown("reasoning_content", part.get("reasoning_content") or "", closed)
        if not closed and self._may_be_call(part):
            return
        if calls := part.get("tool_calls"):
            for call in calls:
                yield from self._of_call(call["function"])
            return
        if closed and part.get("metadata") and not self.calls:
            yield {"metadata": part["metadata"]}
        yield from self._grown("content", part["content"], closed)

    def _grown(self, field: str, text: str, closed: bool) -> Iterator[Delta]:
        shown = self._shown[field]
        if not closed:
            text = text[: len(text) - longest_beginning(text, _MARKS)]
            text = _CHANGING.sub("", text).rstrip()
            if not text.startswith(shown):
                return
        # Text that has become another is not taken back: what is new in it follows.
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(shown, text, strict=False))
        new = text[len(shown) if text.startswith(shown) else len(list(same)) :]
        if new:
            # A model that goes on in a message of its own begins a line.
            first = not shown and field in self._said
            self._said.add(field)
            self._shown[field] = text
            yield {field: f"\n{new}" if first else new}

    def _may_be_call(self, part: JsonObject) -> bool:
        """Whether what there is of a message may be the beginning of a call."""
        if part.get("metadata"):
            return True
        name, line_end, rest = part["content"].partition("\n")
        return _NAME.fullmatch(name.strip()) is not None and (
            not line_end or rest.lstrip()[:1] in ("", "{", "`")
        )

    def _of_call(self, function: JsonObject) -> Iterator[Delta]:
        call, index = _call(function), self.calls
        self.calls += 1
        arguments = call["function"]["arguments"]
        call["function"]["arguments"] = ""
        yield {"tool_calls": [{"index": index, **call}]}
        yield {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}


def _parts(message: JsonObject) -> Sequence[JsonObject]:
    """The messages of one answer: a model may begin new ones."""
    return [*message.get("earlier", []), message]


def _call(function: JsonObject) -> JsonObject:
    """{"name": .., "arguments": {..}} as OpenAI has it."""
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    written = {"name": function["name"], "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": written}
