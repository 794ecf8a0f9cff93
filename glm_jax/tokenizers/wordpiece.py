"""BERT's uncased word pieces, the tokenizer of the English GLM of 110 M and 335 M parameters.

"It's naïve"  ->  it ' s naive                      lower case, no accents, punctuation split off
unaffable     ->  un ##aff ##able                   the longest piece first

Hugging Face's `tokenizers` does it, with Unicode tables of its own: the same ids whatever Python
runs, where the published code had those of its Python. Characters of scripts that are newer than
the tables may be cut otherwise there.
"""

from collections.abc import Sequence

from glm_jax.errors import UserError

_LONGEST_WORD = 100


class WordPieces:
    """Text to ids and back by a list of pieces; a word that they do not spell becomes [UNK].

    Attributes:
      pieces: the pieces by id.
    """

    def __init__(self, pieces: Sequence[str], unknown: str = "[UNK]"):
        """Args:
        pieces: the pieces by id; "##ing" can only continue a word.
        unknown: the one of words that they do not spell.

        Raises:
          UserError: no package `tokenizers`.
        """
        try:
            from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
        except ImportError as error:
            raise UserError(
                "vocabularies of word pieces (BERT's) need the package tokenizers: pip install "
                "tokenizers"
            ) from error
        self.pieces = list(pieces)
        ids = {piece: id_ for id_, piece in enumerate(pieces)}
        self._coder = Tokenizer(
            models.WordPiece(ids, unk_token=unknown, max_input_chars_per_word=_LONGEST_WORD)
        )
        self._coder.normalizer = normalizers.BertNormalizer(strip_accents=True, lowercase=True)
        self._coder.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        return self._coder.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, with a space between words."""
        return " ".join(self.pieces[id_] for id_ in ids).replace(" ##", "")
