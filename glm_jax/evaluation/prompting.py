"""Prompts of tasks as ids: with a blank or before an answer, cut where they are too long.

    prompt "It was [MASK]." of a model that fills blanks    [CLS] ▁It ▁was [MASK] . eos
                           of a causal model                [gMASK] sop ▁It ▁was    and "." behind

What is too long loses tokens in front, so that the blank keeps the context next to it; behind the
last blank only where all in front is gone.
"""

import dataclasses
from typing import TYPE_CHECKING

from glm_jax.errors import UserError
from glm_jax.evaluation.asked import Pair
from glm_jax.evaluation.examples import Example
from glm_jax.tokenizers.framing import MASK, blanked_ids, causal_prefix
from glm_jax.tokenizers.ids import ids_behind, shared
from glm_jax.tokenizers.protocol import Tokenizer

if TYPE_CHECKING:
    from glm_jax.config.model import ModelConfig


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Makes ids of prompts for one model.

    Attributes:
      tokenizer, config: of the model.
    """

    tokenizer: Tokenizer
    config: "ModelConfig"

    def pair(self, example: Example, prompt: str, answer: str, with_end: bool) -> Pair:
        """A prompt with at most one blank, and what is scored as its filling.

        A model that fills blanks: the answer's ids as they stand in the text, and the end id. A
        causal model: the answer and all text behind the blank, given the text before it.

        Args:
          example: of the prompt, for errors.
          prompt: a blank is added where it has none.
          answer: a text.
          with_end: score the end id too; causal models never do.
        """
        before, after = self._around(example, prompt)
        if self.config.continues_texts:
            return self._continued(example, before, f"{answer}{after}")
        mask = MASK.search(prompt)
        # The blank has swallowed the space in front of it; the answer has it.
        words = ids_behind(self.tokenizer.encode, before, answer)
        words += [self.tokenizer.special.end] if with_end else []
        text = prompt if mask else f"{before}[MASK]"
        ids, cut = self.blanked(example, text)
        return Pair(ids, words, cut)

    def following(self, example: Example, before: str, text: str) -> Pair:
        """A plain text, and what is scored as following it; neither has special tokens.

            "God said,", " let"    [CLS] ▁God ▁said , [gMASK]    |    ▁let

        A model that fills blanks has the text as part A, which sees all of itself, and [gMASK]
        behind it. The end id is not scored.
        """
        if self.config.continues_texts:
            return self._continued(example, before, text)
        ids, cut = self.before_gmask(before)
        return Pair(ids, ids_behind(self.tokenizer.encode, before, text), cut)

    def before_gmask(self, text: str) -> tuple[list[int], bool]:
        """The ids of a plain text with [gMASK] behind it, and whether it was cut."""
        special = self.tokenizer.special
        lead = [special.cls] if self.tokenizer.frames_texts else []
        ids = self.tokenizer.encode(text.rstrip(" "))
        room = self.config.max_positions - len(lead) - 1
        return [*lead, *ids[max(0, len(ids) - room) :], special.gmask], len(ids) > room

    def unidirectional(self, example: Example, prompt: str, answer: str) -> Pair:
        """A text before an answer, read from left to right by a model that fills blanks.

            "The cat sat", "on"     [CLS] [gMASK] ▁The ▁cat ▁sat    |    ▁on

        Of such a prompt `lm.score(.., unidirectional=True)` puts what is behind the mask into part
        B, where attention is causal.
        """
        before, after = self._around(example, prompt)
        if after.strip():
            raise UserError(
                f"{example.where}: read from left to right, a prompt ends in its blank; this one "
                f"goes on with {after.strip()[:30]!r}"
            )
        special = self.tokenizer.special
        words = ids_behind(self.tokenizer.encode, before, answer)
        text = self.tokenizer.encode(before.rstrip(" "))
        # Block positions of part B: 1 for the start id, then one for each id.
        room = self.config.table_rows - 1 - len(words)
        kept = text[max(0, len(text) - room) :] if room > 0 else []
        return Pair([special.cls, special.gmask, *kept], words, len(kept) < len(text))

    def blanked(self, example: Example, prompt: str) -> tuple[list[int], bool]:
        """The ids of a prompt with blanks, and whether it was cut.

        Raises:
          UserError: what is between its blanks does not fit the model.
        """
        ids, special = blanked_ids(self.tokenizer, prompt.rstrip()), self.tokenizer.special
        most = self.config.max_positions
        if len(ids) <= most:
            return ids, False
        lead, tail = int(ids[0] == special.cls), int(ids[-1] == special.eos)
        masks = [slot for slot, id_ in enumerate(ids) if id_ in special.masks]
        over = len(ids) - most
        front = min(over, masks[0] - lead)
        back = min(over - front, len(ids) - tail - masks[-1] - 1)
        if front + back < over:
            raise UserError(
                f"{example.where}: the text from the first blank to the last does not fit the "
                f"model's context of {most} (model.max_positions)"
            )
        body = ids[lead + front : len(ids) - tail - back]
        return [*ids[:lead], *body, *ids[len(ids) - tail :]], True

    def check_answer(self, max_new_tokens: int) -> None:
        """Refuses answers that are longer than a model that fills blanks has positions for."""
        most = self.config.table_rows - 1
        if max_new_tokens > most:
            raise UserError(
                f"max_new_tokens={max_new_tokens} does not fit the model; at most {most} "
                "(model.max_positions)"
            )

    def begun(self, prompt: str, max_new_tokens: int) -> tuple[list[int], bool]:
        """The ids of a text that a causal model goes on with, and whether it was cut."""
        prefix, ids = causal_prefix(self.tokenizer), self.tokenizer.encode(prompt.rstrip())
        room = self.config.max_positions - max_new_tokens - len(prefix)
        if room < 1:
            raise UserError(
                f"max_new_tokens={max_new_tokens} leaves no room for a prompt in the model's "
                f"context of {self.config.max_positions} (model.max_positions)"
            )
        return [*prefix, *ids[max(0, len(ids) - room) :]], len(ids) > room

    def check_inert(self, example: Example, may_hold_masks: bool = False) -> None:
        """Refuses columns that spell special tokens, which would become such in a prompt.

        Args:
          example: of whose prompt the columns are.
          may_hold_masks: blanks are meant.
        """
        for text in example.inserted:
            for part in MASK.split(text) if may_hold_masks else [text]:
                if self.tokenizer.encode(part, allow_special=True) != self.tokenizer.encode(part):
                    raise UserError(
                        f"{example.where}: {part[:60]!r} spells a special token, which a prompt "
                        "would take for one; change the text"
                    )

    def _around(self, example: Example, prompt: str) -> tuple[str, str]:
        """The text before the blank, or all of it with a space, and the text behind."""
        parts = MASK.split(prompt)
        if len(parts) > 2:
            raise UserError(
                f"{example.where}: the prompt must have one blank; it has {len(parts) - 1}"
            )
        return (parts[0], parts[1]) if len(parts) == 2 else (f"{prompt.rstrip()} ", "")

    def _continued(self, example: Example, before: str, text: str) -> Pair:
        context, whole = self._split(before, text)
        prefix = causal_prefix(self.tokenizer)
        room = self.config.max_positions - len(prefix) - len(whole) + 1
        if room < 0:
            raise UserError(
                f"{example.where}: {text[:40]!r} does not fit the model's context of "
                f"{self.config.max_positions} (model.max_positions)"
            )
        kept = context[max(0, len(context) - room) :]
        return Pair([*prefix, *kept], whole, len(kept) < len(context))

    def _split(self, before: str, text: str) -> tuple[list[int], list[int]]:
        """The ids of a text, split where those of its beginning alone part from them."""
        alone = self.tokenizer.encode(before.rstrip(" "))
        whole = self.tokenizer.encode(before + text)
        common = shared(alone, whole[:-1])
        return whole[:common], whole[common:]


def has_blank(prompt: str) -> bool:
    """Whether a prompt has a blank."""
    return MASK.search(prompt) is not None


def count_blanks(prompt: str) -> int:
    return len(MASK.findall(prompt))


def before_blank(prompt: str) -> str | None:
    """The text before the blank that ends a prompt; None: a blank has text behind it."""
    before, *others = MASK.split(prompt)
    return before if not "".join(others).strip() and len(others) < 2 else None
