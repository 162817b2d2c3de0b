"""Input at four times the machine's speed under each policy: delay bounded, drops counted exactly.

    nice python benchmarks/overload.py --minutes 5

The machine's speed is measured first, by a camera that sends as fast as the stream takes.
"""

import argparse
import sys

from live_run import percentiles, run_live
from receipts import machine, write_result

POLICIES = ("drop", "skip", "degrade", "block")
OPTIONS = ["--operator", "blur:sigma=1.5+noise:std=3", "--quiet"]


def machine_fps() -> float:
    """Frames per second the stream restores when it is never short of them."""
    run = run_live(["--burst", "--frames", "150"], [*OPTIONS, "--on-overload", "block"])
    return float(run.summary["frames_out"] / run.summary["seconds"])


def overload(policy: str, fps: float, minutes: float) -> dict[str, object]:
    """One run; `is_exact` says whether every frame is accounted for, at both ends."""
    run = run_live(
        ["--fps", str(fps), "--seconds", str(60 * minutes)], [*OPTIONS, "--on-overload", policy]
    )
    summary, received = run.summary, run.received
    output = summary["outputs"][0]
    late = len(run.statuses) // 10
    return {
        "frames_in": summary["frames_in"],
        "frames_out": summary["frames_out"],
        "frames_dropped": summary["frames_dropped"],
        "frames_abandoned": summary["frames_abandoned"],
        "frames_passed": summary["frames_passed"],
        "frames_degraded": summary["frames_degraded"],
        "output_written": output["frames_written"],
        "output_dropped": output["frames_dropped"],
        "received": len(received.numbers),
        "is_exact": summary["frames_in"]
        == summary["frames_out"] + summary["frames_dropped"] + summary["frames_abandoned"]
        and summary["frames_out"] == output["frames_written"] + output["frames_dropped"]
        and output["frames_written"] == len(received.numbers),
        "pts_monotonic": received.is_monotonic,
        "return_codes": run.return_codes,
        "fps_in": round(summary["frames_in"] / summary["seconds"], 1),
        "fps_out": round(summary["frames_out"] / summary["seconds"], 1),
        "capture_to_restored_ms_p99": round(
            1000 * max((s["delay"]["p99"] for s in run.statuses[late:]), default=0), 1
        ),
        "stated_bound_ms": None
        if run.statuses[-1]["delay_bound_seconds"] is None
        else round(1000 * run.statuses[-1]["delay_bound_seconds"], 1),
        "camera_to_reader_ms": percentiles(received.delays_ms[len(received.delays_ms) // 10 :]),
        "rss_mib_last": round(run.statuses[-1]["resident_bytes"] / 2**20, 1),
    }


def main() -> None:
    """All policies, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--times", type=float, default=4, help="the machine's speed")
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    args = parser.parse_args()
    fps = machine_fps()
    result = {**machine(), "machine_fps": round(fps, 1), "input_fps": round(args.times * fps, 1)}
    for policy in args.policies:
        result[policy] = overload(policy, args.times * fps, args.minutes)
        sys.stderr.write(f"{policy} done: {result[policy]}\n")
    write_result("live_overload", result)


if __name__ == "__main__":
    main()
