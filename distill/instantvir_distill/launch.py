"""Starts the workers of a training run and waits for them."""

import os
import threading
from multiprocessing import parent_process
from pathlib import Path

import torch.multiprocessing as mp

from instantvir_distill.clips import load_clips, split
from instantvir_distill.config import DistillConfig
from instantvir_distill.scenes import load_photos
from instantvir_distill.trainer import run_worker


def distill(
    config: DistillConfig, *, clips: Path, folder: Path, photos: Path | None = None
) -> Path:
    """Train from `clips` and `photos`; the path of the averaged weights in `folder`.

    Continues where the last run in `folder` stopped.

    Raises:
        VideoOpenError: if the folder `clips` holds no video.
        RuntimeError: if a worker dies.
    """
    load_clips(clips, cache=folder / "clips")  # decode once, before the workers share the cache
    mp.spawn(  # type: ignore[attr-defined, no-untyped-call]
        _worker, args=(config, clips, folder, photos), nprocs=config.workers, daemon=True
    )
    return folder / "student.safetensors"


def _worker(
    rank: int, config: DistillConfig, clips: Path, folder: Path, photos: Path | None
) -> None:
    os.setsid()  # the scheduler shares time per session: a worker is worth as much as a shell
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    training, _ = split(load_clips(clips, cache=folder / "clips"), config.validation_sources)
    run_worker(
        config, training, folder, rank=rank, photos=[] if photos is None else load_photos(photos)
    )


def _die_with_the_parent() -> None:
    """Ends this process once the one that started it is gone, however it went.

    A worker has a session of its own, so the signal that killed the parent did not reach it.
    """
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
