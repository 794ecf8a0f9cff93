"""How a run goes, for whoever watches: a bar on a terminal, elsewhere a line for each logged row.

step 10/440  loss 8.571  learning rate 2.50e-04  1,480 tokens/s  12:30 left
"""

import sys
from collections.abc import Mapping

from tqdm import tqdm

from glm_jax.training.distributed import is_first

# tqdm's own rate counts evaluations as steps; ours does not.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}"


class Progress:
    """Context around the steps of a run; prints on the first process alone."""

    def __init__(self, first: int, last: int, terminal: bool | None = None):
        """Args:
        first: steps that are done already.
        last: the run's last step.
        terminal: whether to draw a bar; None: where standard error is one.
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
        """A step is done."""
        self._tqdm.update()

    def logged(self, step: int, values: Mapping[str, float], seconds_left: float) -> None:
        """A row of metrics.jsonl was written.

        Args:
          step: of the row.
          values: `loss`, `learning_rate` and `tokens_per_second` at least.
          seconds_left: to the last step, as far as it can be told.
        """
        parts = [
            f"loss {values['loss']:.3f}",
            f"learning rate {values['learning_rate']:.2e}",
            f"{values['tokens_per_second']:,.0f} tokens/s",
        ]
        if step < self._last:
            parts.append(f"{tqdm.format_interval(seconds_left)} left")
        if self._bar:
            self._tqdm.set_postfix_str(", ".join(parts))
        else:
            say(f"step {step}/{self._last}  {'  '.join(parts)}")


def say(text: str) -> None:
    """Prints on the first process, above a bar, and at once."""
    if is_first():
        tqdm.write(text)
        sys.stdout.flush()
