"""A held-out text and the spans cut out of it, before their order in part B is chosen.

tokens C a b c d E, spans (1, 3) (4, 5)     order 0 1:  C M c M E | S a b  S d
                                            order 1 0:  C M c M E | S d  S a b
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from glm_jax.corruption.assembly import AssemblyOptions, assemble, assemble_prefix
from glm_jax.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True)
class HeldOutText:
    """A window of a document, and the spans that are cut out of it.

    Attributes:
      index: of the window; all objectives have the same windows.
      objective: a value of `Batch.objective`.
      tokens: [CLS], the window's tokens, and eos where the document ends with it.
      spans: half-open (start, end) in `tokens`, ascending.
      closed: an end token follows each span; False: one stretch up to the end, without.
      first, document: index of `tokens[1]` in its document, and the document's number of tokens.
    """

    index: int
    objective: int
    tokens: list[int]
    spans: list[tuple[int, int]]
    closed: bool
    first: int
    document: int

    @property
    def sizes(self) -> np.ndarray:
        """[S] targets of each span: its tokens, and its end."""
        return np.array([end - start + self.closed for start, end in self.spans])

    def row(self, order: Sequence[int], special: SpecialTokens, mask: int) -> dict[str, np.ndarray]:
        """The fields of a Batch for the spans in an order of part B; see `assemble`."""
        if not self.closed:
            ((start, end),) = self.spans
            return assemble_prefix(
                self.tokens,
                end - start,
                mask_id=mask,
                start_id=special.start,
                objective=self.objective,
            )
        return assemble(
            self.tokens,
            self.spans,
            order,
            mask_id=mask,
            start_id=special.start,
            end_id=special.end,
            options=AssemblyOptions(objective=self.objective),
        )
