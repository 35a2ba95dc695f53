"""Figures in Prometheus' words. Loaded when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from argosy.server.telemetry import BUCKETS, Counters

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4.encode()

_Family = CounterMetricFamily | HistogramMetricFamily | GaugeMetricFamily


def expose(counters: Counters) -> bytes:
    """All figures, in the text format.

    >>> b"argosy_requests_total" in expose(Counters())
    True
    """
    registry = CollectorRegistry()
    registry.register(_Figures(counters))
    return generate_latest(registry)


class _Figures:
    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[_Family]:
        counters = self._counters
        requests = CounterMetricFamily(
            "argosy_requests", "Requests answered", labels=("route", "method", "status")
        )
        for (route, method, status), count in counters.requests.items():
            requests.add_metric((route, method, str(status)), count)
        yield requests
        timings = HistogramMetricFamily(
            "argosy_request_seconds",
            "From a request's headers to its answer's last byte",
            labels=("route", "method"),
        )
        for labels, timing in counters.timings.items():
            timings.add_metric(labels, _cumulated(timing.counts), timing.seconds)
        yield timings
        for name, count in counters.bytes.items():
            yield CounterMetricFamily(f"argosy_{name}_bytes", f"Bytes {name} in bodies", count)
        for name, value in counters.database.items():
            yield GaugeMetricFamily(f"argosy_{name}", f"{name} in the database", value)


def _cumulated(counts: list[int]) -> list[tuple[str, float]]:
    bounds = [*(str(float(bound)) for bound in BUCKETS), "+Inf"]
    return [(bound, float(sum(counts[: i + 1]))) for i, bound in enumerate(bounds)]
