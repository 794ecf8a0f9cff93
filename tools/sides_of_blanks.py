"""Whether a model uses what stands on both sides of a blank; a loss does not tell.

    python tools/sides_of_blanks.py runs/demo bundled

Mean nats of a blank's words and their end over the fifty blanks of `evaluate --task blanks`: as
they are, and with the text on one side taken from another of them. A side whose exchange costs
nothing is not read (docs/decisions/021-small-runs-that-learn.md).
"""

import argparse
import dataclasses

import glm_jax
from glm_jax.evaluation.data import Blank, blanks
from glm_jax.evaluation.tasks import fitting_prompt
from glm_jax.tokenizers.framing import blanked_ids

_APART = 7  # blanks of one chapter stand beside one another


def nats(lm: glm_jax.LanguageModel, some: list[Blank]) -> float:
    """The mean of -log P(words, end | text)."""
    assert lm.tokenizer is not None
    encode, special = lm.tokenizer.encode, lm.tokenizer.special
    total = 0.0
    for one in some:
        ids = blanked_ids(lm.tokenizer, fitting_prompt(lm.tokenizer, one, lm.config.max_positions))
        answer = [*encode(one.answer), special.end]
        total -= float(lm.score(ids, [answer], mask_ids=special.masks, start_id=special.start)[0])
    return total / len(some)


def exchanged(some: list[Blank], side: str) -> list[Blank]:
    """Each blank with one side, "before" or "after", of another."""
    others = some[_APART:] + some[:_APART]
    return [
        dataclasses.replace(one, **{side: getattr(other, side)})
        for one, other in zip(some, others, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", nargs="+")
    args = parser.parse_args()
    print(f"{'nats a blank':<30}as it is  other right  other left")
    for path in args.checkpoint:
        lm = glm_jax.load(path)
        some = blanks()
        sides = [some, exchanged(some, "after"), exchanged(some, "before")]
        found = [nats(lm, one) for one in sides]
        print(f"{path:<30}{found[0]:>8.2f}{found[1]:>13.2f}{found[2]:>12.2f}", flush=True)


if __name__ == "__main__":
    main()
