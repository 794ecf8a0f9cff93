"""What a model has said in a chat: text, thoughts and calls of tools.

    <think>hm</think>yes          ->   content "yes", reasoning_content "hm"
    get_weather                   ->   metadata "get_weather", content '{"city": "x"}', tool_calls
    {"city": "x"}
    get_weather                   ->   content "get_weather\\n{city: x}"
    {city: x}

A call that cannot be read, one that does more than to name its arguments for example, stays text.
"""

import re
from collections.abc import Sequence

from glm_jax.json_files import JsonObject
from glm_jax.tokenizers.calls import Calls
from glm_jax.tokenizers.chat_formats import split_thoughts

# Names that models give to what is no function: code to run, pages to look at.
_BUILT_IN = ("interpreter", "python", "simple_browser", "cogview")
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}", re.ASCII)


def read_turn(texts: Sequence[str], calls: Calls | None, has_tools: bool) -> JsonObject:
    """The message that an answer is.

    Args:
      texts: the answer, cut where the model began a new message of its own.
      calls: as its generation writes them; None: it calls no tools.
      has_tools: whether the model was given tools; without them there are no calls.

    Returns:
      The last message; the others, if there are any, under "earlier".
    """
    *earlier, last = [_read(text, calls, has_tools) for text in texts]
    return {**last, "earlier": earlier} if earlier else last


def _read(text: str, calls: Calls | None, has_tools: bool) -> JsonObject:
    text, thoughts = split_thoughts(text)
    metadata, line_end, content = text.partition("\n")
    name = metadata.strip()
    message: JsonObject = {"role": "assistant", "content": plain(text)}
    if line_end and calls is not None and _NAME.fullmatch(name):
        arguments = calls.read(content)
        if name in _BUILT_IN or arguments is not None:
            message.update(content=content, metadata=name)
        if has_tools and arguments is not None:
            function = {"name": name, "arguments": arguments}
            message["tool_calls"] = [{"type": "function", "function": function}]
    return message if thoughts is None else {**message, "reasoning_content": thoughts}


def plain(text: str) -> str:
    """A reply as it is shown: the models were taught to write their year as a slot to fill in."""
    return text.strip().replace("[[训练时间]]", "2023年")
