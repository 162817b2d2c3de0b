"""Starts the workers of a training run and waits for them."""

import os
import threading
from multiprocessing import parent_process
from pathlib import Path

import torch.multiprocessing as mp

from instantvir_distill.clips import Clip, load_clips, split
from instantvir_distill.config import DistillConfig
from instantvir_distill.scenes import load_photos
from instantvir_distill.trainer import run_worker
from instantvir_models.errors import UsageError


def distill(
    config: DistillConfig, *, clips: Path, folder: Path, photos: Path | None = None
) -> Path:
    """Train from `clips` and `photos`; the path of the averaged weights in `folder`.

    Continues where the last run in `folder` stopped.

    Raises:
        VideoOpenError: if the folder `clips` holds no video.
        UsageError: if a clip is too short or too small, or all of them are held out.
        RuntimeError: if a worker dies.
    """
    # decode once, before the workers share the cache
    _check(config, split(load_clips(clips, cache=folder / "clips"), config.validation_sources)[0])
    mp.spawn(  # type: ignore[attr-defined, no-untyped-call]
        _worker, args=(config, clips, folder, photos), nprocs=config.workers, daemon=True
    )
    return folder / "student.safetensors"


def _check(config: DistillConfig, training: list[Clip]) -> None:
    """UsageError unless every clip has as many frames and pixels as the recipe cuts out of it."""
    if not training:
        held_out = ", ".join(config.validation_sources)
        raise UsageError(f"no clip to train on: names that begin with {held_out} are held out")
    side = max(phase.crop for phase in config.phases)
    frames = max(phase.frames for phase in config.phases)
    for clip in training:
        length, height, width = clip.frames.shape[:3]
        if length < frames or min(height, width) < side:
            raise UsageError(
                f"the clip `{clip.name}` has {length} frames of {width}x{height}; the recipe cuts out "
                f"{frames} frames of {side}x{side}",
                hint="take it out of the folder",
            )


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
