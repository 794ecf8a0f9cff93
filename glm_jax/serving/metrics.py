"""Figures for Prometheus: of requests, counted here, and of the scheduler, read when asked for."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from glm_jax.serving.asking import Counts, Decoder

_FIRST = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
_BETWEEN = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)


class Metrics:
    """Counters of one server, in a registry of their own: several may live in one process."""

    def __init__(self, decoder: Decoder):
        self._registry = CollectorRegistry()
        self._registry.register(_Scheduler(decoder))
        self._requests = Counter(
            "glm_jax_requests",
            "Requests that were answered, by route and status",
            ["route", "status"],
            registry=self._registry,
        )
        self._first = Histogram(
            "glm_jax_time_to_first_token_seconds",
            "From the request to the first token of a row",
            registry=self._registry,
            buckets=_FIRST,
        )
        self._between = Histogram(
            "glm_jax_time_between_tokens_seconds",
            "From one token of a row to the next",
            registry=self._registry,
            buckets=_BETWEEN,
        )

    def count(self, route: str, status: int) -> None:
        """Counts a request; `route` as it is declared, not as a client wrote it."""
        self._requests.labels(route, str(status)).inc()

    def clock(self, rows: int, start: float) -> "TokenClock":
        """A clock for the tokens of a request that came at `start` of `time.monotonic()`."""
        return TokenClock(self._first, self._between, rows, start)

    def text(self) -> bytes:
        """All figures in Prometheus' format."""
        return generate_latest(self._registry)


class TokenClock:
    """Observes when the tokens of a request's rows come."""

    def __init__(self, first: Histogram, between: Histogram, rows: int, start: float):
        self._first, self._between = first, between
        self._start = start
        self._last: list[float | None] = [None] * rows

    def token(self, row: int) -> None:
        """A token of a row has come."""
        now, last = time.monotonic(), self._last[row]
        if last is None:
            self._first.observe(now - self._start)
        else:
            self._between.observe(now - last)
        self._last[row] = now


class _Scheduler(Collector):
    """Reads the scheduler's counts when Prometheus asks."""

    def __init__(self, decoder: Decoder):
        self._decoder = decoder

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        counts = self._decoder.counts()
        gauges = {
            "slots": "Rows that can be decoded together",
            "busy": "Rows that are decoded now",
            "waiting": "Rows in the queue",
        }
        for name, what in gauges.items():
            yield GaugeMetricFamily(f"glm_jax_{name}_rows", what, value=getattr(counts, name))
        counters = {
            "prompt_tokens": "Tokens of prompts",
            "reused_tokens": "Tokens of prompts that were not computed again",
            "generated_tokens": "Tokens of answers",
            "steps": "Steps of decoding",
        }
        for name, what in counters.items():
            yield CounterMetricFamily(f"glm_jax_{name}", what, value=getattr(counts, name))
        yield _ended(counts)
        yield GaugeMetricFamily(
            "glm_jax_ready", "1 when all shapes are compiled", value=counts.state == "ready"
        )


def _ended(counts: Counts) -> Metric:
    family = CounterMetricFamily("glm_jax_ended_rows", "Rows that have ended", labels=["reason"])
    for reason, number in counts.ended.items():
        family.add_metric([reason], number)
    return family
