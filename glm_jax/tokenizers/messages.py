"""The messages of a chat, as users give them: checked, and in one form.

{"role": "user", "content": "hi"}
{"role": "assistant", "content": "..", "metadata": "get_weather"}            as ChatGLM3 writes
{"role": "assistant", "tool_calls": [{"type": "function",                    as OpenAI has it
    "function": {"name": "get_weather", "arguments": {"city": "Beijing"}}}]}
{"role": "observation", "content": "22"}        or role "tool", as OpenAI has it
"""

from collections.abc import Iterable, Mapping, Sequence

from glm_jax.errors import UserError, short
from glm_jax.json_files import JsonObject, parse_object
from glm_jax.tokenizers.ids import check_text
from glm_jax.tokenizers.protocol import Messages

ROLES = ("system", "user", "assistant", "observation")
# Other words for results of tools.
_RESULTS = ("tool", "function")

Message = JsonObject


def checked_messages(messages: Messages) -> list[Message]:
    """Copies of the messages of a chat.

    Args:
      messages: dicts with a role and a content, which may be missing beside tool_calls; optional
        metadata, tools, tool_calls. `earlier`, as `read_answer` gives it, holds messages that the
        model has said before in the same answer; they come in front.

    Raises:
      UserError: not such messages; names the one.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise UserError(
            f"messages must be a list of dicts with a role and a content; got {short(messages)}"
        )
    found: list[Message] = []
    for index, message in enumerate(messages):
        name = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise UserError(f"{name} must be a dict with a role and a content; got {message!r}")
        earlier = message.get("earlier") or []
        if not isinstance(earlier, Sequence) or isinstance(earlier, str):
            raise UserError(f"{name}['earlier'] must be a list of messages; got {short(earlier)}")
        for one in [*earlier, message]:
            found.append(_checked(one, name))
    if not found:
        raise UserError("messages must have one message at least; got none")
    return found


def with_our_roles(messages: Sequence[Message]) -> list[Message]:
    """The messages with roles of `ROLES` alone.

    Raises:
      UserError: one has another role.
    """
    found = []
    for index, message in enumerate(messages):
        role = "observation" if message["role"] in _RESULTS else message["role"]
        if role not in ROLES:
            raise UserError(
                f"messages[{index}] must have a role of {list(ROLES)}, or 'tool' for "
                f"'observation'; got {short(role)}"
            )
        found.append({**message, "role": role})
    return found


def checked_tools(tools: Messages | None) -> list[JsonObject] | None:
    """Copies of the descriptions of tools; None where there are none.

    Raises:
      UserError: not dicts that name a function.
    """
    if tools is None:
        return None
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Iterable):
        raise UserError(f"tools must be a list of dicts; got {short(tools)}")
    return [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)] or None


def function_of(tool: Mapping[str, object]) -> JsonObject:
    """{"type": "function", "function": {..}} -> the inner dict; one without them stays itself."""
    inner = tool.get("function")
    return dict(inner) if isinstance(inner, Mapping) else dict(tool)


def calls_of(message: Message, name: str = "tool_calls") -> list[tuple[str, JsonObject]]:
    """(name, arguments) of each call in a message.

    Raises:
      UserError: a call without a name, or arguments that are neither a dict nor JSON of one.
    """
    found = []
    for call in message.get("tool_calls") or []:
        inner = function_of(call) if isinstance(call, Mapping) else {}
        called, arguments = inner.get("name"), inner.get("arguments", {})
        if isinstance(arguments, str):
            arguments = parse_object(arguments, f"the arguments in {name}")
        if not isinstance(called, str) or not isinstance(arguments, Mapping):
            raise UserError(
                f"{name} must be a list of {{'function': {{'name': .., 'arguments': {{..}}}}}}; "
                f"got {short(call)}"
            )
        found.append((called, dict(arguments)))
    return found


def _checked(message: object, name: str) -> Message:
    if not isinstance(message, Mapping):
        raise UserError(f"{name} must be a dict with a role and a content; got {short(message)}")
    given = {key: value for key, value in message.items() if key != "earlier"}
    if not isinstance(given.get("role"), str):
        raise UserError(f"{name} must have a role, one of {list(ROLES)}; got {short(message)}")
    content = given.get("content")
    if content is None and given.get("tool_calls"):
        content = ""
    if isinstance(content, list):
        content = "".join(_text_part(part, name) for part in content)
    given = _json({**given, "content": content}, name, 0)
    check_text(f"{name}['content']", given["content"], "a message is text")
    if given.get("metadata") is None:
        given.pop("metadata", None)
    else:
        check_text(f"{name}['metadata']", given["metadata"], "it is the name of a tool")
    if given.get("tools") is None:
        given.pop("tools", None)
    else:
        given["tools"] = checked_tools(given["tools"]) or []
    calls_of(given, f"{name}['tool_calls']")
    return given


def _text_part(part: object, name: str) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text":
        return check_text(f"{name}['content']", part.get("text"), "a message is text")
    kind = part.get("type") if isinstance(part, Mapping) else part
    raise UserError(f"{name} must have text alone in its content; got {short(kind)}")


def _tool(tool: object, name: str) -> JsonObject:
    if not isinstance(tool, Mapping):
        raise UserError(f"{name} must be a dict that describes a function; got {short(tool)}")
    given = _json(tool, name, 0)
    if not isinstance(function_of(given).get("name"), str) and given.get("type") in (
        None,
        "function",
    ):
        raise UserError(f"{name} must name its function; got {short(tool)}")
    return given


def _json(value: Mapping, name: str, depth: int) -> JsonObject:
    """A copy of a dict of the types of JSON, which is all that templates are given."""
    return {_key(key, name): _json_value(one, name, depth) for key, one in value.items()}


def _json_value(value: object, name: str, depth: int) -> object:
    if depth > 50:
        raise UserError(f"{name} must not be nested deeper than 50 levels")
    if isinstance(value, Mapping):
        return _json(value, name, depth + 1)
    if isinstance(value, list | tuple):
        return [_json_value(one, name, depth + 1) for one in value]
    if isinstance(value, str):
        return check_text(name, value, "")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise UserError(f"{name} must hold what JSON has; got {short(value)}")


def _key(key: object, name: str) -> str:
    if not isinstance(key, str):
        raise UserError(f"{name} must have texts as its keys; got {short(key)}")
    return check_text(name, key, "")
