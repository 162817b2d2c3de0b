"""Restore a file, with a line of progress, and say how it went.

python examples/restore_a_file.py examples/flower-blurred.mp4 flower-restored.mp4
"""

import sys

import instantvir


def show(progress: instantvir.Progress) -> None:
    """One line that is written over."""
    total = progress.total_frames or "?"
    print(f"\r{progress.frames} of {total} frames", end="", file=sys.stderr, flush=True)


def main(source: str, destination: str) -> None:
    """Restore `source`; blur and noise are estimated."""
    try:
        report = instantvir.restore(source, destination, task="deblur", on_progress=show)
    except instantvir.InstantVIRError as error:
        sys.exit(f"{error}\n{error.hint or ''}")
    print(file=sys.stderr)
    for estimate in report.estimates:
        print(f"{estimate.name}: {estimate.value:.2f} +- {estimate.std:.2f} {estimate.unit}")
    print(f"{report.frames} frames at {report.fps:.1f} FPS, undone: {report.operator}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
