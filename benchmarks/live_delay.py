"""Delay of `instantvir stream` by the clock: a time burned into each frame, read from the output.

    python benchmarks/live_delay.py --fps 6 --seconds 60

Compared with the theory: frame k of a block of B waits (B - 1 - k) frame periods for its block to
fill; what is measured beyond is computing, encoding and the pipes.
"""

import argparse
import itertools
import subprocess
import sys
import time

from live_run import CAMERA, COMMAND, ENVIRONMENT, percentiles, run_live
from receipts import machine, write_result


def delays(
    frames_per_block: int, fps: float, seconds: float, *, has_sound: bool
) -> dict[str, object]:
    """Percentiles of one run; its first three seconds, in which the pipe's backlog is worked off,
    are told apart."""
    sound = ["--audio", "pcm_s16le"] if has_sound else []
    run = run_live(
        ["--fps", str(fps), "--seconds", str(seconds), "--noise", "3", *sound],
        ["--operator", "identity+noise:std=3", "--latency", str(frames_per_block), "--quiet"],
    )
    steady = run.received.delays_ms[round(3 * fps) :]
    period = 1000 / fps
    waits = [(frames_per_block - 1 - k) * period for k in range(frames_per_block)]
    return {
        "frames_per_block": frames_per_block,
        "has_sound": has_sound,
        "fps": fps,
        "frames": len(run.received.numbers),
        "frames_dropped": run.summary["frames_dropped"],
        "theoretical_wait_ms": {"p50": waits[len(waits) // 2], "max": max(waits)},
        "measured_ms": percentiles(steady),
        "first_seconds_ms": percentiles(run.received.delays_ms[: round(3 * fps)]),
        "block_compute_ms": {
            name: round(1000 * value, 1) for name, value in run.summary["block_seconds"].items()
        },
        "first_frame_seconds_after_first_input": run.summary["first_frame_seconds"],
    }


def seconds_to_first_byte() -> float:
    """From starting the command to the first bytes of the restored stream, imports included."""
    camera = subprocess.Popen(
        [*CAMERA, "--fps", "25", "--seconds", "60"], stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    begin = time.monotonic()
    stream = subprocess.Popen(
        [*COMMAND, "-", "-o", "-", "--operator", "identity+noise:std=3", "--quiet"],
        stdin=camera.stdout, stdout=subprocess.PIPE, env=ENVIRONMENT,
    )  # fmt: skip
    assert camera.stdout is not None
    assert stream.stdout is not None
    camera.stdout.close()
    stream.stdout.read(4096)
    seconds = time.monotonic() - begin
    stream.stdout.close()
    stream.wait(60)
    camera.wait(60)
    return round(seconds, 2)


def main() -> None:
    """Measure block 1 and 3, without and with sound, and write the receipt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fps", type=float, default=6)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    result = machine()
    for frames_per_block, has_sound in itertools.product((1, 3), (False, True)):
        name = f"block_{frames_per_block}" + "_with_sound" * has_sound
        result[name] = delays(frames_per_block, args.fps, args.seconds, has_sound=has_sound)
        sys.stderr.write(f"{name} done\n")
    result["seconds_from_command_to_first_byte"] = seconds_to_first_byte()
    write_result("live_delay", result)


if __name__ == "__main__":
    main()
