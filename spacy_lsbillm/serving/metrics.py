"""The metrics at /metrics, in the text format of Prometheus."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping

TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Upper bounds in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
Labels = tuple[tuple[str, str], ...]
HELP = {
    "requests_total": "Requests by path and status; 499 where the client has hung up.",
    "documents_total": "Texts by pipeline and outcome.",
    "batches_total": "Batches by pipeline.",
    "batch_seconds_total": "Seconds of computing by pipeline.",
}


class Metrics:
    """Counts of a service. Several threads write them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, float]] = {name: defaultdict(float) for name in HELP}
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a finished request by path and status, and its duration."""
        with self._lock:
            self._counters["requests_total"][("path", path), ("status", str(status))] += 1
            self._buckets[next((i for i, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))] += 1
            self._seconds += seconds

    def batch(self, pipeline: str, seconds: float, documents: int, failed: int) -> None:
        """Count a finished batch of a pipeline; `failed` of its documents failed."""
        name = ("pipeline", pipeline)
        with self._lock:
            self._counters["batches_total"][name,] += 1
            self._counters["batch_seconds_total"][name,] += seconds
            self._counters["documents_total"][name, ("outcome", "annotated")] += documents - failed
            self._counters["documents_total"][name, ("outcome", "failed")] += failed

    def render(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All metrics as text.

        gauges (Mapping[str, tuple[str, float]]): Further values by name: a description, and the current value.
        """
        with self._lock:
            return "\n".join(self._lines(gauges)) + "\n"

    def _lines(self, gauges: Mapping[str, tuple[str, float]]) -> Iterator[str]:
        for name, counter in self._counters.items():
            yield f"# HELP lsbillm_{name} {HELP[name]}"
            yield f"# TYPE lsbillm_{name} counter"
            for labels, value in sorted(counter.items()):
                shown = ",".join(f'{key}="{_escaped(said)}"' for key, said in labels)
                yield f"lsbillm_{name}{{{shown}}} {value!r}"
        yield "# HELP lsbillm_request_seconds Seconds from a request to the end of its answer."
        yield "# TYPE lsbillm_request_seconds histogram"
        total = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._buckets, strict=True):
            total += count
            yield f'lsbillm_request_seconds_bucket{{le="{bound}"}} {total}'
        yield f"lsbillm_request_seconds_sum {self._seconds!r}"
        yield f"lsbillm_request_seconds_count {total}"
        for name, (what, now) in gauges.items():
            yield f"# HELP lsbillm_{name} {what}"
            yield f"# TYPE lsbillm_{name} gauge"
            yield f"lsbillm_{name} {now!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
