"""Log-probabilities in the form of /v1/completions: four lists of one entry a token.

{"tokens": ["the", " light"], "token_logprobs": [null, -1.2],
 "top_logprobs": [null, {" light": -1.2}], "text_offset": [0, 3]}
"""

from collections.abc import Iterable, Sequence

from glm_jax.json_files import JsonObject
from glm_jax.serving.asking import Scored
from glm_jax.serving.pieces import Pieces, in_json


def text_logprobs(
    pieces: Pieces, ids: Sequence[int], scores: Iterable[Scored | None], offsets: Sequence[int]
) -> JsonObject:
    """The four lists.

    Args:
      pieces: texts of tokens.
      ids: one a token.
      scores: of each; None: it has none, the first of a row.
      offsets: where each begins in the text.
    """
    scores = list(scores)
    return {
        "tokens": [pieces.name(id_) for id_ in ids],
        "token_logprobs": [one and in_json(one.log_probability) for one in scores],
        "top_logprobs": [one and _alternatives(pieces, one) for one in scores],
        "text_offset": list(offsets),
    }


def joined(first: JsonObject, second: JsonObject) -> JsonObject:
    """The lists of a prompt with those of its answer behind them."""
    return {name: [*first[name], *second[name]] for name in first}


def _alternatives(pieces: Pieces, scored: Scored) -> dict[str, float]:
    """The most probable tokens, best first, and the token itself: of equal texts the best."""
    found: dict[str, float] = {}
    for id_, value in scored.alternatives:
        found.setdefault(pieces.name(id_), in_json(value))
    found.setdefault(pieces.name(scored.id), in_json(scored.log_probability))
    return found
