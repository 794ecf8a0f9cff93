r"""The messages in front of an answer, of the shapes that files of pairs and of prompts have.

{"prompt": "hi"}                                {"messages": [{"role": .., "content": ..}]}
{"conversations": [{"from": "human", ..}]}      {"prompt": "\n\nHuman: hi\n\nAssistant:"}
"""

import re
from collections.abc import Mapping

from glm_jax.config.examples import ExamplesConfig
from glm_jax.data.examples.conversations import of_sharegpt
from glm_jax.errors import UserError, did_you_mean, short
from glm_jax.json_files import JsonObject, some
from glm_jax.tokenizers.messages import Message, checked_messages, with_our_roles

# Who speaks in a transcript; its turns begin behind an empty line.
_TURN = re.compile(r"\n\n(Human|Assistant):")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def prompt_key(record: JsonObject, config: ExamplesConfig) -> str | None:
    """The key of what an answer follows; None: the object has none of those."""
    named = [config.messages_field] if config.messages_field else ["messages", "conversations"]
    return next((one for one in [config.prompt_field, *named] if one in record), None)


def prompt_of(record: JsonObject, config: ExamplesConfig) -> list[Message] | None:
    """The messages that an answer follows; None: the object has none of the keys for them."""
    name, default = prompt_key(record, config), ExamplesConfig()
    for option in ("prompt_field", "messages_field"):
        asked = getattr(config, option)
        if asked != getattr(default, option) and asked not in record:
            column_of(record, str(asked))
    if name is None:
        return None
    given = record[name]
    if isinstance(given, str):
        if given.startswith("\n\nHuman:"):
            return of_transcript(re.sub(r"\n\nAssistant:\s*$", "", given), name)
        given = [{"role": "user", "content": given}]
    messages = messages_of(given, name)
    system = record.get("system")
    if system and messages[0]["role"] != "system":
        messages = messages_of([{"role": "system", "content": system}, *messages], name)
    return messages


def messages_of(given: object, name: str) -> list[Message]:
    """Checked messages in our roles, of any of the two ways to write them."""
    said: list = given if isinstance(given, list) else [given]
    if not said or not all(isinstance(one, Mapping) for one in said):
        raise UserError(
            f"{name!r} must be a text, a message or a list of messages; got {short(given)}"
        )
    plain = [of_sharegpt(one) if "from" in one else dict(one) for one in said]
    return with_our_roles(checked_messages(plain))


def of_transcript(text: str, name: str) -> list[Message]:
    r"""The messages of "\n\nHuman: hi\n\nAssistant: Hello!"."""
    parts = _TURN.split(text)
    if parts[0].strip() or len(parts) < 3:
        raise UserError(
            f"{name!r} must be a transcript that begins with '\\n\\nHuman:'; got {short(text)}"
        )
    return [
        {"role": _SPEAKERS[speaker], "content": said.strip()}
        for speaker, said in zip(parts[1::2], parts[2::2], strict=True)
    ]


def column_of(record: JsonObject, name: str) -> object:
    if name not in record:
        raise UserError(
            f"there is no key {name!r}{did_you_mean(name, record)}; the keys are "
            f"{some(list(record))}"
        )
    return record[name]
