"""The command in a process that has loaded everything and forks for each case: a kill costs 0.3 s.

`Warm` starts that process. A case can be killed before its nth step on the disk (what Python opens,
makes, moves and removes in a folder), may write no file larger than so many bytes, and may find that
a name takes only so many.
"""

import builtins
import errno
import io
import json
import mmap
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run of the command."""

    args: list[str]
    folder: str
    """Where it works, and whose steps are counted."""
    kill_at: int | None = None
    """The step before which it is killed."""
    kill_after: float | None = None
    """Seconds after which it is killed."""
    signal: int = 9
    most_bytes: int | None = None
    """Of any file."""
    full: tuple[str, int] | None = None
    """A part of a name, and how many bytes what Python writes there may have."""
    output_room: int | None = None
    """Bytes that standard output takes before its disk is full; None for no end."""
    segment: int | None = None
    """Frames of a piece that is kept while it runs."""
    most_memory: int | None = None
    most_files: int | None = None


@dataclass(frozen=True)
class Ended:
    """What came of it."""

    status: int
    """As a shell says it: minus the signal if one ended it."""
    steps: int
    stdout: str
    stderr: str


class Warm:
    """The process; a context manager."""

    def __enter__(self):
        paths = [str(ROOT / folder) for folder in (".", "kernels", "models", "distill")]
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.warm import serve; serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, *args, folder, **options):
        """What came of `instantvir ARGS` in `folder`."""
        case = Case(args=[str(arg) for arg in args], folder=str(folder), **options)
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


def serve():
    """Answer cases until there are none."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _warm_up()
    for line in sys.stdin:
        case = json.loads(line)
        answers.write(json.dumps(_run(Case(**case))) + "\n")
        answers.flush()


def _warm_up():
    import torch

    import instantvir_cli.convert
    import instantvir_cli.degrade
    import instantvir_cli.restore
    import instantvir_cli.stream  # noqa: F401
    from instantvir_cli.app import app  # noqa: F401

    torch.set_num_threads(1)


def _run(case):
    count = mmap.mmap(-1, 8)  # shared with the child, and no file that a limit could meet
    pipes = [os.pipe(), os.pipe()]
    child = os.fork()
    if not child:
        _be(case, pipes[0][1], pipes[1][1], count)
    for _, write_end in pipes:
        os.close(write_end)
    if case.kill_after is not None:
        _kill_later(child, case)
    texts = [_all_of(read_end) for read_end, _ in pipes]
    _, status = os.waitpid(child, 0)
    return {
        "status": os.waitstatus_to_exitcode(status), "steps": int.from_bytes(count[:], "little"),
        "stdout": texts[0], "stderr": texts[1],
    }  # fmt: skip


def _all_of(read_end):
    """Both hold little, so one may wait for the other."""
    with os.fdopen(read_end, "rb") as pipe:
        return pipe.read().decode("utf-8", "replace")


def _kill_later(child, case):
    import time

    deadline = time.monotonic() + case.kill_after
    while time.monotonic() < deadline:
        with suppress(ChildProcessError):
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
        time.sleep(0.002)
    os.kill(child, case.signal)


def _be(case, out, err, count):
    """The case itself; never returns."""
    status = 70
    try:
        os.chdir(case.folder)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["instantvir", *case.args]
        sys.stdout = _output(case)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        _limit(case)
        _count_steps(case, count)
        from instantvir_cli.app import app

        try:
            app(case.args, prog_name="instantvir")
        except SystemExit as end:
            status = end.code or 0
        import atexit

        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        with suppress(BaseException):
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _output(case):
    if case.output_room is None:
        return os.fdopen(1, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(Full(case.output_room, 1, "w", closefd=False)))


def _limit(case):
    import resource

    if case.segment is not None:
        from instantvir_models.run import journal

        journal.LONGEST_SEGMENT = journal.SHORTEST_SEGMENT = case.segment

    if case.most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (case.most_bytes, case.most_bytes))
    if case.most_memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (case.most_memory, case.most_memory))
    if case.most_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (case.most_files, case.most_files))
    if case.full is not None:
        fill(*case.full)


def _count_steps(case, count):
    done = 0

    def step(event, args):
        nonlocal done
        if event not in STEPS or not args or not isinstance(args[0], str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(args[0]))
        if not path.startswith(case.folder) or (event == "open" and _only_reads(args)):
            return
        done += 1
        count[:] = done.to_bytes(8, "little")
        if done == case.kill_at:
            os.kill(os.getpid(), case.signal)

    sys.addaudithook(step)


def _only_reads(args):
    mode, flags = args[1], args[2]
    if isinstance(mode, str):
        return not set(mode) & set("wax+")
    return not flags & (os.O_WRONLY | os.O_RDWR)


def fill(part, room):
    """What Python writes to names with `part` in them finds no space after `room` bytes."""
    opened = io.open

    def opening(file, mode="r", buffering=-1, encoding=None, *rest, **named):
        is_it = isinstance(file, str | os.PathLike) and part in os.path.basename(os.fspath(file))
        if not is_it or not set(mode) & set("wax"):
            return opened(file, mode, buffering, encoding, *rest, **named)
        raw = io.BufferedWriter(Full(room, file, mode.replace("b", "").replace("t", "")))
        return raw if "b" in mode else io.TextIOWrapper(raw, encoding=encoding)

    io.open = builtins.open = opening


class Full(io.FileIO):
    """A file on a disk that has so many bytes left."""

    def __init__(self, room, *file, **how):
        super().__init__(*file, **how)
        self._left = room

    def write(self, data):
        if len(data) > self._left:
            super().write(bytes(data)[: self._left])
            self._left = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._left -= len(data)
        return super().write(data)
