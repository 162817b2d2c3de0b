"""From a video to what is wrong with it and what to do about that."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instantvir_models.diagnosis.blur import LARGEST_STEP, BlurJudgement, judged_blur
from instantvir_models.diagnosis.dust import dust_in
from instantvir_models.diagnosis.error_model import (
    Expected,
    expected_codec_error,
    expected_error,
    is_white,
)
from instantvir_models.diagnosis.findings import Confidence, Finding, shown_name
from instantvir_models.diagnosis.picture import drawn, save_picture
from instantvir_models.diagnosis.remedy import (
    SHARPENED,
    Remedy,
    codec_factor,
    detail_to_keep,
    is_coarse,
    remedy_for,
    shows_noise,
    told_factor,
)
from instantvir_models.diagnosis.sample import FRAMES_PER_PLACE, Sample, later_samples
from instantvir_models.diagnosis.scratches import OFTEN, scratched_part
from instantvir_models.diagnosis.traces import Traces, traces_of
from instantvir_models.media import USUAL_RULES, InputRules, open_video
from instantvir_models.media.fields import WEAVE, FieldChoice, Fields
from instantvir_models.operators.compose import Identity

LEVELS = "levels of 255"

HIGH_SPREAD = 1.5
"""Factor from a value to the end of its bar up to which confidence is high."""

MEDIUM_SPREAD = 2.2

FLAT_TEXTURE = 0.2
"""Levels; a picture with less texture and noise than this shows nothing."""

MOST_CLIPPED = 0.8
"""Part of a picture that may be black or white."""

MOST_OF_IT = 0.9
"""Of the error, from which on the codec's part is said to be nearly all of it."""

UNLIKE = 1.6
"""Factor between the errors of two places from which on a file counts as cut from several."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """What is wrong with a video, how sure that is, and what would be done about it."""

    source: str
    findings: tuple[Finding, ...]
    """Those that mean something; a video in which nothing can be seen has none."""
    notes: tuple[str, ...]
    """Sentences about what could not be told."""
    is_lossy: bool
    traces: tuple[Traces, ...]
    """What it was read off, one for each place."""
    sample: Sample
    """The frames of its beginning."""
    remedy: Remedy
    fields: Fields | None = None
    """How its rows came about; None where nobody looked."""

    def picture(self) -> NDArray[np.uint8]:
        """[H, W, 3] RGB: a frame, what changes in it, how noisy it is where, its codec's blocks."""
        return drawn(self.sample)

    def save_picture(self, path: str | Path, *, overwrite: bool = True) -> None:
        """The picture as a PNG; UsageError if it exists and may not be replaced, VideoWriteError if it
        cannot be written."""
        save_picture(self.picture(), Path(path), may_replace=overwrite)

    def finding(self, kind: str) -> Finding | None:
        """The finding of a kind, if there is one."""
        return next((found for found in self.findings if found.kind == kind), None)

    @property
    def command(self) -> str | None:
        """The command that does explicitly what would be done; None where nothing would be."""
        return self.remedy.command(self.source)

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of it in words: what was found, what will be done, and the command that says so."""
        command = self.command
        return (*self.found, f"the same as a command: {command}") if command else self.found

    @property
    def found(self) -> tuple[str, ...]:
        """What was found and what will be done, in words."""
        said = "; ".join(finding.sentence for finding in self.findings) or "nothing"
        return (f"found: {said}", *self.notes, self.remedy.sentence)


def diagnose(
    source: str | Path,
    *,
    start_seconds: float | None = None,
    duration_seconds: float | None = None,
    rules: InputRules = USUAL_RULES,
) -> Diagnosis:
    """What is wrong with a video, from its beginning and, in a file, two later places.

    Args:
        source: a path, an image pattern, or `-` for standard input.
        start_seconds, duration_seconds: the part of it that is wanted.
        rules: how far it may reach, as `open_video` takes them.

    Raises:
        VideoOpenError: if it is no video.
    """
    with open_video(
        str(source),
        start_seconds=start_seconds,
        duration_seconds=duration_seconds,
        other_streams=False,
        threads=1,
        fields=FieldChoice(),
        rules=rules,
    ) as reader:
        first = Sample.of(list(itertools.islice(reader, FRAMES_PER_PLACE)))
        fields = reader.fields
        later = later_samples(
            str(source),
            reader.info,
            start_seconds=start_seconds,
            fields=fields.choice if fields else WEAVE,
            rules=rules,
        )
        is_lossy = not reader.info.is_lossless
    return diagnose_samples(str(source), (first, *later), is_lossy=is_lossy, fields=fields)


def diagnose_samples(
    source: str, samples: Sequence[Sample], *, is_lossy: bool, fields: Fields | None = None
) -> Diagnosis:
    """What is wrong with a video of which these samples were taken.

    Args:
        fields: how its rows came about; the samples are of whole pictures.
    """
    traces = tuple(traces_of(sample.frames, sample.codings) for sample in samples)
    seen = [(t, s) for t, s in zip(traces, samples, strict=True) if shows_something(t)]
    findings = field_findings(fields)
    notes: list[str] = []
    blur = BlurJudgement(operator=Identity())
    is_noisy, keep_detail, factor, is_mixed = False, 0.0, 1.0, False
    if seen:
        error, note = error_finding([trace for trace, _ in seen])
        is_noisy = all(
            shows_noise(trace, expected_error(trace).value, expected_codec_error(trace).value)
            for trace, _ in seen
        )
        keep_detail = max(detail_to_keep(trace, is_noisy=is_noisy) for trace, _ in seen)
        factor = min(
            told_factor(trace, is_noisy=is_noisy) * codec_factor(trace, is_noisy=is_noisy)
            for trace, _ in seen
        )
        is_mixed = note is not None
        notes += [note] if note else []
        findings += [error, *codec_findings(seen[0][0], error), *noise_findings(seen[0][0], error)]
        blur = judged_blur(seen[0][1].frames, seen[0][0], error)
        findings += [*blur.findings, *sharpening_findings(seen[0][0])]
        if fields is None or fields.first is None:
            findings += dust_findings(seen)
        notes += blur.notes
    else:
        notes.append("too little can be seen in it: it is tiny, or black, white or one colour")
    return Diagnosis(
        source=source,
        findings=tuple(findings),
        notes=tuple(notes),
        is_lossy=is_lossy,
        traces=traces,
        sample=samples[0],
        remedy=remedy_for(
            findings,
            blur,
            is_lossy=is_lossy,
            codec_name=traces[0].codec_name,
            is_noisy=is_noisy,
            is_coarse=all(is_coarse(trace) for trace, _ in seen),
            keep_detail=keep_detail,
            times_told=factor,
            is_mixed=is_mixed,
        ),
        fields=fields,
    )


def shows_something(traces: Traces) -> bool:
    """Whether there is enough of a picture to judge."""
    is_flat = traces.texture < FLAT_TEXTURE
    return not (traces.is_small or is_flat or traces.clipped > MOST_CLIPPED)


def field_findings(fields: Fields | None) -> list[Finding]:
    """That its pictures are made of fields, if they are: which part of what moves shows it."""
    if fields is None or fields.first is None:
        return []
    share = 1.0 if fields.scan == "telecined" else max(fields.votes) / max(1, sum(fields.votes))
    finding = Finding(
        kind="fields",
        value=share,
        unit="of the pictures that tell",
        low=share,
        high=1.0,
        confidence="high",
        sentence=fields.sentence,
    )
    return [finding]


def error_finding(places: Sequence[Traces]) -> tuple[Finding, str | None]:
    """Rms error of the file, and what is to be said where its places differ.

    Of several places the one with the smallest error counts: what would harm one is not done.
    """
    expected = sorted((expected_error(place) for place in places), key=lambda e: e.value)
    least, most = expected[0], expected[-1]
    differ = most.value > UNLIKE * max(least.value, 1.0)
    counts = least if differ else expected[len(expected) // 2]
    confidence = confidence_of(counts)
    note = (
        f"it is not the same everywhere ({least.value:.1f} to {most.value:.1f} levels): "
        "the cleanest part decides"
        if differ
        else None
    )
    cause = "noise" if places[0].is_lossless else "compression and noise"
    finding = Finding(
        kind="error",
        value=counts.value,
        unit=LEVELS,
        low=counts.low,
        high=counts.high,
        confidence=confidence,
        sentence=f"{cause}: pixels are off by {counts.value:.1f} levels of 255 "
        f"({counts.low:.1f} to {counts.high:.1f}, confidence {confidence})",
    )
    return finding, note


def codec_findings(traces: Traces, error: Finding) -> list[Finding]:
    """What the codec alone leaves, if it loses anything."""
    if traces.is_lossless:
        return []
    share = expected_codec_error(traces)
    is_all = share.value > MOST_OF_IT * error.value
    part = "nearly all of it" if is_all else f"about {share.value:.1f} of it"
    step = "" if traces.step is None else f" (quantiser step {traces.step:.0f})"
    finding = Finding(
        kind="codec",
        value=share.value,
        unit=LEVELS,
        low=share.low,
        high=share.high,
        confidence=confidence_of(share),
        sentence=f"{shown_name(traces.codec_name)} alone makes {part}{step}",
    )
    return [finding]


def noise_findings(traces: Traces, error: Finding) -> list[Finding]:
    """What noise has survived, and of which kind, where that can be told."""
    if not traces.is_lossless:
        return []
    kind = "the same at all sizes (white)" if is_white(traces) else "coarse: grain, sensor or tape"
    finding = Finding(
        kind="noise",
        value=error.value,
        unit=LEVELS,
        low=error.low,
        high=error.high,
        confidence=error.confidence,
        sentence=f"the noise is {kind}",
    )
    return [finding] if error.value > 1 else []


def sharpening_findings(traces: Traces) -> list[Finding]:
    """That edges were exaggerated, if they look so."""
    if traces.sharpness < SHARPENED:
        return []
    finding = Finding(
        kind="sharpening",
        value=traces.sharpness,
        unit="",
        low=0.8 * traces.sharpness,
        high=1.2 * traces.sharpness,
        confidence="medium",
        sentence="edges look sharpened",
    )
    return [finding]


def dust_findings(places: Sequence[tuple[Traces, Sample]]) -> list[Finding]:
    """That dust lies on it, or that it is scratched, if all places show some; the cleanest counts."""
    if not all(shows_spots(trace) for trace, _ in places):
        return []
    least, scratched = math.inf, 1.0
    for _, sample in places:
        found = dust_in(sample.frames)
        part = scratched_part(sample.frames)
        if not (found.is_dust or part >= OFTEN):
            return []
        least, scratched = min(least, found.spots_per_frame), min(scratched, part)
    spots = [f"dust or scratches, about {least:.0f} spots a frame"] if least >= 0.5 else []
    lines = [f"scratches from top to bottom in {scratched:.0%} of the frames"] if scratched else []
    finding = Finding(
        kind="dust",
        value=least,
        unit="spots a frame",
        low=0.5 * least,
        high=3 * least,
        confidence="medium",
        sentence="; ".join([*spots, *lines]) or "dust in some places, scratches in others",
    )
    return [finding]


def shows_spots(traces: Traces) -> bool:
    """Whether a codec is so fine that it makes no spots of noise, as far as it says."""
    return traces.is_lossless or (traces.step is not None and traces.step <= LARGEST_STEP)


def confidence_of(expected: Expected) -> Confidence:
    """High where the bar is narrow, such traces were seen before and the codec says its steps."""
    if not expected.is_familiar:
        return "low"
    if expected.spread <= HIGH_SPREAD and not expected.is_indirect:
        return "high"
    return "medium" if expected.spread <= MEDIUM_SPREAD else "low"


def told_with_codec(noise_levels: float, traces: Traces) -> float:
    """Rms error of noise that a user knows of and of the codec that came after it, in levels."""
    if traces.is_lossless or not shows_something(traces):
        return noise_levels
    share = expected_codec_error(traces)
    return math.hypot(noise_levels, share.value)
