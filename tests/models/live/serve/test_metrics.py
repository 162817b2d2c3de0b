"""The metrics as Prometheus reads them."""

import pytest

from instantvir_models.errors import UsageError
from instantvir_models.live.serve import metrics
from tests.live_tools import STATUS, ask


def test_metrics_are_served_as_prometheus_reads_them():
    pytest.importorskip("prometheus_client")
    server = metrics.MetricsServer(lambda: STATUS, host="127.0.0.1", port=0, token=None)
    server.start()
    try:
        lines = ask(server, "/metrics")[2].decode().splitlines()
    finally:
        server.stop()
    assert "instantvir_frames_in_total 100.0" in lines
    assert "instantvir_frames_dropped_total 15.0" in lines
    assert "instantvir_frames_abandoned_total 1.0" in lines
    assert 'instantvir_delay_seconds{quantile="0.95"} 0.5' in lines
    assert 'instantvir_output_frames_dropped_total{output="-"} 8.0' in lines


def test_metrics_without_their_package_say_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    with pytest.raises(UsageError, match="prometheus-client") as caught:
        metrics.MetricsServer(lambda: STATUS, host="127.0.0.1", port=1, token=None)
    assert caught.value.hint == "pip install 'instantvir[live]'"
