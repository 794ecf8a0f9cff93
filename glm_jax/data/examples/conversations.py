"""The formats of files of conversations, each read into messages.

    prompt_response  {"prompt": "hi", "response": "yes", "history": [["q", "a"]]}
    chatglm3         {"conversations": [{"role": "user", "content": "hi"}, ..], "tools": [..]}
    messages         {"messages": [{"role": "user", "content": "hi"}, ..], "tools": [..]}
    sharegpt         {"conversations": [{"from": "human", "value": "hi"}, ..], "system": ".."}
        -> [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]

Their sources: the fine-tuning code of each repository of ChatGLM and GLM-4, OpenAI's chat messages,
and the files of Vicuna, whose other roles ("function_call", "observation") LLaMA-Factory has added.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from glm_jax.config.examples import ExamplesConfig
from glm_jax.errors import UserError, did_you_mean, short
from glm_jax.json_files import JsonObject, parse_object, some
from glm_jax.tokenizers.messages import (
    Message,
    checked_messages,
    checked_tools,
    function_of,
    with_our_roles,
)

# What ShareGPT calls the roles.
_FROM = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "assistant", "bing", "bard"), "assistant"),
    "system": "system",
    **dict.fromkeys(("observation", "tool", "function_response"), "observation"),
    "function_call": "assistant",
}
# The roles that may follow each; None: at the beginning.
_NEXT: dict[str | None, tuple[str, ...]] = {
    None: ("system", "user"),
    "system": ("system", "user"),
    "user": ("assistant",),
    "assistant": ("user", "assistant", "observation"),
    "observation": ("assistant", "observation"),
}


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """A conversation, checked.

    Attributes:
      messages: in the order in which roles follow each other; the last is the assistant's.
      tools: descriptions of tools, or None.
    """

    messages: list[Message]
    tools: list[JsonObject] | None

    @property
    def content(self) -> str:
        """All of it as one text, the same for the same conversation in another format."""
        return json.dumps([self.messages, self.tools], sort_keys=True)


def read_dialogue(record: JsonObject, config: ExamplesConfig) -> Dialogue:
    """The conversation in an object of a file.

    Args:
      record: the object.
      config: its format and the names of its columns.

    Raises:
      UserError: a column that it lacks, a content that is no text, roles out of order, no answer of
        the assistant, or tools that are no JSON schema.
    """
    kind = _format_of(record, config) if config.format == "auto" else config.format
    given: list[JsonObject]
    if kind == "prompt_response":
        given, tools = _pairs(record, config), None
    else:
        said = _messages(record, config)
        given = [of_sharegpt(one) for one in said] if kind == "sharegpt" else list(said)
        system = record.get("system")
        if kind == "sharegpt" and system:
            given = [{"role": "system", "content": system}, *given]
        tools = tools_of(record.get(config.tools_field), config.tools_field)
    messages = with_our_roles(checked_messages(given))
    check_turns(messages)
    for number, message in enumerate(messages):
        _check_schemas(message.get("tools") or [], f"messages[{number}]['tools']")
    return Dialogue(messages, tools)


def check_turns(messages: Sequence[Message]) -> None:
    """Refuses roles out of order.

    Raises:
      UserError: names the message; or there is no answer, or the last is not one.
    """
    before = None
    for number, message in enumerate(messages):
        role = message["role"]
        if role not in _NEXT[before]:
            after = "at the beginning" if before is None else f"after {before!r}"
            raise UserError(
                f"roles are out of order: messages[{number}] is of {role!r}, and {after} comes "
                f"{' or '.join(map(repr, _NEXT[before]))}"
            )
        before = role
    if not any(message["role"] == "assistant" for message in messages):
        raise UserError("no message is the assistant's, so there is nothing to learn")
    if before != "assistant":
        raise UserError(f"the last message must be the assistant's; it is of {before!r}")


def _format_of(record: JsonObject, config: ExamplesConfig) -> str:
    """The format of an object, told from its keys."""
    if config.prompt_field in record and config.response_field in record:
        return "prompt_response"
    name = _messages_field(record, config)
    if name not in record:
        raise UserError(
            f"examples.format='auto' looks for {config.prompt_field!r} and "
            f"{config.response_field!r}, for 'messages' or for 'conversations'; the columns are "
            f"{some(list(record))}"
        )
    said = record[name]
    first = said[0] if isinstance(said, list) and said else {}
    return "sharegpt" if isinstance(first, Mapping) and "from" in first else "messages"


def _messages_field(record: JsonObject, config: ExamplesConfig) -> str:
    if config.messages_field is not None:
        return config.messages_field
    first, other = ("messages", "conversations")
    if config.format in ("chatglm3", "sharegpt"):
        first, other = other, first
    return other if other in record and first not in record else first


def _column(record: JsonObject, name: str, option: str) -> object:
    if name not in record:
        raise UserError(
            f"there is no column {name!r} (examples.{option}); the columns are "
            f"{some(list(record))}{did_you_mean(name, record)}"
        )
    return record[name]


def _pairs(record: JsonObject, config: ExamplesConfig) -> list[JsonObject]:
    history = record.get(config.history_field) or []
    if config.history_field != ExamplesConfig().history_field:
        history = _column(record, config.history_field, "history_field") or []
    if not isinstance(history, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in history
    ):
        raise UserError(
            f"{config.history_field!r} must be a list of [question, answer]; got {short(history)}"
        )
    prompt = _column(record, config.prompt_field, "prompt_field")
    response = _column(record, config.response_field, "response_field")
    names = (config.prompt_field, config.response_field)
    for name, text in zip(names, (prompt, response), strict=True):
        if not isinstance(text, str):
            raise UserError(f"{name!r} must be a text; got {short(text)}")
    return [
        {"role": role, "content": text}
        for pair in [*history, [prompt, response]]
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def _messages(record: JsonObject, config: ExamplesConfig) -> list[JsonObject]:
    name = _messages_field(record, config)
    said = _column(record, name, "messages_field")
    if not isinstance(said, list):
        raise UserError(f"{name!r} must be a list of messages; got {short(said)}")
    return said  # each is checked by `checked_messages`


def of_sharegpt(one: object) -> JsonObject:
    """A message of ShareGPT, {"from": .., "value": ..}, as one with a role.

    Raises:
      UserError: it is none.
    """
    if not isinstance(one, Mapping) or "from" not in one or "value" not in one:
        raise UserError(f"a message of ShareGPT must have 'from' and 'value'; got {short(one)}")
    said, value = one["from"], one["value"]
    if said not in _FROM:
        raise UserError(f"'from' must be one of {list(_FROM)}; got {short(said)}")
    if said == "function_call":
        if not isinstance(value, str):
            raise UserError(f"'value' of a function_call must be JSON text; got {short(value)}")
        call = parse_object(value, "the function_call")
        return {"role": "assistant", "content": "", "tool_calls": [{"function": call}]}
    return {"role": _FROM[said], "content": value}


def tools_of(given: object, name: str) -> list[JsonObject] | None:
    """The descriptions of tools: a list, or JSON of one; None where there are none.

    Raises:
      UserError: they are no descriptions, or have no JSON schemas.
    """
    if isinstance(given, str) and given.strip():
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name!r} is a text, and not JSON: {error}") from None
    if not given:
        return None
    if not isinstance(given, list):
        raise UserError(f"{name!r} must be a list of descriptions of tools; got {short(given)}")
    tools = checked_tools(given)
    _check_schemas(tools or [], name)
    return tools


def _check_schemas(tools: Sequence[JsonObject], name: str) -> None:
    """Refuses a tool whose parameters are no JSON schema."""
    for number, tool in enumerate(tools):
        parameters = function_of(tool).get("parameters")
        if parameters is None:
            continue
        import jsonschema  # takes a while to import, and few files have tools

        where = f"the parameters of {name}[{number}]"
        if not isinstance(parameters, Mapping):
            raise UserError(f"{where} must be a JSON schema; got {short(parameters)}")
        try:
            jsonschema.Draft202012Validator.check_schema(parameters)
        except jsonschema.SchemaError as error:
            raise UserError(f"{where} must be a JSON schema: {error.message}") from None
