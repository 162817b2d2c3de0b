"""The student's cost per pixel beside what this CPU can multiply, and where the time goes.

    python benchmarks/student_cost.py [--size 832x480] [--threads 1]

The limit is the student's own multiply-adds at the measured rate of a dense 3x3 convolution of its
width. The profile names the operations that keep it from there.
"""

import argparse
import time

import cv2
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from instantvir_models.checkpoints.load import load_student
from instantvir_models.cpu import fastest_dtype, keep_freed_memory
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.students.base import condition
from instantvir_models.tasks import TASKS

SPECS = {task.name: task.benchmark_spec for task in TASKS.values()}


def cpu_seconds(job: object, repeats: int) -> float:
    """Median CPU seconds of a call of `job`, after one to warm up."""
    assert callable(job)
    job()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        job()
        times.append(time.process_time() - started)
    return float(np.median(times))


def convolution_rate(channels: int, height: int, width: int, dtype: torch.dtype) -> float:
    """Multiply-adds per CPU second of a dense 3x3 convolution, channels last."""
    conv = torch.nn.Conv2d(channels, channels, 3, padding=1).to(dtype)
    conv = conv.to(memory_format=torch.channels_last)
    x = torch.randn(1, channels, height, width, dtype=dtype).to(memory_format=torch.channels_last)
    seconds = cpu_seconds(lambda: conv(x), 9)
    return 9 * channels**2 * height * width / seconds


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", default="832x480")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    keep_freed_memory()
    dtype = fastest_dtype()
    rates = {
        kind: max(
            convolution_rate(48, height // 2, width // 2, kind),
            convolution_rate(64, height // 4, width // 4, kind),
        )
        for kind in {torch.float32, torch.bfloat16}
    }
    for kind, rate in rates.items():
        print(f"3x3 convolution, {kind}: {rate / 1e9:.0f} G multiply-adds per CPU second")

    student = load_student().student
    frames, traits = student.frames_per_block, student.capabilities.traits
    rng = torch.Generator().manual_seed(0)
    moving = torch.rand(1, frames + 1, 3, height // 8, width // 8, generator=rng) * 2 - 1
    moving = torch.nn.functional.interpolate(moving[0], (height, width), mode="bicubic")[None]
    shape = ClipShape(num_frames=frames, height=height, width=width)
    for task, spec in SPECS.items():
        degradation = parse_degradation(spec, shape=shape)
        y = degradation.operator.A(moving[:, :frames])
        measurement = Measurement(y, degradation)
        estimate = cpu_seconds(lambda m=measurement: condition(m, traits), 5) / frames
        print(f"initial estimate, {task}: {estimate:.3f} CPU s per frame")
    state = student.new_state()
    block = condition(measurement, traits)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            student.restore_block(block, state)

    seconds = cpu_seconds(step, 7) / frames
    with FlopCounterMode(display=False) as counter:
        step()
    multiply_adds = counter.get_total_flops() / 2 / frames
    limit = multiply_adds / rates[dtype]
    print(
        f"student, {dtype}, {given.size}: {seconds:.3f} CPU s per frame, "
        f"{1e9 * seconds / (width * height):.0f} ns per pixel; "
        f"{multiply_adds / 1e9:.1f} G multiply-adds take {limit:.3f} s at the convolution's rate: "
        f"{100 * limit / seconds:.0f} % of the limit"
    )
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    print(profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=14))


if __name__ == "__main__":
    main()
