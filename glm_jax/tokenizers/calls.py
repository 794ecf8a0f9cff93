"""Calls of tools as models write them. They are read by their form alone; nothing is evaluated.

ChatGLM3                              GLM-4
    get_weather                           get_weather
     ```python                            {"city": "Beijing"}
    tool_call(city='Beijing')
    ```

-> name "get_weather", arguments {"city": "Beijing"}
"""

import ast
import dataclasses
import json
import math
import re
import warnings
from collections.abc import Callable, Sequence

from glm_jax.json_files import JsonObject
from glm_jax.tokenizers.messages import Message, calls_of

_FENCED = re.compile(r"\s*```[^\n`]*\n(.*?)\n?```\s*", re.DOTALL)
_LONGEST_CALL = 100_000


@dataclasses.dataclass(frozen=True)
class Calls:
    """How the models of a generation write the arguments of a call, behind its name.

    Attributes:
      write: arguments -> the text.
      read: the text -> arguments; None: it is no call.
    """

    write: Callable[[JsonObject], str]
    read: Callable[[str], JsonObject | None]


def with_calls_as_text(messages: Sequence[Message], calls: Calls) -> list[Message]:
    """Calls of tools as the model writes them: one message each, with the name as its metadata.

    A message with metadata is taken as it stands: its content is what the model wrote.
    """
    found: list[Message] = []
    for message in messages:
        given = calls_of(message)
        if not given or message.get("metadata"):
            found.append(message)
            continue
        rest = {key: value for key, value in message.items() if key != "tool_calls"}
        if message["content"]:
            found.append(rest)
        found += [
            {**rest, "metadata": name, "content": calls.write(arguments)}
            for name, arguments in given
        ]
    return found


def python_text(arguments: JsonObject) -> str:
    """{"city": "Beijing"} as ChatGLM3 writes it; the inverse of `python_call`."""
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f" ```python\ntool_call({given})\n```"


def json_text(arguments: JsonObject) -> str:
    """{"city": "Beijing"} as GLM-4 writes it; the inverse of `json_call`."""
    return json.dumps(arguments, ensure_ascii=False)


def python_call(content: str) -> JsonObject | None:
    """The arguments of ChatGLM3's ```` ```python\\ntool_call(city='Beijing')\\n``` ````.

    Values are literals of the types of JSON, tuples among them; None: it is another thing.
    """
    found = _FENCED.fullmatch(content[:_LONGEST_CALL])
    if found is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            call = ast.parse(found[1].strip(), mode="eval").body
            if not isinstance(call, ast.Call) or call.args:
                return None
            if not isinstance(call.func, ast.Name) or call.func.id != "tool_call":
                return None
            values = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
        if len(values) < len(call.keywords):  # a name twice
            return None
        return {_text(name): _literal(value) for name, value in values.items()}
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def json_call(content: str) -> JsonObject | None:
    """The arguments of GLM-4's `{"city": "Beijing"}`; None: it is no JSON object."""
    try:
        found = json.loads(content[:_LONGEST_CALL], parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(name: object) -> str:
    if not isinstance(name, str):  # **more
        raise ValueError("not a name")
    return name


def _literal(value: object) -> object:
    """A literal as JSON has it.

    Raises:
      ValueError: JSON does not have it.
    """
    if isinstance(value, dict):
        return {_text(key): _literal(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a number")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"JSON has no {type(value).__name__}")


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


PYTHON_CALLS = Calls(python_text, python_call)
JSON_CALLS = Calls(json_text, json_call)
