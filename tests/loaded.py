"""What children of the fork server share, so that each costs no start: everything loaded, no threads."""

import math

import cv2
import torch

from instantvir_cli.app import app as app
from instantvir_models.run import going_on, journal
from instantvir_models.run.opening import open_chosen
from instantvir_models.run.restore import restore as restore

torch.set_num_threads(1)
cv2.setNumThreads(1)
open_chosen()


def segments_of(frames: int, *, keep_seconds: float = math.inf) -> None:
    """Let pieces of outputs have so many frames, in this process, each kept so often until it ends."""
    journal.LONGEST_SEGMENT = journal.SHORTEST_SEGMENT = frames
    going_on.KEEP_SECONDS = keep_seconds
