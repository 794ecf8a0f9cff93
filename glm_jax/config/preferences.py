"""The section `preferences` of a config: losses over pairs of answers, and their reference."""

import dataclasses

from glm_jax.checks import check_types, finite_number
from glm_jax.errors import UserError

# The losses of `train.loss` that take pairs.
LOSSES_OF_PAIRS = ("dpo", "hinge", "ipo", "reward")
# Those that compare the policy with a reference.
WITH_REFERENCE = ("dpo", "hinge", "ipo")
# Those with a margin.
WITH_MARGIN = ("dpo", "reward")
# The losses that each option does something in.
_USED_IN = {
    "beta": WITH_REFERENCE,
    "label_smoothing": ("dpo",),
    "margin": WITH_MARGIN,
    "length_normalized": WITH_REFERENCE,
    "reference_free": WITH_REFERENCE,
    "reference": WITH_REFERENCE,
}


@dataclasses.dataclass(frozen=True)
class PreferencesConfig:
    """Losses over pairs of a chosen and a rejected answer (examples.format="preferences").

    With d = (log p(chosen) - log ref(chosen)) - (log p(rejected) - log ref(rejected)), sums over
    the tokens of an answer and its end,

        dpo       -(1 - s) log sigmoid(beta d - margin) - s log sigmoid(-beta d + margin)
        ipo       (d - 1 / (2 beta))^2
        hinge     max(0, 1 - beta d)
        reward    -log sigmoid(r(chosen) - r(rejected) - margin), r by the model's value head

    (arXiv:2305.18290, 2310.12036, 2305.10425, 1706.03741.)

    Attributes:
      beta: how much the policy is held to the reference; larger holds it more.
      label_smoothing: s, the share of pairs that are taken to be the wrong way round
        (arXiv:2310.12036's authors call it conservative DPO), 0 to 0.5.
      margin: by how much the chosen answer must win; each pair may have one of its own besides
        (`examples.margin_field`). With reference_free and length_normalized,
        "dpo" is SimPO (arXiv:2405.14734), and this is its gamma.
      length_normalized: means over the tokens of an answer in place of sums.
      reference_free: the reference is left out, d = log p(chosen) - log p(rejected).
      reference: directory of the reference's log-probabilities; it is computed there if there is
        none. None: beside the store of examples (docs/align.md).
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    margin: float = 0.0
    length_normalized: bool = False
    reference_free: bool = False
    reference: str | None = None

    def __post_init__(self):
        check_types(self, "preferences")
        finite_number("preferences.beta", self.beta, above=0)
        finite_number("preferences.label_smoothing", self.label_smoothing, least=0, most=0.5)
        finite_number("preferences.margin", self.margin, least=0)
        if self.reference is not None and self.reference_free:
            raise UserError(
                f"preferences.reference={self.reference!r} does nothing with "
                "preferences.reference_free=True; leave one of them out"
            )

    def check_loss(self, loss: str) -> None:
        """Refuses options that do nothing in a loss.

        Args:
          loss: `train.loss`.

        Raises:
          UserError: names the option and the losses that it is of.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default and loss not in _USED_IN[field.name]:
                raise UserError(
                    f"preferences.{field.name}={value!r} does nothing with train.loss={loss!r}; it "
                    f"is of {', '.join(map(repr, _USED_IN[field.name]))}"
                )

    def compares(self, loss: str) -> bool:
        """Whether a loss compares the policy with a reference."""
        return loss in WITH_REFERENCE and not self.reference_free
