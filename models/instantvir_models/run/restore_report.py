"""What there is to say of a restoration: how far it is, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass

from instantvir_models.diagnosis.findings import Finding
from instantvir_models.run.resolution import EstimatedParameter
from instantvir_models.run.session import GuardedFrame


@dataclass(frozen=True)
class Progress:
    """How far a restoration is."""

    frames: int
    """Restored so far."""
    total_frames: int | None
    """Of the input, an estimate; None where it does not say."""
    seconds: float
    """Since the first frame was asked for."""
    fps: float | None = None
    """Of the last minute, warm-up left out; None before enough was measured."""
    seconds_left: float | None = None
    """At that pace; None where that, or the length of the input, is not known."""
    is_kept: bool = False
    """Whether the run may be ended, and the same call goes on where it was."""


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class RestoreReport:
    """What came of one video; what `instantvir restore --json` prints.

    Nothing was restored in a dry run: numbers of the run are None then.
    """

    version: str
    input: str
    output: str | None
    input_size: tuple[int, int]
    """(width, height) in pixels, likewise below."""
    output_size: tuple[int, int]
    frames: int | None
    """Frames that came out."""
    fps: float | None
    """Of the whole run."""
    wall_seconds: float | None
    stage_seconds: dict[str, float] | None
    """Busy seconds by stage; stages overlap."""
    operator: str
    """The degradation, as `parse_degradation` reads it."""
    is_operator_known: bool
    """False where it was estimated or assumed."""
    is_lossy_input: bool
    noise_levels: float
    """Standard deviation of the noise in 8-bit levels."""
    estimates: tuple[EstimatedParameter, ...]
    """What was read off the video."""
    residual: float | None
    """||A x - y|| / ||y|| of the restored frames."""
    frames_guarded: int | None
    """Frames that are the initial estimate in some places, because the student's contradicted the
    measurement there or had no reason in it."""
    frames_replaced: int | None
    """Of those, frames that are the initial estimate altogether."""
    guarded: tuple[GuardedFrame, ...] | None
    """The latest of `frames_guarded`, each with the part of its area that was replaced."""
    input_psnr: float | None
    """Against the reference in dB, mean over frames, of which one that is equal counts as 100 dB; None
    without one."""
    output_psnr: float | None
    model: str
    model_sha256: str | None
    """Of its weights; None where it has none."""
    damage: str | None
    """One sentence where the input was damaged: what could be decoded was restored."""
    not_carried_over: tuple[str, ...] | None
    """What of the input the output does not have, in words."""
    is_silent: bool | None
    """True where the input had sound, the output could hold some, and has none."""
    findings: tuple[Finding, ...] = ()
    """What was found where nothing was told."""
    command: str | None = None
    """The command that does the same explicitly; None where all was told, or nothing is changed."""
    is_unchanged: bool = False
    """Whether nothing was sure enough to be changed."""
    keep_detail: float = 0.0
    """Part of the fine contrast that stayed everywhere."""
    sharpness: float = 0.0
    """Part of the fine contrast that was missing and was given back."""
    input_psnr_over_frames: float | None = None
    """Against the reference in dB, of the mean square over all frames, as FFmpeg's filter `psnr` has its
    average; None without one."""
    output_psnr_over_frames: float | None = None

    @property
    def gain(self) -> float | None:
        """How many dB closer to the reference the output is than the input was."""
        if self.input_psnr is None or self.output_psnr is None:
            return None
        return self.output_psnr - self.input_psnr
