"""Trains the bundled sentencepiece vocabulary on the bundled corpus.

    python tools/train_vocabulary.py

writes glm_jax/bundled/vocabulary.model; about 20 s. The same corpus and the same version of
sentencepiece give the same bytes: one thread, and nothing is drawn.
"""

import argparse
import contextlib
import io
import lzma
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path

import sentencepiece

from glm_jax.special_tokens import SPELLINGS

BUNDLED = Path(__file__).resolve().parent.parent / "glm_jax" / "bundled"

# Control symbols: ids 3 on. Text never yields them, whatever it spells.
CONTROL_ROLES = ("cls", "mask", "gmask", "smask", "start", "end")

# Byte order marks and carriage returns go; all else stays as written, full-width punctuation too.
# (An "identity" normaliser would do the latter, but TensorFlow's reader complains of it per use.)
NORMALIZATION = [("FEFF", ""), ("D A", "A")]


def sentences(folder: Path) -> Iterator[str]:
    """The paragraphs of both languages."""
    for name in ("corpus.en.xz", "corpus.zh.xz"):
        text = lzma.decompress((folder / name).read_bytes()).decode("utf-8")
        yield from (line for line in text.split("\n") if line)


def train(folder: Path, vocab_size: int, coverage: float) -> bytes:
    """Returns the serialised model.

    Args:
      folder: holds the corpus.
      vocab_size: pieces in all, the 256 bytes and the 9 special tokens included.
      coverage: share of the corpus's characters that get a piece; rare ones are spelt in bytes.
    """
    model = io.BytesIO()
    text = list(sentences(folder))
    # The model keeps the file's name, which must not depend on the machine.
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        rules = "".join(f"{source}\t{target}\n" for source, target in NORMALIZATION)
        Path("rules.tsv").write_text(rules)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text),
            model_writer=model,
            model_type="unigram",
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
    parser.add_argument("--vocab_size", type=int, default=8192, help="default: %(default)s")
    parser.add_argument("--coverage", type=float, default=0.997, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=BUNDLED, help="default: %(default)s")
    args = parser.parse_args()
    path = args.folder / "vocabulary.model"
    path.write_bytes(train(args.folder, args.vocab_size, args.coverage))
    print(f"{path}: {args.vocab_size} pieces, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
