"""A disk that fills in each file that a run of training writes: a sentence, and the run goes on where its
last whole checkpoint is."""

import os
import traceback

import pytest

from instantvir_distill.saved import last_step
from instantvir_distill.trainer import Trainer
from instantvir_models.errors import InstantVIRError
from tests.distill.test_kills import unfinished
from tests.distill.test_trainer import CONFIG, Fit, same, weights
from tests.warm import fill

WRITTEN = ["config.json", ".metadata", "__0_0.distcp"]
PLACES = ("first", "middle", "last")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    Trainer(CONFIG, Fit(), folder).run()
    return folder


def ends_on_a_disk_with(room, part, folder):
    """0 if a child that trained there said a sentence, after a first checkpoint that was whole."""
    child = os.fork()
    if not child:
        status = 70
        try:
            run = Trainer(CONFIG, Fit(), folder)
            run.update()
            run.save()
            fill(part, room)
            Trainer(CONFIG, Fit(), folder).run()
        except InstantVIRError:
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("part", WRITTEN)
def test_what_a_run_writes(tmp_path, whole, part, place):
    size = next(path for path in whole.rglob(part)).stat().st_size
    room = {"first": 0, "middle": size // 2, "last": size - 1}[place]
    folder = tmp_path / "run"
    assert ends_on_a_disk_with(room, part, folder) == 0
    assert last_step(folder) == 1
    assert not unfinished(folder)
    Trainer(CONFIG, Fit(), folder).run()
    same(weights(whole), weights(folder), rtol=0, atol=0)
