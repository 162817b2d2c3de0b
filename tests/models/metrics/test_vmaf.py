"""VMAF, where a program has it; a program that plays one where none has."""

import numpy as np
import pytest

from instantvir_models.metrics.vmaf import installed_vmaf, vmaf


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (3, 8, 12, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    noise = rng.normal(0, 20, clean.shape)
    return (clean + noise).clip(0, 255).astype(np.uint8), clean


@pytest.fixture
def player(tmp_path):
    """Says what it was asked, and writes what the filter would."""
    program = tmp_path / "ffmpeg"
    program.write_text(
        "#!/bin/sh\n"
        'echo "$@" > ' + str(tmp_path / "asked") + "\n"
        'echo \'{"frames": [{"metrics": {"vmaf": 91.5}}, {"metrics": {"vmaf": 90}}]}\' > vmaf.json\n'
    )
    program.chmod(0o755)
    return program


def test_each_frame_is_read_from_the_log(pair, player, tmp_path):
    assert vmaf(*pair, str(player)).tolist() == [91.5, 90]
    asked = (tmp_path / "asked").read_text()
    assert "-s 96x64" in asked
    assert "[a][b]libvmaf=log_fmt=json" in asked


def test_a_program_that_fails_is_told(pair, player):
    player.write_text("#!/bin/sh\necho no such filter >&2; exit 1\n")
    with pytest.raises(OSError, match="could not measure VMAF: no such filter"):
        vmaf(*pair, str(player))


@pytest.mark.skipif(installed_vmaf() is None, reason="no ffmpeg here has libvmaf")
def test_noise_lowers_it(pair):
    noisy, clean = pair
    program = installed_vmaf()
    assert vmaf(clean, clean, program).min() > 95
    assert vmaf(noisy, clean, program).mean() < vmaf(clean, clean, program).mean()
