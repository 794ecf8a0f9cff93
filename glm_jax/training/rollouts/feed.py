"""The batches of rollouts, step by step: made where a cycle begins, with the policy of that moment.

batches 2, passes 2       step   1 2 3 4   5 6 7 8
                          batch  a b a b   c d c d
                                 ^ answers ^ answers     saves after steps 4 and 8 alone
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from jax.sharding import NamedSharding

from glm_jax.batch import Batch
from glm_jax.models.trees import Params
from glm_jax.training.feed import Fed, Stream, count_targets, own_to_devices
from glm_jax.training.train_state import TrainState

if TYPE_CHECKING:
    from glm_jax.data.examples.prompt_rows import PromptBatch
    from glm_jax.training.rollouts.making import Making
    from glm_jax.training.rollouts.reference import Reference


class RolloutFeed:
    """What `glm_jax.training.feed.Feed` is for rows of files.

    Attributes:
      category: of `Goodput`, what the wait for a batch is.
    """

    category = "rolling_out"

    def __init__(
        self,
        stream: Stream,
        making: "Making",
        reference: "Reference | None",
        passes: int,
        sharding: NamedSharding,
        close: Callable[[], object],
    ):
        """Makes nothing yet.

        Args:
          stream: of the prompts of all processes.
          making: makes the batches of a cycle.
          reference: None: the loss compares with none.
          passes: how often the batches of a cycle are gone through.
          sharding: of the global batch.
          close: called at the end.
        """
        self._stream, self._making, self._reference = stream, making, reference
        self._passes, self._sharding, self._close = passes, sharding, close
        self._waiting: deque[tuple[Batch, dict[str, int]]] = deque()
        self._metrics: dict[str, float] = {}

    @property
    def between(self) -> bool:
        """Whether a run may be saved and stopped: what is left of a cycle is in no checkpoint."""
        return not self._waiting

    def take(self, state: TrainState) -> Fed:
        """The batch of the next step.

        Args:
          state: before the step.
        """
        if not self._waiting:
            self._begin(state)
        batch, counts = self._waiting.popleft()
        counted = counts | count_targets(batch)
        on_devices = own_to_devices(batch, self._sharding)
        return Fed(on_devices, self._stream.get_state(), counted, self._metrics)

    def _begin(self, state: TrainState) -> None:
        prompts = cast("PromptBatch", next(self._stream))  # examples.format="prompts"
        reference: Params | None = None
        if self._reference is not None:
            reference = self._reference.params(state.frozen)
        made = self._making(state.params, reference, prompts, int(state.step))
        self._metrics = dict(made.metrics)
        for _ in range(self._passes):
            self._waiting.extend(zip(made.batches, made.statistics, strict=True))

    def close(self) -> None:
        """Closes the stream, and what gives rewards."""
        self._stream.close()
        self._close()
