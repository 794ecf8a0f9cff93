"""Writes tasks in files from the held-out text of the bundled corpus: `python tools/make_tasks.py`.

    examples/tasks/cloze.toml, cloze.jsonl      which of four words fills a blank
                   blanks.toml, ..              blanks of one or two words, filled freely
                   last_word.toml, ..           the last word of a passage
                   documents.toml, ..           perplexity of documents

The text is in the public domain (glm_jax/bundled/LICENSES.md). A test holds the files and this tool
together.
"""

import argparse
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from glm_jax.evaluation.data import blanks, clozes, held_out, last_words

_OUT = Path(__file__).parents[1] / "examples" / "tasks"
_LONGEST = 400  # characters of a text whose perplexity is computed

SPECS = {
    "cloze": """\
# Which of four words fills a blank in a sentence that no model of the package was trained on.
kind = "choice"
data = "cloze.jsonl"
prompt = "{before} [MASK]{after}"
choices = "choices"  # a column: other words in each line
metrics = ["accuracy", "accuracy_per_token", "accuracy_per_character"]
""",
    "blanks": """\
# The fifty bundled blanks of one or two words, filled freely: is the right text first, or in five?
kind = "fill"
data = "blanks.jsonl"
prompt = "{before} [MASK]{after}"
max_new_tokens = 12
metrics = ["exact", "first_5"]
""",
    "last_word": """\
# The last word of a passage of whole sentences, by LAMBADA's rule.
kind = "last_word"
data = "last_word.jsonl"
""",
    "documents": """\
# Beginnings of held-out chapters, English and Chinese, from left to right.
kind = "perplexity"
data = "documents.jsonl"
metrics = ["loss", "perplexity", "bits_per_byte"]
""",
}


def examples(count: int) -> dict[str, list[dict[str, object]]]:
    """The lines of each task, at most `count`."""
    some_clozes = itertools.islice(clozes(), count)
    return {
        "cloze": [
            {"before": one.before, "after": one.after, "choices": one.choices, "answer": one.answer}
            for one in some_clozes
        ],
        "blanks": [
            {"before": one.before, "after": one.after, "answer": one.answer}
            for one in blanks()[:count]
        ],
        "last_word": [
            {"text": f"{one.context} {one.word}"} for one in itertools.islice(last_words(), count)
        ],
        "documents": [{"text": " ".join(text[:_LONGEST].split())} for text in held_out()[:count]],
    }


def lines(some: Iterable[dict[str, object]]) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in some)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes tasks from held-out bundled text.")
    parser.add_argument("--out", type=Path, default=_OUT)
    parser.add_argument("--count", type=int, default=100, help="examples of each task, at most")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, some in examples(args.count).items():
        (args.out / f"{name}.toml").write_text(SPECS[name], encoding="utf-8")
        (args.out / f"{name}.jsonl").write_text(lines(some), encoding="utf-8")
        print(f"{args.out / name}.toml: {len(some)} examples")


if __name__ == "__main__":
    main()
