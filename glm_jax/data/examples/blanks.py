"""From a text with a blank and what fills it to an `Example`, for models of each kind.

"It was ", "Yes", "."     fills blanks   part A  [CLS] ▁It ▁was [MASK] . eos | start ▁Yes
                                         learnt                                ▁Yes end
                          causal         [gMASK] start ▁It ▁was ▁Yes .
                                         learnt                 ▁Yes .
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from glm_jax.data.examples.example import Example, blank_example, causal_example
from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers.ids import ids_behind
from glm_jax.tokenizers.protocol import Tokenizer


@dataclasses.dataclass(frozen=True)
class Filled:
    """A text around a blank, and its filling.

    Attributes:
      before, after: the texts; a space in front of the blank belongs to what fills it.
      blank: spelling of the blank.
      answer: what fills it.
    """

    before: str
    blank: str
    after: str
    answer: str


def cloze_example(
    text: Sequence[int], answer: Sequence[int], special: SpecialTokens, *, frame: bool, eos: bool
) -> Example:
    """The input of one blank as published: [CLS] text eos | start answer[:-1].

        text [a M b], answer [x E]
        tokens     [CLS] a M b eos | S x        targets of the last two: x E
        positions  0     1 2 3 4   | 2 2        2 is the index of M
        block_p.   0     0 0 0 0   | 1 2

    Args:
      text: ids with a mask; the last mask is filled.
      answer: ids, one at least; as published the end id is among them where several ids are asked.
      special: ids.
      frame: [CLS] stands in front, as in all but ChatGLM-6B.
      eos: eos stands behind.

    Raises:
      UserError: no mask in the text, or an empty answer.
    """
    part_a = [*[special.cls] * frame, *text, *[special.eos] * eos]
    masks = [index for index, id_ in enumerate(part_a) if id_ in special.masks]
    if not masks or not answer:
        what = "an answer" if masks else "a blank"
        raise UserError(f"an example of a cloze must have {what}; it has none")
    ids = [*part_a, special.start, *answer]
    learnt = [False] * (len(part_a) + 1) + [True] * len(answer)
    return blank_example(np.array(ids), np.array(learnt), prefix=len(part_a), blank=masks[-1])


@dataclasses.dataclass(frozen=True)
class Blanks:
    """Makes examples of filled blanks for one model.

    Attributes:
      tokenizer: of the model.
      fills_blanks: `ModelConfig.fills_blanks`.
    """

    tokenizer: Tokenizer
    fills_blanks: bool

    def example(self, filled: Filled, most: int | None = None) -> Example:
        """The example of a filled blank.

        Args:
          filled: text and filling.
          most: ids of the answer, its end among them, at most; it is cut behind.
        """
        answer = self.scored(filled)
        if not self.fills_blanks:
            text = self.prompt(filled)
            learnt = [False] * len(text) + [True] * len(answer)
            return causal_example(np.array([*text, *answer]), np.array(learnt))
        answer = answer[:most]
        return cloze_example(
            self._text(filled),
            answer,
            self.tokenizer.special,
            frame=self.tokenizer.frames_texts,
            eos=self.tokenizer.frames_texts,
        )

    def prompt(self, filled: Filled) -> list[int]:
        """What a model is given: part A with the blank; of a causal model the text in front."""
        special = self.tokenizer.special
        if not self.fills_blanks:
            before = self.tokenizer.encode(filled.before.rstrip(" "))
            return [special.gmask, special.start, *before]
        text = self._text(filled)
        return [special.cls, *text, special.eos] if self.tokenizer.frames_texts else text

    def scored(self, filled: Filled) -> list[int]:
        """What is learnt, and scored: the filling and its end; of a causal model the filling and
        what is behind it."""
        answer = self.answer(filled)
        if self.fills_blanks:
            return [*answer, self.tokenizer.special.end]
        return [*answer, *self._middle(filled.after)]

    def answer(self, filled: Filled) -> list[int]:
        """The ids of the filling as they stand behind the text in front, without an end.

        Where they grow together with the text, those of the filling by itself.
        """
        return ids_behind(self.tokenizer.encode, filled.before, filled.answer)

    def check(self, text: str) -> None:
        """Refuses a text that spells a special token, which would become one.

        Raises:
          UserError: names what stands there.
        """
        if self.tokenizer.encode(text, allow_special=True) != self.tokenizer.encode(text):
            raise UserError(
                f"{text[:60]!r} spells a special token, which a text with a blank would take for "
                "one; change the text"
            )

    def _text(self, filled: Filled) -> list[int]:
        """The ids of the text with its blank, without a frame."""
        text = f"{filled.before}{filled.blank}{filled.after}".rstrip()
        return self.tokenizer.encode(text, allow_special=True)

    def _middle(self, text: str) -> list[int]:
        """The ids of a text that goes on behind another."""
        if not text:
            return []
        mask = self.tokenizer.special.mask
        ids = self.tokenizer.encode(f"[MASK]{text}", allow_special=True)
        return ids[ids.index(mask) + 1 :] if mask in ids else self.tokenizer.encode(text)
