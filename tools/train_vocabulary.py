"""Trains the bundled sentencepiece vocabulary on the bundled corpus.

    python tools/train_vocabulary.py

writes glm_jax/bundled/vocabulary.model, and with --text my/*.txt --out my.model one for a text of
your own, to be named by data.tokenizer; about 2 s. The same corpus and the same version of
sentencepiece give the same bytes: one thread, and nothing is drawn.
"""

import argparse
import contextlib
import io
import itertools
import lzma
import string
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from glm_jax.special_tokens import SPELLINGS

BUNDLED = Path(__file__).resolve().parent.parent / "glm_jax" / "bundled"

# Control symbols: ids 3 on. Text never yields them, whatever it spells.
CONTROL_ROLES = ("cls", "mask", "gmask", "smask", "start", "end")

# How often an English line counts beside a Chinese one. Merges are chosen by how often they occur,
# and a common English word saves three tokens where a common pair of characters saves one.
ENGLISH_WEIGHT = 3

# Byte order marks and carriage returns go; all else stays as written, full-width punctuation too.
# (An "identity" normaliser would do the latter, but TensorFlow's reader complains of it per use.)
NORMALIZATION = [("FEFF", ""), ("D A", "A")]


def bundled_lines() -> Iterator[str]:
    """The paragraphs of both languages, English ones `ENGLISH_WEIGHT` times."""
    for name, times in (("corpus.en.xz", ENGLISH_WEIGHT), ("corpus.zh.xz", 1)):
        text = lzma.decompress((BUNDLED / name).read_bytes()).decode("utf-8")
        for line in filter(None, text.split("\n")):
            yield from itertools.repeat(line, times)


def lines_of(files: Iterable[Path]) -> Iterator[str]:
    """The lines of text files that are not empty."""
    for file in files:
        yield from filter(None, file.read_text(encoding="utf-8").split("\n"))


def train(lines: Iterable[str], vocab_size: int, coverage: float) -> bytes:
    """Returns the serialised model.

    Byte pairs rather than sentencepiece's unigram model: that one takes its candidates from a list
    of distinct words, each counted once, so that a word which always stands before a space
    ("shall", "because", "between") is none, however common.

    Args:
      lines: of text.
      vocab_size: pieces in all, the 256 bytes and the 9 special tokens included.
      coverage: share of the corpus's characters that get a piece; rare ones are spelt in bytes.
    """
    model = io.BytesIO()
    # The model keeps the file's name, which must not depend on the machine.
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        rules = "".join(f"{source}\t{target}\n" for source, target in NORMALIZATION)
        Path("rules.tsv").write_text(rules)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=coverage,
            byte_fallback=True,
            normalization_rule_tsv="rules.tsv",
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            split_digits=True,
            required_chars=string.digits + string.ascii_letters + string.punctuation + "（）",
            max_sentence_length=1 << 20,
            num_threads=1,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            pad_piece=SPELLINGS["pad"],
            eos_piece=SPELLINGS["eos"],
            control_symbols=[SPELLINGS[role] for role in CONTROL_ROLES],
            # A piece of its own, because a line's end is a sentence's end.
            user_defined_symbols=["\n"],
            minloglevel=1,
        )
    return model.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vocab_size", type=int, default=7168, help="default: %(default)s")
    parser.add_argument("--coverage", type=float, default=0.9965, help="default: %(default)s")
    parser.add_argument(
        "--text", type=Path, nargs="+", metavar="FILE", help="UTF-8 texts of your own, with --out"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.model", help="default: the bundled one")
    args = parser.parse_args()
    if (args.text is None) != (args.out is None):
        parser.error("--text and --out go together: without them the bundled vocabulary is remade")
    path = args.out or BUNDLED / "vocabulary.model"
    lines = bundled_lines() if args.text is None else lines_of(args.text)
    path.write_bytes(train(lines, args.vocab_size, args.coverage))
    print(f"{path}: {args.vocab_size} pieces, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
