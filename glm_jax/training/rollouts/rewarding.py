"""Rewards of answers: a function in a file, called in processes of its own, or a reward model.

    rollouts.reward="my/rewards.py:exact"     def exact(prompt, answer, example): return float(..)

A call that overruns `rollouts.reward_seconds` is ended together with its process, which a function
that never returns to Python cannot escape.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import math
import os
import queue
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from glm_jax.config.rollouts import RolloutsConfig
from glm_jax.errors import UserError, short
from glm_jax.json_files import JsonObject
from glm_jax.paths import expanded
from glm_jax.tokenizers.messages import Message
from glm_jax.tokenizers.protocol import Messages

_WORKER = Path(__file__).with_name("reward_worker.py")
# A file may import what takes long; seconds.
_START = 120.0


@dataclasses.dataclass(frozen=True)
class Asked:
    """An answer whose reward is wanted.

    Attributes:
      prompt: as it stands in the file, a text or messages.
      answer: its text.
      example: the whole object.
      messages: the prompt, as a chat.
    """

    prompt: object
    answer: str
    example: JsonObject
    messages: list[Message]


class Rewards(Protocol):
    """Gives the reward of answers."""

    def __call__(self, asked: Sequence[Asked]) -> list[float | None]:
        """A finite number each; None where there is none, and that is allowed."""
        ...

    def close(self) -> None:
        """Ends what it has started."""
        ...


class _FailedCall(Exception):
    """Why a call gave no reward."""


class RewardFunction:
    """`rollouts.reward`; a context manager."""

    def __init__(self, settings: RolloutsConfig):
        """Starts its processes, which read the file.

        Args:
          settings: `reward`, `reward_seconds`, `reward_workers`, `failed_reward` are read.

        Raises:
          UserError: there is no such file or function, or the file cannot be run.
        """
        file, _, self._name = str(settings.reward).rpartition(":")
        self._file, self._settings = expanded(file), settings
        if not self._file.is_file():
            raise UserError(f"rollouts.reward names a file that there is not: {str(self._file)!r}")
        self._workers: queue.Queue[_Worker] = queue.Queue()
        self._threads = concurrent.futures.ThreadPoolExecutor(settings.reward_workers)
        for _ in range(settings.reward_workers):
            self._workers.put(_Worker(self._file, self._name))

    def __call__(self, asked: Sequence[Asked]) -> list[float | None]:
        """As of `Rewards`.

        Raises:
          UserError: the function raised, overran or gave no finite number, and
            `rollouts.failed_reward` is None.
        """
        return list(self._threads.map(self._reward, asked))

    def _reward(self, asked: Asked) -> float | None:
        worker = self._workers.get()
        try:
            return worker.call(asked, self._settings.reward_seconds)
        except _FailedCall as error:
            if worker.is_over:
                worker = _Worker(self._file, self._name)
            if self._settings.failed_reward is not None:
                return None
            raise UserError(
                f"rollouts.reward: {self._name} in {str(self._file)!r} {error}, for the answer "
                f"{short(asked.answer)} to {short(asked.prompt)}; mend it, or set "
                "rollouts.failed_reward, the reward of such answers"
            ) from error
        finally:
            self._workers.put(worker)

    def close(self) -> None:
        """Ends the processes."""
        self._threads.shutdown(cancel_futures=True)
        while not self._workers.empty():
            self._workers.get().end()

    def __enter__(self) -> "RewardFunction":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Worker:
    """A process that calls the function."""

    def __init__(self, file: Path, name: str):
        """Starts it, and waits until the file has been read."""
        self._process = subprocess.Popen(
            [sys.executable, str(_WORKER), str(file), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for training, which ends it.
            start_new_session=True,
        )
        self._left = b""
        try:
            found = self._read(_START)
        except _FailedCall as error:
            found = {"error": str(error)}
        if "ready" not in found:
            self.end()
            raise UserError(
                f"rollouts.reward: {str(file)!r} cannot be used for {name}: {found.get('error')}"
            )

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def call(self, asked: Asked, seconds: float) -> float:
        """The reward; raises _FailedCall where there is none."""
        given = {"prompt": asked.prompt, "answer": asked.answer, "example": asked.example}
        assert self._process.stdin is not None  # by its start
        try:
            self._process.stdin.write(json.dumps(given).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            self.end()
            raise _FailedCall("ended its process") from error
        found = self._read(seconds)
        if "error" in found:
            raise _FailedCall(f"raised {found['error']}")
        if not math.isfinite(found["reward"]):
            raise _FailedCall(f"gave {found['reward']}, no finite number")
        return float(found["reward"])

    def _read(self, seconds: float) -> JsonObject:
        """The next line; ends the process where none comes in time."""
        deadline = time.monotonic() + seconds
        assert self._process.stdout is not None  # by its start
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._left:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    self.end()
                    raise _FailedCall(f"took more than {seconds:g} s")
                more = os.read(self._process.stdout.fileno(), 1 << 16)
                if not more:
                    self.end()
                    raise _FailedCall("ended its process")
                self._left += more
        line, _, self._left = self._left.partition(b"\n")
        return json.loads(line)

    def end(self) -> None:
        """Kills it."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            # What could not be written to it is lost with it.
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._process.wait()


class RewardModel:
    """`rollouts.reward_model`: what a model with a value head says of the whole chat."""

    def __init__(self, rewards: Callable[[Sequence[Messages]], list[float]]):
        """`rewards`: of the model, for chats (`glm_jax.generation.rewards`)."""
        self._rewards = rewards

    def __call__(self, asked: Sequence[Asked]) -> list[float | None]:
        """As of `Rewards`; all processes call it with the same answers."""
        chats = [[*one.messages, {"role": "assistant", "content": one.answer}] for one in asked]
        return [float(reward) for reward in self._rewards(chats)]

    def close(self) -> None:
        """Nothing was started."""
