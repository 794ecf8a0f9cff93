"""What POST /v1/blanks is asked and what it answers, as pydantic models."""

import itertools
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from glm_jax.serving.asking import MOST_ALTERNATIVES

# Fields are known, and of their own type: "5" is no number, and NaN none either.
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_EXAMPLE: dict[str, JsonValue] = {
    "text": "She bore a [MASK], and called his name [MASK].",
    "order": [[0, 1], [1, 0]],
    "logprobs": 3,
}


class TextPart(BaseModel):
    """Letters; whatever they spell, they stay letters."""

    model_config = ConfigDict(**_STRICT)
    text: str


class BlankPart(BaseModel):
    """A blank: a few words (MASK), a sentence (sMASK), or all that follows (gMASK)."""

    model_config = ConfigDict(**_STRICT)
    blank: Literal["MASK", "sMASK", "gMASK"]


def _readable(value: object) -> object:
    """Refuses in one sentence what a union of types would refuse in many."""
    several = value if isinstance(value, list) else [value]
    several = [*itertools.chain.from_iterable(x if isinstance(x, list) else [x] for x in several)]
    if all(isinstance(one, str) or _is_part(one) for one in several) and not (
        isinstance(value, list) and _mixes(value)
    ):
        return value
    raise ValueError(
        'text must be a text, or a list of parts, {"text": ".."} or {"blank": "MASK"} (or "sMASK", '
        '"gMASK"), or a list of such texts'
    )


def _is_part(value: object) -> bool:
    if not isinstance(value, dict) or len(value) != 1:
        return False
    return isinstance(value.get("text"), str) or value.get("blank") in ("MASK", "sMASK", "gMASK")


def _mixes(value: list[object]) -> bool:
    """Whether a list has parts of one text beside whole texts, or texts of texts."""
    parts = [isinstance(one, dict) for one in value]
    inner = [one for one in value if isinstance(one, list)]
    return (any(parts) and not all(parts)) or not all(
        isinstance(one, dict) for text in inner for one in text
    )


def _permutations(value: object) -> object:
    orders = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    for one in orders:
        numbers = isinstance(one, list) and all(type(blank) is int for blank in one)
        if not numbers and (value is not one or one not in (None, "all")):
            raise ValueError(
                'order must be a list of the numbers of blanks, [1, 0], or a list of such, or "all"'
            )
    return value


Parts = list[TextPart | BlankPart]
Order = list[int]
Reason = Literal["stop", "length", "deadline"]


class BlanksRequest(BaseModel):
    """Texts with blanks, and how to fill them."""

    model_config = ConfigDict(**_STRICT, json_schema_extra={"example": _EXAMPLE})

    model: str | None = Field(None, description="The served model's name, or nothing.")
    text: Annotated[str | Parts | list[str | Parts], BeforeValidator(_readable)] = Field(
        description="A text in which [MASK], [sMASK] and [gMASK] are blanks; or its parts, "
        '[{"text": "the "}, {"blank": "MASK"}], in which text stays text whatever it spells; or a '
        "list of such texts."
    )
    order: Annotated[
        Order | list[Order] | Literal["all"] | None, BeforeValidator(_permutations)
    ] = Field(
        None,
        description="The order in which the blanks are filled, each answer seeing those before it: "
        "[1, 0] fills the second one first. Several orders, or all, give a filling each. Left to "
        "right if nothing is said.",
    )
    max_tokens: int | None = Field(
        None,
        description="Longest answer to a blank; 64 if nothing is said, or what the context leaves.",
    )
    temperature: float = Field(0.0, description="0: the most probable token is taken each time.")
    top_k: int = Field(0, description="Only the k most probable tokens; 0: all.")
    top_p: float = Field(1.0, description="Only the most probable tokens of together this much.")
    seed: int | None = Field(
        None, description="Of the random numbers: equal seeds, equal answers. A random one if null."
    )
    n: int = Field(1, ge=1, description="Fillings of each text in each order.")
    candidates: int | None = Field(
        None,
        ge=1,
        description="Instead of filling step by step: so many ways to fill the text, the most "
        "probable ones that a beam search over all blanks finds, from left to right.",
    )
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = Field(
        None, description="Report each token, with so many alternatives to it."
    )


class TextToken(BaseModel):
    """A token of the text with its blanks (part A)."""

    id: int
    text: str


class Alternative(TextToken):
    """A token that may come next.

    `probability` is the model's own (temperature 1, nothing excluded). `ends`: it ends the answer,
    and its text is empty.
    """

    probability: float
    ends: bool = False


class Token(Alternative):
    """A token of an answer; the last one of an answer that ended by itself `ends` it."""

    alternatives: list[Alternative]


class BlankAnswer(BaseModel):
    """What was put into a blank.

    `probability`: of its tokens and the end behind them, given what was filled before.
    `finish_reason`: the model ended it ("stop"), max_tokens did ("length"), or time ran out
    ("deadline"), for later blanks too.
    """

    text: str
    probability: float
    finish_reason: Reason
    tokens: list[Token] | None = None


class Filling(BaseModel):
    """A text filled in one order; `probability` is that of all answers together.

    `answers` stand in the order of the text.
    """

    order: list[int]
    index: int
    text: str
    answers: list[BlankAnswer]
    probability: float
    log_probability: float


class Candidate(BaseModel):
    """One of several ways to fill a text."""

    text: str
    answers: list[str]
    probability: float


class Result(BaseModel):
    """Of one text: a filling per order and `n`, or candidates; its tokens with `logprobs`."""

    index: int
    fillings: list[Filling] | None = None
    candidates: list[Candidate] | None = None
    tokens: list[TextToken] | None = None


class Usage(BaseModel):
    """Tokens of the texts, and of all answers, ends included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class BlanksResponse(BaseModel):
    """The texts, filled."""

    id: str
    object: Literal["blanks"] = "blanks"
    created: int
    model: str
    results: list[Result]
    usage: Usage
