"""The status in Prometheus' text format; needs the extra `instantvir[live]`."""

from collections.abc import Callable, Iterator
from typing import Any

from instantvir_models.errors import UsageError
from instantvir_models.live.serve.guarded_http import GuardedHandler, GuardedServer
from instantvir_models.live.status import LiveStatus, OutputStatus, Percentiles

PREFIX = "instantvir_"
METRICS_PATH = "/metrics"


class MetricsServer(GuardedServer):
    """Answers scrapes of `http://host:port/metrics`; arguments as `GuardedServer`.

    Raises:
        UsageError: if prometheus_client is not installed or the address cannot be used.
    """

    def __init__(
        self, status: Callable[[], LiveStatus], *, host: str, port: int, token: str | None
    ) -> None:
        try:
            from prometheus_client import CollectorRegistry
        except ImportError as error:
            raise UsageError(
                "metrics need the package prometheus-client", hint="pip install 'instantvir[live]'"
            ) from error
        self.registry = CollectorRegistry()
        self.registry.register(_Collector(status))
        super().__init__(
            _Handler, purpose="metrics", host=host, port=port, path=METRICS_PATH, token=token
        )


class _Handler(GuardedHandler):
    guard: MetricsServer

    def answer_get(self, path: str, query: dict[str, list[str]]) -> None:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        if path == METRICS_PATH:
            self.answer(200, CONTENT_TYPE_LATEST, generate_latest(self.guard.registry))
        else:
            super().answer_get(path, query)


class _Collector:
    """Reads the status when it is asked, so that a stream without scrapes pays nothing."""

    def __init__(self, status: Callable[[], LiveStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        status = self._status()
        for name, about, number in _counters(status):
            yield CounterMetricFamily(PREFIX + name, about, value=number)
        for name, about, value in _gauges(status):
            yield GaugeMetricFamily(PREFIX + name, about, value=value)
        for name, about, percentiles in (
            ("block_seconds", "Time to restore one block", status.block_seconds),
            ("delay_seconds", "Capture to restored", status.delay),
        ):
            family = GaugeMetricFamily(PREFIX + name, about, labels=["quantile"])
            for quantile, seconds in _quantiles(percentiles):
                family.add_metric([quantile], seconds)
            yield family
        for name, about, read in _OUTPUT_COUNTERS:
            counter = CounterMetricFamily(PREFIX + name, about, labels=["output"])
            for output in status.outputs:
                counter.add_metric([output.name], read(output))
            yield counter


def _counters(status: LiveStatus) -> list[tuple[str, str, int]]:
    return [
        ("frames_in", "Frames captured", status.frames_in),
        ("frames_out", "Frames restored or passed through", status.frames_out),
        ("frames_dropped", "Frames that came too late", status.frames_dropped),
        ("frames_abandoned", "Frames left when the stream ended", status.frames_abandoned),
        ("frames_passed", "Frames out that were not restored", status.frames_passed),
        ("frames_degraded", "Frames out restored the cheap way", status.frames_degraded),
        ("frames_guarded", "Frames out replaced in some places", status.frames_guarded),
        ("reconnects", "Connections made again to the input", status.reconnects),
        ("input_stalls", "Times the input fell silent", status.input_stalls),
        ("size_changes", "Changes of frame size or depth", status.size_changes),
    ]


def _gauges(status: LiveStatus) -> list[tuple[str, str, float]]:
    return [
        ("fps_in", "Frames per second captured", status.fps_in),
        ("fps_out", "Frames per second out", status.fps_out),
        ("queue_depth", "Frames waiting for restoration", status.queue_depth),
        ("queue_size", "Frames that may wait", status.queue_size),
        ("resident_bytes", "Memory of the process in RAM", status.resident_bytes),
    ]


def _quantiles(percentiles: Percentiles) -> list[tuple[str, float]]:
    return [("0.5", percentiles.p50), ("0.95", percentiles.p95), ("0.99", percentiles.p99)]


_OUTPUT_COUNTERS: list[tuple[str, str, Callable[[OutputStatus], int]]] = [
    ("output_frames_written", "Frames an output took", lambda o: o.frames_written),
    ("output_frames_dropped", "Frames an output lost", lambda o: o.frames_dropped),
    ("output_reconnects", "Connections made again to an output", lambda o: o.reconnects),
]
