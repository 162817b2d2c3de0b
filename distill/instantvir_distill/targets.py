"""What a teacher made of measurements, kept on disk: it is asked once, however often they come again."""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from instantvir_models.checkpoints.tensors import read_tensors, sha256_of, write_tensors
from instantvir_models.errors import CheckpointError, UsageError, VideoWriteError
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.prior import initial_estimate
from instantvir_models.outputs.claim import new_file, told

logger = logging.getLogger(__name__)

TARGET = "x_hat"


class KeptTargets:
    """A file for each measurement, called after all that decides what is in it, so that several workers
    and several runs may share a folder.

    Args:
        folder: made when the first target is kept.
        teacher: what tells this teacher from any other, see `fingerprint`.
    """

    def __init__(self, folder: Path, teacher: str) -> None:
        self.folder, self.teacher = folder, teacher
        self._has_said = False

    @torch.no_grad()
    def __call__(self, how: str, measurement: Measurement, make: Callable[[], Tensor]) -> Tensor:
        """What was made of a measurement in a way that `how` names, or what `make` makes of it now.

        A damaged file is made again.
        """
        name = self._name(how, measurement)
        path = self.folder / name[:2] / f"{name}.safetensors"
        found = _read(path)
        if found is None:
            found = make()
            self._keep(path, found)
        return found.to(measurement.y)

    def _keep(self, path: Path, target: Tensor) -> None:
        """What cannot be kept is asked again in the next epoch, which is said once."""
        try:
            _write(path, target)
        except VideoWriteError as error:
            if not self._has_said:
                logger.warning("what the teacher makes is not kept: %s", error)
            self._has_said = True

    def _name(self, how: str, measurement: Measurement) -> str:
        """The digest of who was asked what: an operator is known by what it makes of noise, and by
        where it lets solvers start."""
        degradation, y = measurement.degradation, measurement.y
        height, width = degradation.operator.clean_size(*y.shape[-2:])
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(*y.shape[:2], 3, height, width, generator=generator).to(y)
        digest = hashlib.sha256()
        words = f"{self.teacher} {how} {degradation.noise_std!r} {degradation.is_lossy}"
        digest.update(f"{words} {degradation.operator.spec} {tuple(y.shape)}".encode())
        for tensor in (y, degradation.operator.A(probe), initial_estimate(measurement)):
            digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _read(path: Path) -> Tensor | None:
    """None where there is no file, or one that cannot have been written here."""
    try:
        tensors, words = read_tensors(path)
    except CheckpointError:
        return None
    found = tensors.get(TARGET)
    return found if found is not None and words.get("sha256") == _digest(found) else None


def _write(path: Path, target: Tensor) -> None:
    kept = target.float().cpu().contiguous()
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(UsageError), new_file(path, may_replace=True) as unfinished:
        # another worker that writes the same just now writes the same
        write_tensors(unfinished, {TARGET: kept}, {"sha256": _digest(kept)})


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def fingerprint(path: Path) -> str:
    """The digest of a file, or of all files in a folder, and not below it, with their names.

    Raises:
        CheckpointError: if one of them cannot be read.
    """
    try:
        if path.is_file():
            return sha256_of(path)
        files = sorted(each for each in path.iterdir() if each.is_file())
        each = "\n".join(f"{file.name} {sha256_of(file)}" for file in files)
    except OSError as error:
        raise CheckpointError(f"the teacher `{path}` cannot be read: {error}") from error
    return hashlib.sha256(each.encode()).hexdigest()
