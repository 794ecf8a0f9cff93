"""Server-sent events, as OpenAI's API streams them.

data: {"id": .., "object": "chat.completion.chunk", ..}

data: [DONE]
"""

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

from glm_jax.serving.errors import api_error

DONE = b"data: [DONE]\n\n"


def event(value: object) -> bytes:
    """One event that holds a JSON value."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


async def events(
    values: AsyncIterator[object], places: Iterable[str] = ()
) -> AsyncGenerator[bytes, None]:
    """Events of JSON values, and the end; an error is an event too, and nothing follows it.

    Args:
      values: of the stream.
      places: as of `api_error`.
    """
    try:
        async for value in values:
            yield event(value)
    except Exception as error:
        told = api_error(error, places)
        if told.code == "internal_error":
            logging.getLogger("glm_jax.serve").exception("a stream has failed")
        yield event(told.body())
        return
    yield DONE
