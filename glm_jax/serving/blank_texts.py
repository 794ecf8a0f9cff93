"""A text with blanks: its ids, and the text again with answers in it.

    "the [MASK] is"  or  [{"text": "the "}, {"blank": "MASK"}, {"text": " is"}]
        -> [CLS] ▁the [MASK] ▁is eos     -> "the light is"

Only blanks become special tokens. All other letters stay letters: "[CLS]" in either form, and
"[MASK]" in the second.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from glm_jax.errors import UserError
from glm_jax.generation.texts import with_answers
from glm_jax.special_tokens import SPELLINGS
from glm_jax.tokenizers.framing import MASK, MASKS, blanked_ids
from glm_jax.tokenizers.protocol import Tokenizer

_BLANK = SPELLINGS["mask"]


@dataclasses.dataclass(frozen=True)
class BlankText:
    """A text, cut at its blanks.

    Attributes:
      pieces: what stands before, between and behind the blanks: one more than there are blanks.
      blanks: spelling of each, one of "[MASK]", "[sMASK]" and "[gMASK]".
    """

    pieces: tuple[str, ...]
    blanks: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> "BlankText":
        """From a text in which blanks are spelled."""
        return cls(tuple(MASK.split(text)), tuple(MASK.findall(text)))

    @classmethod
    def of_parts(cls, parts: Iterable[tuple[bool, str]]) -> "BlankText":
        """From parts, each (is a blank, its spelling or its text); neighbouring texts are joined.

        (False, "a"), (False, "b "), (True, "[MASK]")    ->    pieces "ab ", ""; blanks "[MASK]"
        """
        pieces, blanks = [""], []
        for is_blank, text in parts:
            if is_blank:
                blanks.append(text)
                pieces.append("")
            else:
                pieces[-1] += text
        return cls(tuple(pieces), tuple(blanks))

    def check(self) -> None:
        """Raises UserError if there is no blank, or a letter that no text has."""
        if not self.blanks:
            raise UserError(
                f"no blank in the text; write {', '.join(MASKS[:-1])} or {MASKS[-1]}, or a part "
                '{"blank": "MASK"}'
            )
        try:
            "".join(self.pieces).encode()
        except UnicodeEncodeError as error:
            raise UserError(
                "the text holds half of a surrogate pair (\\ud800 to \\udfff)"
            ) from error

    def ids(self, tokenizer: Tokenizer, most: int | None = None) -> list[int]:
        """The ids of the whole text, framed as in training; white space at its end goes.

        Args:
          tokenizer: of the model.
          most: ids that a text may have; None: any number.

        Raises:
          UserError: it has more.
        """
        pieces = [*self.pieces[:-1], self.pieces[-1].rstrip()]
        spelled = "".join(
            piece + blank for piece, blank in zip(pieces, [*self.blanks, ""], strict=True)
        )
        masks = set(tokenizer.special.masks)
        inner = tokenizer.encode(spelled, allow_special=True)
        if most is not None and len(inner) > most:
            raise UserError(f"a text of {len(inner)} tokens does not fit the context of {most}")
        plain = [id_ for id_ in inner if id_ not in masks]
        if len(inner) - len(plain) == len(self.blanks) and not _has_special(tokenizer, plain):
            return blanked_ids(tokenizer, spelled)
        return self._framed(tokenizer, pieces)

    def _framed(self, tokenizer: Tokenizer, pieces: Sequence[str]) -> list[int]:
        """`ids` of a text that spells special tokens, which must not become these."""
        last = len(pieces) - 1
        ids: list[int] = []
        for index, piece in enumerate(pieces):
            ids += _letters(tokenizer, piece, (index > 0, index < last))
            if index < last:
                ids.append(_mask_ids(tokenizer)[self.blanks[index]])
        if not tokenizer.frames_texts:
            return ids
        ids = [tokenizer.special.cls, *ids]
        return ids if ids[-1] == tokenizer.special.gmask else [*ids, tokenizer.special.eos]

    def filled(self, tokenizer: Tokenizer, answers: Sequence[Sequence[int]]) -> str:
        """The text with the ids of an answer in each blank, spaced as `texts.with_answers` says."""
        text = ""
        for piece, ids in zip(self.pieces, answers, strict=False):
            text += piece
            # What stands before decides about spaces by its last letter: no mask hides in that.
            end = len(text.rstrip(" "))
            begin = max(0, end - 1)
            text = text[:begin] + with_answers(tokenizer, text[begin:] + _BLANK, [ids])
        return text + self.pieces[-1].rstrip()


def _mask_ids(tokenizer: Tokenizer) -> dict[str, int]:
    special = tokenizer.special
    return {SPELLINGS[role]: getattr(special, role) for role in ("mask", "gmask", "smask")}


def _has_special(tokenizer: Tokenizer, ids: Sequence[int]) -> bool:
    return tokenizer.decode(ids) != tokenizer.decode(ids, skip_special=True)


def _letters(tokenizer: Tokenizer, text: str, beside: tuple[bool, bool]) -> list[int]:
    """The ids of a text in which nothing is special, `beside` a blank on its left and right.

    A text that spells a special token is cut in two until none is whole: "[CLS]" is read as "[C"
    and "LS]".
    """
    left, right = (_BLANK if blank else "" for blank in beside)
    before = tokenizer.encode(left, allow_special=True) if left else []
    ids = tokenizer.encode(left + text + right, allow_special=True)
    ids = ids[len(before) : len(ids) - len(right[:1])]
    special = set(tokenizer.special.masks) & set(ids) or _has_special(tokenizer, ids)
    if not special or len(text) < 2:
        return ids
    middle = len(text) // 2
    first = _letters(tokenizer, text[:middle], (beside[0], False))
    return first + _letters(tokenizer, text[middle:], (True, beside[1]))
