"""The section `policy` of a config: losses over answers of the policy itself."""

import dataclasses

from glm_jax.checks import check, check_choice, check_types, finite_number
from glm_jax.config.rollouts import LOSSES_OF_ROLLOUTS
from glm_jax.errors import UserError

KL_ESTIMATORS = ("k1", "k2", "k3")
# How the advantages of each loss may be scaled; the first is the default.
ADVANTAGES = {"grpo": ("group", "batch", "mean"), "ppo": ("batch", "plain")}
# The options that one loss alone has.
_OF_PPO = ("value_coefficient", "value_clip", "gae_lambda", "discount", "kl_in")


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """GRPO (arXiv:2402.03300) and PPO (arXiv:1707.06347).

    With the ratio w = p / p_old of a token and its advantage A, the loss of a token is

        - min(w A, clip(w, 1 - clip_low, 1 + clip_high) A) + kl_beta KL - entropy_bonus entropy

    and of PPO value_coefficient times that of the value head besides.

    Attributes:
      clip_low, clip_high: how far the ratio may move; a larger clip_high is DAPO's
        (arXiv:2503.14476, section 3.1).
      advantages: how rewards become advantages. "grpo": "group", (r - mean) / (deviation + 1e-4) of
        its group; "batch", r - mean of its group, over the deviation in the cycle; "mean", not
        divided (Dr. GRPO, arXiv:2503.20783). "ppo": "batch", generalised advantages (GAE,
        arXiv:1506.02438) less their mean, over their deviation; "plain", as they are. None: the
        first.
      loss_per: means of the loss: "token", over all tokens of the step (DAPO); "sequence", over the
        tokens of each answer, then over answers (the GRPO article); "longest", over answers, each
        sum divided by rollouts.max_new_tokens (Dr. GRPO).
      kl_beta: weight of the divergence from the model that the run begins with; 0: none.
      kl_estimator: of a token, with r = log p - log p_ref: "k1", r; "k2", r^2 / 2; "k3",
        exp(-r) - 1 + r (joschu.net/blog/kl-approx.html).
      kl_in: of PPO, "reward": kl_beta times k1 of the policy that answered is taken from each
        token's reward (InstructGPT, arXiv:2203.02155); "loss": as in GRPO.
      reference: compute the divergence for watching where kl_beta is 0. With a reference, a copy of
        what is trained is kept as it was at first: of adapters megabytes, else a second model.
      entropy_bonus: weight of the entropy.
      value_coefficient: weight of the value head's squared error.
      value_clip: how far a value may move from what it was at the rollout; None: any.
      gae_lambda, discount: lambda and gamma of GAE, per token.
      kl_by_ratio: in the loss, w KL in place of KL: the gradient of w makes that of the estimate
        the gradient of the divergence (arXiv:2512.02556, section 3.1; TRL's default).
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    advantages: str | None = None
    loss_per: str = "token"
    kl_beta: float = 0.0
    kl_estimator: str = "k3"
    kl_in: str = "reward"
    reference: bool = False
    entropy_bonus: float = 0.0
    value_coefficient: float = 0.5
    value_clip: float | None = 0.2
    gae_lambda: float = 0.95
    discount: float = 1.0
    kl_by_ratio: bool = False

    def __post_init__(self):
        check_types(self, "policy")
        finite_number("policy.clip_low", self.clip_low, above=0, most=1)
        for name in ("clip_high", "value_clip"):
            if getattr(self, name) is not None:
                finite_number(f"policy.{name}", getattr(self, name), above=0)
        for name in ("kl_beta", "entropy_bonus", "value_coefficient"):
            finite_number(f"policy.{name}", getattr(self, name), least=0)
        for name in ("gae_lambda", "discount"):
            finite_number(f"policy.{name}", getattr(self, name), least=0, most=1)
        check_choice("policy.loss_per", self.loss_per, ["token", "sequence", "longest"])
        check_choice("policy.kl_estimator", self.kl_estimator, list(KL_ESTIMATORS))
        check_choice("policy.kl_in", self.kl_in, ["reward", "loss"])

    @property
    def has_reference(self) -> bool:
        """Whether log-probabilities of the model that the run begins with are computed."""
        return self.kl_beta > 0 or self.reference

    def scaling(self, loss: str) -> str:
        """`advantages`, or the default of a loss."""
        return self.advantages or ADVANTAGES[loss][0]

    def kl_weight(self, loss: str) -> float:
        """The weight of the divergence in the loss itself."""
        return 0.0 if loss == "ppo" and self.kl_in == "reward" else self.kl_beta

    def check_loss(self, loss: str) -> None:
        """Refuses options that do nothing in a loss.

        Args:
          loss: `train.loss`.

        Raises:
          UserError: names the option, and the losses that it is of.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            of = ("ppo",) if field.name in _OF_PPO else LOSSES_OF_ROLLOUTS
            if value != field.default and loss not in of:
                raise UserError(
                    f"policy.{field.name}={value!r} does nothing with train.loss={loss!r}; it "
                    f"is of {', '.join(map(repr, of))}"
                )
        if loss not in LOSSES_OF_ROLLOUTS:
            return
        check(
            self.scaling(loss) in ADVANTAGES[loss],
            "policy.advantages",
            self.advantages,
            f"one of {list(ADVANTAGES[loss])} with train.loss={loss!r}",
        )
        for name in ("kl_estimator", "kl_by_ratio"):
            value = getattr(self, name)
            if value != getattr(PolicyConfig, name) and self.kl_weight(loss) == 0:
                raise UserError(
                    f"policy.{name}={value!r} does nothing without a divergence in the loss: set "
                    "policy.kl_beta" + (" and policy.kl_in='loss'" if loss == "ppo" else "")
                )
