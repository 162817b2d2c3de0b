"""A long run of a synthetic camera through `instantvir stream`, and many frames through a `Session`.

    nice python benchmarks/soak.py --minutes 30 --fps 6
    nice python benchmarks/soak.py --frames 200000

Shows that memory and delay stay where they are, that time stamps only grow, and that sound stays
with its picture. Results go to benchmarks/results/.
"""

import argparse
import sys
import time

import numpy as np
from live_run import percentiles, run_live
from receipts import machine, write_result
from synthetic_camera import scene

from instantvir_models.live.status import resident_bytes

WARM_UP = 0.1
"""Part of the run left out of slopes: allocators and caches fill up."""


def growth_percent(seconds: list[float], values: list[float]) -> float:
    """Growth of a straight line through the values, over the whole run, in percent of their mean."""
    first = int(len(values) * WARM_UP)
    x, y = np.array(seconds[first:]), np.array(values[first:])
    slope = np.polyfit(x, y, 1)[0]
    return float(100 * slope * (x[-1] - x[0]) / y.mean())


def real_time(minutes: float, fps: float) -> dict[str, object]:
    """Camera with sound in real time; what the reader saw and what the status said."""
    run = run_live(
        ["--fps", str(fps), "--seconds", str(60 * minutes), "--audio", "pcm_s16le", "--noise", "3"],
        ["--operator", "identity+noise:std=3", "--quiet"],
    )
    received, statuses = run.received, run.statuses
    steady = int(len(received.delays_ms) * WARM_UP)
    delays = [float(d) for d in received.delays_ms]
    half = (len(delays) + steady) // 2
    return {
        "minutes": minutes,
        "fps": fps,
        "return_codes": run.return_codes,
        "frames_in": run.summary["frames_in"],
        "frames_out": run.summary["frames_out"],
        "frames_dropped": run.summary["frames_dropped"],
        "frames_received": len(received.numbers),
        "frames_in_order": received.numbers == list(range(len(received.numbers))),
        "pts_monotonic": received.is_monotonic,
        "rss_mib_first": round(statuses[int(len(statuses) * WARM_UP)]["resident_bytes"] / 2**20, 1),
        "rss_mib_last": round(statuses[-1]["resident_bytes"] / 2**20, 1),
        "rss_growth_percent": round(
            growth_percent(
                [s["seconds"] for s in statuses], [s["resident_bytes"] for s in statuses]
            ),
            3,
        ),
        "delay_ms": percentiles(delays[steady:]),
        "delay_ms_p50_first_half": percentiles(delays[steady:half])["p50"],
        "delay_ms_p50_second_half": percentiles(delays[half:])["p50"],
        "sound_offset_frames_at_end": received.sound_offset_frames(fps),
    }


def accelerated(num_frames: int, size: tuple[int, int]) -> dict[str, object]:
    """Many frames through one `Session`, as fast as it goes."""
    import cv2
    import torch

    from instantvir_models.checkpoints.load import load_student
    from instantvir_models.cpu import keep_freed_memory
    from instantvir_models.operators.spec import parse_degradation
    from instantvir_models.run.session import Session
    from instantvir_models.solvers.amortised import Amortised

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()
    height, width = size
    panorama, rng = scene(width, height).astype(np.float32), np.random.default_rng(0)
    session = Session(
        Amortised(load_student("tiny").student),
        parse_degradation("identity+noise:std=3"),
        height=height,
        width=width,
    )
    seconds, memory, block_seconds, out = [], [], [], 0
    begin, cpu = time.monotonic(), time.process_time()
    for first in range(0, num_frames, 30):
        frames = [panorama[:, t % width : t % width + width] for t in range(first, first + 30)]
        noisy = np.stack(frames) + rng.normal(0, 3, (30, height, width, 3))
        started = time.process_time()
        out += len(session.push(noisy.clip(0, 255).astype(np.uint8)))
        block_seconds.append(time.process_time() - started)
        if first % 1500 == 0:
            seconds.append(time.monotonic() - begin)
            memory.append(float(resident_bytes()))
            sys.stderr.write(f"{first} frames, {memory[-1] / 2**20:.1f} MiB\n")
    out += len(session.flush())
    tenth = len(block_seconds) // 10
    return {
        "size": f"{width}x{height}",
        "frames_in": session.report.frames_in,
        "frames_out": out,
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "rss_mib_first": round(memory[int(len(memory) * WARM_UP)] / 2**20, 1),
        "rss_mib_last": round(memory[-1] / 2**20, 1),
        "rss_growth_percent": round(growth_percent(seconds, memory), 3),
        "cpu_ms_per_30_frames_first_tenth": percentiles([1000 * s for s in block_seconds[:tenth]]),
        "cpu_ms_per_30_frames_last_tenth": percentiles([1000 * s for s in block_seconds[-tenth:]]),
        "residual": session.report.residual,
    }


def main() -> None:
    """Run what was asked for and write the receipt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--fps", type=float, default=6)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--size", default="32x24", help="of the accelerated run")
    args = parser.parse_args()
    if args.minutes:
        write_result("live_soak", {**machine(), **real_time(args.minutes, args.fps)})
    if args.frames:
        width, height = map(int, args.size.split("x"))
        where = machine()  # before the run: the code may change while it lasts
        result = accelerated(args.frames, (height, width))
        write_result("live_soak_session", {**where, **result})


if __name__ == "__main__":
    main()
