"""The special tokens of blank infilling: inserted by id, never produced by encoding text."""

import dataclasses
import typing

# How each special token is spelled in prompts and in decoded text.
SPELLINGS = {
    "mask": "[MASK]",
    "gmask": "[gMASK]",
    "smask": "[sMASK]",
    "start": "<|startofpiece|>",
    "end": "<|endofpiece|>",
    "cls": "[CLS]",
    "eos": "<|endoftext|>",
    "pad": "<pad>",
    "block": "[dBLOCK]",
}

# Special tokens that a vocabulary need not have.
OPTIONAL = ("block",)


@typing.final  # so that `special and special.cls` has the type of an id, or None
@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """The ids of the special tokens.

    Attributes:
      mask: [MASK], stands for a cut-out span.
      gmask: [gMASK], stands for a long stretch (document objective).
      smask: [sMASK], stands for a sentence.
      start: <|startofpiece|>, the first input of a span in part B.
      end: <|endofpiece|>, the last target of a span; never an input.
      cls: [CLS], first token of every document.
      eos: last token of every complete document.
      pad: fills a row behind its last segment; never seen by attention.
      block: [dBLOCK], stands for a hidden input token; None: the vocabulary has none.
    """

    mask: int
    gmask: int
    smask: int
    start: int
    end: int
    cls: int
    eos: int
    pad: int
    block: int | None = None

    @property
    def masks(self) -> tuple[int, int, int]:
        """The ids of [MASK], [gMASK] and [sMASK], the blanks to fill."""
        return (self.mask, self.gmask, self.smask)

    def masks_by_objective(self, task_masks: bool = True) -> tuple[int, int, int, int]:
        """The id that stands for a cut-out span, by `Batch.objective`; 0 for none.

        Args:
          task_masks: False: [MASK] whatever the objective.
        """
        if not task_masks:
            return (0, self.mask, self.mask, self.mask)
        return (0, self.mask, self.smask, self.gmask)
