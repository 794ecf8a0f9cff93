"""Progress of a run: a bar on a terminal, elsewhere a line per logged row.

step 10/440  loss 8.571  learning rate 2.50e-04  1,480 tokens/s  12:30 left
"""

import math
import sys
from collections.abc import Mapping

from tqdm import tqdm

from glm_jax.batch import OBJECTIVES
from glm_jax.training.distributed import is_first

# tqdm's rate would count the time of evaluations; `Pace` does not.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}"


class Progress:
    """Context around the steps of a run; prints on the first process only."""

    def __init__(self, first: int, last: int, terminal: bool | None = None):
        """Args:
        first: number of steps done before.
        last: the run's last step.
        terminal: whether to draw a bar; None: if standard error is a terminal.
        """
        self._first, self._last = first, last
        self._bar = sys.stderr.isatty() if terminal is None else terminal

    def __enter__(self) -> "Progress":
        self._tqdm = tqdm(
            total=self._last,
            initial=self._first,
            dynamic_ncols=True,
            bar_format=_BAR,
            disable=not self._bar or not is_first(),
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._tqdm.close()

    def step(self) -> None:
        """To be called after each step."""
        self._tqdm.update()

    def logged(self, step: int, values: Mapping[str, float], seconds_left: float) -> None:
        """To be called after each row of metrics.jsonl.

        Args:
          step: of the row.
          values: `loss`, `learning_rate` and `tokens_per_second` at least.
          seconds_left: estimated time to the last step.
        """
        parts = [
            f"loss {values['loss']:.3f}",
            f"learning rate {values['learning_rate']:.2e}",
            f"{values['tokens_per_second']:,.0f} tokens/s",
        ]
        for name in ("reward", "accuracy"):
            if name in values:
                parts.insert(1, f"{name} {values[name]:.3f}")
        if step < self._last:
            parts.append(f"{tqdm.format_interval(seconds_left)} left")
        if self._bar:
            self._tqdm.set_postfix_str(", ".join(parts))
        else:
            say(f"step {step}/{self._last}  {'  '.join(parts)}")


def evaluation_line(step: int, values: Mapping[str, float]) -> str:
    """A line to print: `step 200: held out 5.102 (unigram 6.310), span 5.021 (unigram 6.200)`.

    Of a loss that has no such baseline: `step 200: held out 0.289, accuracy 0.875`; of a policy:
    `step 200: held out reward 0.912, answers of 3.1 tokens`.
    """
    parts = []
    for name in ("", *OBJECTIVES):
        suffix = f"/{name}" if name else ""
        loss = values.get(f"eval/loss{suffix}", math.nan)
        if math.isfinite(loss):
            baseline = values.get(f"eval/unigram_loss{suffix}")
            beside = "" if baseline is None else f" (unigram {baseline:.3f})"
            parts.append(f"{name or 'held out'} {loss:.3f}{beside}")
    if "eval/accuracy" in values:
        parts.append(f"accuracy {values['eval/accuracy']:.3f}")
    if "eval/reward" in values:
        parts.append(
            f"held out reward {values['eval/reward']:.3f}, answers of "
            f"{values['eval/length/answer']:.1f} tokens"
        )
    return f"step {step}: {', '.join(parts)}"


def say(text: str) -> None:
    """Prints a line on the first process, above the bar, and flushes it."""
    if is_first():
        tqdm.write(text)
        sys.stdout.flush()
