"""Shows what a model puts into held-out blanks, beside the bundled one, and how often it is right.

    python tools/show_blanks.py runs/demo

The demo ends with it. English blanks are the first of the fifty of `evaluate --task blanks`,
Chinese ones single characters of held-out lines.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import glm_jax
from glm_jax.errors import UserError
from glm_jax.evaluation.data import Blank, blanks, held_out
from glm_jax.evaluation.tasks import TASKS, fitting_prompt
from glm_jax.generation.texts import fill_candidates

_SENTENCE = re.compile(r"[\u4e00-\u9fff，、：；]{8,20}[。？！]")
_SEED = 20210318
_CONTEXT = 100  # letters of an English sentence that are shown on either side of a blank
_ENGLISH, _CHINESE = 8, 4


def chinese_blanks() -> Iterator[Blank]:
    """A character out of the middle of one sentence a held-out document."""
    draws = np.random.default_rng(_SEED)
    for text in held_out("zh"):
        for sentence in _SENTENCE.findall(text):
            places = [place for place in range(2, len(sentence) - 2) if sentence[place] >= "\u4e00"]
            if places:
                place = places[draws.integers(len(places))]
                yield Blank(sentence[:place], sentence[place], sentence[place + 1 :])
                break


def answer(lm: glm_jax.LanguageModel, blank: Blank, chinese: bool) -> str:
    """The most probable filling."""
    assert lm.tokenizer is not None
    if chinese:  # no space stands between characters
        prompt = f"{blank.before}[MASK]{blank.after}"
    else:
        prompt = fitting_prompt(lm.tokenizer, blank, lm.config.max_positions)
    found = fill_candidates(lm, prompt, 1, max_new_tokens=12)
    return found[0].answers[0].strip() if found else ""


def shown(blank: Blank, chinese: bool) -> str:
    """The sentence around a blank, cut where it is long.

    "and they came to the ____ of the city"
    """
    before, after = blank.before, blank.after
    if not chinese:
        start = max(before.rfind(". "), before.rfind("? "), before.rfind("! ")) + 1
        before = before[start:].strip()
        if len(before) > _CONTEXT:
            before = f"… {before[-_CONTEXT:].split(' ', 1)[1]}"
        if len(after) > _CONTEXT:
            after = f"{after[:_CONTEXT].rsplit(' ', 1)[0]} …"
        before += " "
    return f"{before}____{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    args = parser.parse_args()
    models = {"this run": glm_jax.load(args.checkpoint), "bundled": glm_jax.load("bundled")}
    print(
        "Blanks in texts that neither model has seen; what stood there, and what each puts there:\n"
    )
    for chinese, some in ((False, blanks()[:_ENGLISH]), (True, chinese_blanks())):
        for _, blank in zip(range(_ENGLISH if not chinese else _CHINESE), some, strict=False):
            print(f"  {shown(blank, chinese)}")
            given = [f"{name}: {answer(lm, blank, chinese)}" for name, lm in models.items()]
            print(f"      {' | '.join([f'text: {blank.answer}', *given])}")
    print("\nAll fifty English ones, of one or two words (evaluate --task blanks):\n")
    results = {}
    for name, lm in models.items():
        assert lm.tokenizer is not None
        results[name] = TASKS["blanks"](lm, lm.tokenizer, 50)
    counted = results["bundled"]
    print(f"  {'':<46}right  among the first five")
    for name, found in results.items():
        print(f"  {name:<46}{found['exact']:>4.0%}   {found['first_five']:>4.0%}")
    for name, label in (("bigram", "pairs of words"), ("unigram", "the most frequent words")):
        told = f"{label}, told how many words"
        print(f"  {told:<46}{counted[name]:>4.0%}   {counted[f'{name}_first_five']:>4.0%}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
