import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from instantvir_cli.app import app
from instantvir_kernels.tools.roofline import CARDS

RUNNER = CliRunner()


def test_the_roofline_is_labelled_as_a_model():
    result = RUNNER.invoke(app, ["benchmark", "--roofline"])
    assert result.exit_code == 0
    assert "A model, not a measurement" in result.stdout
    assert "self-attention" in result.stdout
    assert "A100" in result.stdout


def test_as_json_with_the_costs_and_speeds_of_every_window():
    result = RUNNER.invoke(app, ["benchmark", "--roofline", "--json"])
    summary = json.loads(result.stdout)
    assert summary["kind"] == "model"
    assert summary["tokens_per_block"] == 4680
    assert list(summary["costs"]) == ["0", "2", "6"]
    speeds = {(s["card"], s["window"], s["sustained"]): s for s in summary["speeds"]}
    assert len(speeds) == len(CARDS) * 4 * 2
    for speed in speeds.values():
        assert speed["fused_fps"] > speed["unfused_fps"]
        assert 0 < speed["attention_utilisation"] <= 1
    clip = speeds["A100 SXM", "clip", 1.0]
    assert 35.56 < clip["fused_fps"] < 122.9  # between what is reported and the peak alone


@pytest.mark.parametrize("size", ["830x480", "832", "x480", "0x16"])
def test_a_size_that_is_no_multiple_of_16_is_refused(size):
    result = RUNNER.invoke(app, ["benchmark", "--roofline", "--size", size])
    assert result.exit_code == 2
    assert "multiples of 16" in result.output


def test_it_needs_no_torch():
    """Counting on paper must not wait for torch to load."""
    code = (
        "import sys; from instantvir_cli.roofline import run_roofline; "
        "run_roofline(size='832x480', as_json=True); "
        "assert 'torch' not in sys.modules and 'triton' not in sys.modules"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
