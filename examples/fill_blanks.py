"""Fills blanks with the small model that the package brings: as text, with candidates, as ids.

    python examples/fill_blanks.py

It prints

    In the beginning, God created the heavens and the earth.
    0.5813  Jesus said to him, “Follow me.”
    0.3381  Jesus said to them, “Follow me.”
    0.0235  Jesus said to Jesus, “Follow me.”
    0.2112  The children of Israel went up to Bethel.
    0.0846  The children of Israel went up to Gilgal.
    0.0719  The children of Israel went up to Jerusalem.
    [3, 647, 371, 281, 4, 4846, 327, 4893, 3243, 344, 401, 384, 1]
    [[325]] ['him']
    exp(-0.5424) = 0.5813
"""

import math

import glm_jax
from glm_jax.generation.texts import Candidate


def main() -> list[Candidate]:
    """Returns the candidates of the second text."""
    lm = glm_jax.load("bundled")

    # Text in, text out.
    print(lm.fill("In the beginning, God created the heavens and [MASK] earth."))

    # The most probable ways to fill one blank, or several blanks together.
    text = "Jesus said to [MASK], “Follow me.”"
    candidates = lm.fill(text, candidates=3)
    pairs = lm.fill("The [MASK] of Israel went up to [MASK].", candidates=3)
    for one in [*candidates, *pairs]:
        print(f"{one.probability:.4f}  {one.text}")

    # The same on ids. A text stands between [CLS] and <|endoftext|>, as in training. "[MASK]" is
    # encoded as plain characters unless allow_special=True.
    tokenizer = lm.tokenizer
    assert tokenizer is not None  # it comes with the model
    ids = tokenizer.encode(f"[CLS]{text}<|endoftext|>", allow_special=True)
    print(ids)
    answers = lm.fill_blanks(ids)  # one list of ids per blank
    print(answers, [tokenizer.decode(answer) for answer in answers])

    # A candidate's probability is that of its ids and the end id behind them.
    (score,) = lm.score(ids, [[*candidates[0].ids[0], tokenizer.special.end]])
    print(f"exp({score:.4f}) = {math.exp(score):.4f}")
    return candidates


if __name__ == "__main__":
    main()
