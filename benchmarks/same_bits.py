"""Whether two checkouts restore the same frames, to the bit: `python benchmarks/same_bits.py OLD NEW CLIP...`

Each clip is degraded once by NEW, restored by the command of both, and the decoded frames are compared.
Exit status 1 if any differ.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import av

CASES = {
    "denoise": ("identity+noise:std=10", ["--task", "denoise", "--noise", "10"]),
    "denoise, noise estimated": ("identity+noise:std=25", ["--task", "denoise"]),
    "inpaint, from the note": ("mask:keep=0.5,seed=0", []),
    "inpaint, a mask per frame": ("mask:keep=0.7,seed=0,per_frame=1+noise:std=2.5", []),
    "denoise in tiles": ("identity+noise:std=5", ["--task", "denoise", "--noise", "5", "--tile", "128"]),
    "denoise frame by frame": (
        "identity+noise:std=5",
        ["--task", "denoise", "--noise", "5", "--latency", "1"],
    ),
}  # fmt: skip
SECONDS = "0.3"


def run(checkout: Path, *arguments: str) -> None:
    """The command of a checkout, as a process."""
    roots = os.pathsep.join(
        str(checkout / folder) for folder in (".", "kernels", "models", "distill")
    )
    code = "from instantvir_cli.app import app; app()"
    environment = {**os.environ, "PYTHONPATH": roots, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment, cwd=checkout, check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def digest(video: Path) -> str:
    """A hash of the decoded frames."""
    found = hashlib.sha256()
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            found.update(frame.to_ndarray(format="rgb24").tobytes())
    return found.hexdigest()[:16]


def main(old: Path, new: Path, clips: list[Path]) -> int:
    """Print a line for each clip and case; the exit status."""
    is_all_equal = True
    for clip in clips:
        for case, (operator, options) in CASES.items():
            with tempfile.TemporaryDirectory() as folder:
                y = Path(folder) / "y.mkv"
                run(
                    new,
                    "degrade",
                    str(clip),
                    "-o",
                    str(y),
                    "--operator",
                    operator,
                    "--duration",
                    SECONDS,
                )
                hashes = []
                for number, checkout in enumerate((old, new)):
                    x = Path(folder) / f"x{number}.mkv"
                    run(checkout, "restore", str(y), "-o", str(x), "--codec", "ffv1", *options)
                    hashes.append(digest(x))
            is_equal = hashes[0] == hashes[1]
            is_all_equal = is_all_equal and is_equal
            print(
                f"{clip.stem:24} {case:28} {'equal' if is_equal else 'DIFFERENT'} {hashes[1]}",
                flush=True,
            )
    return 0 if is_all_equal else 1


if __name__ == "__main__":
    paths = [Path(text).resolve() for text in sys.argv[1:]]
    sys.exit(main(paths[0], paths[1], paths[2:]))
