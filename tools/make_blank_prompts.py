"""Writes blanks of the bundled English corpus, for alignment with rewards, and others to test it.

    python tools/make_blank_prompts.py runs/align/blanks

writes DIR/prompts.jsonl, blanks in chapters that are trained on, and DIR/held_out/, a task of
`evaluate`: blanks in sentences of the held-out chapters, three a sentence at most, none of them in
a sentence of the fifty (glm_jax/bundled/blanks.jsonl). Sentences, words and what may not recur are
those of tools/choose_blanks.py; what stands in front is cut until a text fits the bundled model.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from choose_blanks import draw, occurs, sentences_of, word_runs

import glm_jax
from glm_jax.evaluation.data import Blank, held_out, training_chapters
from glm_jax.evaluation.data import blanks as fifty_blanks
from glm_jax.evaluation.tasks import fitting_prompt
from glm_jax.tokenizers.framing import blanked_ids
from glm_jax.tokenizers.protocol import Tokenizer

COUNT = 6000
A_SENTENCE = 3  # held-out blanks
TWO_WORDS = 0.32  # the share of the fifty
LONGEST = 56  # ids of a text: 64 slots hold the start and seven ids of an answer as well
SEED = 20261128
TASK = """# Blanks of one or two words in held-out chapters.
kind = "fill"
data = "blanks.jsonl"
prompt = "{prompt}"
answer = "answer"
metrics = ["exact", "f1"]
max_new_tokens = 8
"""

Wanted = Callable[[dict], bool]


def short_prompt(blank: dict, tokenizer: Tokenizer) -> str | None:
    """The text with its blank, cut in front to `LONGEST` ids; None if its sentence is longer."""
    text = fitting_prompt(tokenizer, Blank(**blank), LONGEST)
    return text if len(blanked_ids(tokenizer, text)) <= LONGEST else None


def blanks(
    pairs: list[tuple[str, str]],
    draws: np.random.Generator,
    tokenizer: Tokenizer,
    wanted: Wanted = lambda blank: True,
) -> Iterator[dict]:
    """{"prompt", "answer"} of a blank in each sentence, in random order, as far as there is one."""
    for place in draws.permutation(len(pairs)).tolist():
        blank = draw(*pairs[place], 2 if draws.random() < TWO_WORDS else 1, draws)
        prompt = blank and wanted(blank) and short_prompt(blank, tokenizer)
        if blank and prompt:
            yield {"prompt": prompt, "answer": blank["answer"]}


def write(path: Path, rows: list[dict]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path}: {len(rows)} blanks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path)
    args = parser.parse_args()
    tokenizer, draws = glm_jax.load_tokenizer("bundled"), np.random.default_rng(SEED)
    test = args.directory / "held_out"
    test.mkdir(parents=True, exist_ok=True)
    chapters = training_chapters()
    trained = blanks(sentences_of(chapters), draws, tokenizer)
    write(args.directory / "prompts.jsonl", list(itertools.islice(trained, COUNT)))

    known = word_runs(chapters)
    whole = {f"{one.before} {one.answer}{one.after}" for one in fifty_blanks()}

    def is_new(blank: dict) -> bool:
        text = f"{blank['before']} {blank['answer']}{blank['after']}"
        return text not in whole and not occurs(blank, known)

    pairs = sentences_of(held_out("en"))
    found = [row for _ in range(A_SENTENCE) for row in blanks(pairs, draws, tokenizer, is_new)]
    distinct = {(row["prompt"], row["answer"]): row for row in found}
    write(test / "blanks.jsonl", list(distinct.values()))
    (test / "blanks.toml").write_text(TASK, encoding="utf-8")


if __name__ == "__main__":
    main()
