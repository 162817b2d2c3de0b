"""The face of instantvir: restore degraded video from Python.

    import instantvir

    report = instantvir.restore("old.mp4", "new.mp4", task="deblur")

Names are loaded when they are first used: `import instantvir` alone costs next to nothing. What is in
`__all__` is promised; everything else may change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from instantvir_models import __version__ as __version__

if TYPE_CHECKING:
    from instantvir_models.checkpoints.load import load_student as load_student
    from instantvir_models.diagnosis.diagnose import Diagnosis as Diagnosis
    from instantvir_models.diagnosis.diagnose import diagnose as diagnose
    from instantvir_models.diagnosis.findings import Finding as Finding
    from instantvir_models.errors import CheckpointError as CheckpointError
    from instantvir_models.errors import DeviceMemoryError as DeviceMemoryError
    from instantvir_models.errors import InstantVIRError as InstantVIRError
    from instantvir_models.errors import UsageError as UsageError
    from instantvir_models.errors import VideoOpenError as VideoOpenError
    from instantvir_models.errors import VideoWriteError as VideoWriteError
    from instantvir_models.live.status import LiveStatus as LiveStatus
    from instantvir_models.live.streaming import stream as stream
    from instantvir_models.media import EncoderSettings as EncoderSettings
    from instantvir_models.media import Frame as Frame
    from instantvir_models.media import create_video as create_video
    from instantvir_models.media import open_video as open_video
    from instantvir_models.operators import estimate as estimate
    from instantvir_models.operators.base import Operator as Operator
    from instantvir_models.operators.base import OperatorTraits as OperatorTraits
    from instantvir_models.operators.blur import Defocus as Defocus
    from instantvir_models.operators.blur import GaussianBlur as GaussianBlur
    from instantvir_models.operators.blur import MotionBlur as MotionBlur
    from instantvir_models.operators.blur import PointSpread as PointSpread
    from instantvir_models.operators.blur import TemporalBlur as TemporalBlur
    from instantvir_models.operators.compose import Composition as Composition
    from instantvir_models.operators.compose import Identity as Identity
    from instantvir_models.operators.downsample import Downsample as Downsample
    from instantvir_models.operators.mask import Mask as Mask
    from instantvir_models.operators.measurement import Degradation as Degradation
    from instantvir_models.operators.measurement import Measurement as Measurement
    from instantvir_models.operators.spec import parse_degradation as parse_degradation
    from instantvir_models.run.degrade import DegradeReport as DegradeReport
    from instantvir_models.run.degrade import degrade as degrade
    from instantvir_models.run.restore import restore as restore
    from instantvir_models.run.restore_report import Progress as Progress
    from instantvir_models.run.restore_report import RestoreReport as RestoreReport
    from instantvir_models.run.session import Session as Session
    from instantvir_models.solvers.amortised import Amortised as Amortised
    from instantvir_models.solvers.base import Restored as Restored
    from instantvir_models.solvers.base import Solver as Solver
    from instantvir_models.solvers.base import Window as Window

_NAMES_IN = {
    "checkpoints.load": ("load_student",),
    "diagnosis.diagnose": ("Diagnosis", "diagnose"),
    "diagnosis.findings": ("Finding",),
    "errors": (
        "CheckpointError",
        "DeviceMemoryError",
        "InstantVIRError",
        "UsageError",
        "VideoOpenError",
        "VideoWriteError",
    ),
    "live.status": ("LiveStatus",),
    "live.streaming": ("stream",),
    "media": ("EncoderSettings", "Frame", "create_video", "open_video"),
    "operators.base": ("Operator", "OperatorTraits"),
    "operators.blur": ("Defocus", "GaussianBlur", "MotionBlur", "PointSpread", "TemporalBlur"),
    "operators.compose": ("Composition", "Identity"),
    "operators.downsample": ("Downsample",),
    "operators.mask": ("Mask",),
    "operators.estimate": (),
    "operators.measurement": ("Degradation", "Measurement"),
    "operators.spec": ("parse_degradation",),
    "run.degrade": ("DegradeReport", "degrade"),
    "run.restore": ("restore",),
    "run.restore_report": ("Progress", "RestoreReport"),
    "run.session": ("Session",),
    "solvers.amortised": ("Amortised",),
    "solvers.base": ("Restored", "Solver", "Window"),
}
"""What is public, by the module of `instantvir_models` that it lives in; () for the module itself."""

_ROOM_OF = {
    name: room for room, names in _NAMES_IN.items() for name in names or (room.rpartition(".")[2],)
}

__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module `instantvir` has no attribute `{name}`")
    room = import_module(f"instantvir_models.{_ROOM_OF[name]}")
    value = getattr(room, name) if _NAMES_IN[_ROOM_OF[name]] else room
    globals()[name] = value  # the next use is an ordinary one
    return value


def __dir__() -> list[str]:
    return __all__
