"""From rewards to advantages: of groups of answers (GRPO), and token by token (GAE); numpy."""

import numpy as np
from jaxtyping import Float

# Added to a deviation, so that a group whose rewards are all the same has advantages of 0.
_LEAST = 1e-4


def of_groups(
    rewards: Float[np.ndarray, "prompts answers"], scaling: str
) -> Float[np.ndarray, "prompts answers"]:
    """How much better each answer is than the others to its prompt (arXiv:2402.03300, 4.1.2).

        of_groups([[1, 0, 0, 1]], "mean")     [[.5 -.5 -.5 .5]]
        of_groups([[1, 0, 0, 1]], "group")    the same / (0.577 + 1e-4)

    Args:
      rewards: of each answer.
      scaling: "group": divided by the deviation (n - 1) of the group; "batch": by that of all
        rewards; "mean": not divided.
    """
    rewards = np.asarray(rewards, np.float64)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    if scaling == "mean":
        return centred
    if scaling == "batch":
        return centred / (rewards.std(ddof=1) + _LEAST)
    return centred / (rewards.std(axis=1, ddof=1, keepdims=True) + _LEAST)


def generalized(
    rewards: Float[np.ndarray, "answers tokens"],
    values: Float[np.ndarray, "answers tokens"],
    lengths: np.ndarray,
    discount: float,
    gae_lambda: float,
) -> Float[np.ndarray, "answers tokens"]:
    """Generalised advantage estimates (arXiv:1506.02438, equation 16) of answers that end.

        delta_t = r_t + discount v_(t+1) - v_t        A_t = delta_t + discount lambda A_(t+1)

    Nothing follows the last token of an answer, whether it has an end or was cut off.

    Args:
      rewards, values: of each token; those from an answer's length on are not read.
      lengths: [answers] integers.
      discount, gae_lambda: gamma and lambda.

    Returns:
      Float64, 0 from an answer's length on. Returns of the value head are these and the values.
    """
    there = np.arange(rewards.shape[1]) < np.asarray(lengths)[:, None]
    rewards = np.where(there, np.asarray(rewards, np.float64), 0.0)
    values = np.where(there, np.asarray(values, np.float64), 0.0)
    found, after = np.zeros_like(rewards), np.zeros(len(rewards))
    following = np.zeros(len(rewards))
    for index in reversed(range(rewards.shape[1])):
        delta = rewards[:, index] + discount * following - values[:, index]
        after = np.where(there[:, index], delta + discount * gae_lambda * after, 0.0)
        found[:, index], following = after, values[:, index]
    return found


def whitened(
    advantages: Float[np.ndarray, "answers tokens"], there: np.ndarray
) -> Float[np.ndarray, "answers tokens"]:
    """Less their mean, over their deviation, where `there` is True; 0 elsewhere."""
    chosen = advantages[there]
    if not chosen.size:
        return np.zeros_like(advantages)
    return np.where(there, (advantages - chosen.mean()) / (chosen.std() + 1e-8), 0.0)
