"""Fields of OpenAI's API that this server has not: taken at the values at which they do nothing.

Clients write out defaults: {"frequency_penalty": 0} asks for nothing, and passes. What asks for
something is refused by name, and so is a field that nobody knows.

    check_fields({"model": "m", "frequency_penalty": 0}, {"model"})    {"model": "m"}
    check_fields({"frequency_penalty": 1}, {"model"})                  refused
"""

from collections.abc import Mapping, Set

from pydantic_core import PydanticCustomError

from glm_jax.errors import did_you_mean, short

# null is taken for each of them. Those that change no answer, only what is kept of it elsewhere,
# are taken at any value: `ANY`.
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "parallel_tool_calls": (True,),
    "functions": ([],),
    "function_call": ("auto", "none"),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "suffix": ("",),
    "min_p": (0,),
    "length_penalty": (1,),
    "use_beam_search": (False,),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "stop_token_ids": ([],),
}
ANY = ("metadata", "safety_identifier", "prompt_cache_key")
# Of a message, as clients give the server's own answers back.
NEUTRAL_IN_MESSAGES: Mapping[str, tuple[object, ...]] = {
    "refusal": (),
    "annotations": ([],),
    "audio": (),
    "function_call": (),
}


def check_fields(
    given: Mapping[str, object],
    known: Set[str],
    neutral: Mapping[str, tuple[object, ...]] = NEUTRAL,
    ignored: tuple[str, ...] = ANY,
) -> dict[str, object]:
    """The fields that are known.

    Args:
      given: all fields of a request.
      known: names of those that act.
      neutral: names of those that are taken at some values, and these values.
      ignored: names of those that are taken at any value.

    Raises:
      PydanticCustomError: another field, or another value.
    """
    for name, value in given.items():
        if name in known or name in ignored or (name in neutral and value is None):
            continue
        if name not in neutral:
            raise refused(name, f"unknown field {short(name)}{did_you_mean(name, known)}")
        if not any(_same(value, one) for one in neutral[name]):
            allowed = " or ".join(["null", *map(_json, neutral[name])])
            raise refused(
                name, f"{name} is not supported: it must be {allowed}; got {short(value)}"
            )
    return {name: value for name, value in given.items() if name in known}


def refused(param: str, message: str) -> PydanticCustomError:
    """An error of validation that names its field."""
    # Braces in a template are filled in, one name after the other: the message comes last.
    return PydanticCustomError("refused", "{said}", {"param": param, "said": message})


def _same(value: object, neutral: object) -> bool:
    """Equal, but 0 is not false."""
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _json(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
