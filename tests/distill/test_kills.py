"""A run of training that is killed at any step on the disk goes on, and becomes what it would have."""

import mmap
import os
import shutil
import signal
from contextlib import suppress

import pytest

from instantvir_cli.signals import ended_by_signals
from instantvir_distill.saved import last_checkpoint
from instantvir_distill.trainer import Trainer
from tests.distill.test_trainer import CONFIG, Fit, same, weights
from tests.warm import Case, _count_steps

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]


def two_updates(folder):
    trainer = Trainer(CONFIG, Fit(), folder)
    for _ in range(2):
        trainer.update()
        trainer.save()


def killed(folder, step, by=signal.SIGKILL, work=two_updates):
    """How many steps on the disk `work` took, which was sent a signal before one of them."""
    count = mmap.mmap(-1, 8)
    child = os.fork()
    if not child:
        with suppress(BaseException), ended_by_signals():  # as the command hears them
            case = Case(args=[], folder=str(folder), kill_at=step, signal=by)
            _count_steps(case, count)
            work(folder)
        os._exit(0)
    os.waitpid(child, 0)
    return int.from_bytes(count[:], "little")


def check(tmp_path, steps, by=signal.SIGKILL):
    Trainer(CONFIG, Fit(), tmp_path / "whole").run()
    for step in steps:
        folder = tmp_path / str(step)
        killed(folder, step, by)
        Trainer(CONFIG, Fit(), folder).run()
        same(weights(tmp_path / "whole"), weights(folder), rtol=0, atol=0)
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000012"]
        assert not [*folder.rglob("*.instantvir"), *folder.rglob("*.part")], step


def test_some_kills(tmp_path):
    last = killed(tmp_path / "counted", None)
    check(tmp_path, [last // 3, last // 2, last - 1])


def test_a_finished_run_that_is_run_again_and_killed_keeps_its_checkpoint(tmp_path):
    """It was taken away, file by file, before the same one got its name."""
    whole = tmp_path / "whole"
    Trainer(CONFIG, Fit(), whole).run()

    def again(folder):
        Trainer(CONFIG, Fit(), folder).run()

    last = killed(shutil.copytree(whole, tmp_path / "counted"), None, work=again)
    for step in range(max(1, last - 3), last + 1):
        folder = shutil.copytree(whole, tmp_path / str(step))
        killed(folder, step, work=again)
        assert [path.name for path in last_checkpoint(folder).iterdir()], step
        again(folder)
        same(weights(whole), weights(folder), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("by", SIGNALS)
def test_fifty_kills(tmp_path, by):
    last = killed(tmp_path / "counted", None)
    check(tmp_path, sorted({1 + i * (last - 1) // 49 for i in range(50)}), by)
