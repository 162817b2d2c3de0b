"""Whatever goes in comes out: what files say before and after agrees, or a loss is named."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from benchmarks.media_table import differences, facts_of
from instantvir_models.media import open_video
from tests.models.test_media_companions import restored, with_sound

EVERY_DAY, ALL = 15, 320
"""Combinations that are tried: all of them take a minute."""

SOURCES = {  # video encoders, sound encoders, whether pictures may come at any time
    ".mkv": (("libx264", "libx265", "mpeg4", "ffv1", "libvpx-vp9", "mjpeg"),
             ("aac", "flac", "libopus", "pcm_s16le", "ac3", "mp2", "libmp3lame"), True),
    ".mp4": (("libx264", "libx265", "mpeg4"), ("aac", "ac3", "libmp3lame", "alac", "libopus"), True),
    ".mov": (("libx264", "prores_ks", "mjpeg", "qtrle"), ("aac", "pcm_s24le", "pcm_s16be", "alac"),
             True),
    ".avi": (("mpeg4", "mjpeg", "ffv1"), ("libmp3lame", "pcm_s16le", "pcm_mulaw", "ac3"), False),
    ".ts": (("libx264", "mpeg2video"), ("aac", "mp2", "ac3"), False),
    ".flv": (("libx264", "flv"), ("aac",), True),
    ".webm": (("libvpx-vp9",), ("libopus",), True),
    ".nut": (("libx264", "ffv1"), ("pcm_s16le", "libmp3lame"), True),
    ".wmv": (("wmv2",), ("wmav2", "libmp3lame"), False),
    ".mxf": (("mpeg2video",), ("pcm_s16le",), False),
}  # fmt: skip
PIX_FMTS = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p", "qtrle": "rgb24"}
TARGETS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".ts", ".flv", ".nut")
CLOCKS_SECONDS = (0, 10, 40_000, 95_443)
"""Where the clock of a transport stream begins; the last one wraps within the clip."""
GAPS_MILLISECONDS = (40, 80, 120, 600, 3000)


@dataclass(frozen=True)
class Kind:
    """A file that chance has chosen."""

    suffix: str
    video: str
    sound: str
    shown_milliseconds: tuple[int, ...]
    b_frames: int | None
    late_milliseconds: int
    """How much later than the first picture the sound begins, or earlier."""
    clock_seconds: int
    is_twice: bool
    """Two recordings in one file."""
    target: str


def kind_of(seed):
    random = np.random.default_rng(seed)
    suffix = str(random.choice(list(SOURCES)))
    videos, sounds, has_any_times = SOURCES[suffix]
    video = str(random.choice(videos))
    steps = np.full(9, 40)
    if has_any_times and random.random() < 0.5:
        steps = random.choice(GAPS_MILLISECONDS, 9, p=(0.4, 0.2, 0.2, 0.15, 0.05))
    has_b_frames = video in ("libx264", "mpeg2video") or (video == "mpeg4" and suffix != ".mkv")
    late = int(random.integers(-300, 400)) if suffix not in (".avi", ".mxf") else 0
    is_stream = suffix == ".ts"
    # NUT says no rate that all its times fit, so AVI keeps its pictures at the average one.
    targets = [t for t in TARGETS if not (t == ".avi" and suffix in (".nut", ".flv"))]
    return Kind(
        suffix,
        video,
        str(random.choice(sounds)),
        tuple(np.cumsum([0, *steps]).tolist()),
        int(random.integers(0, 3)) if has_b_frames else None,
        late,
        int(random.choice(CLOCKS_SECONDS)) if is_stream else 0,
        is_stream and random.random() < 0.3,
        str(random.choice(targets)),
    )


def file_of(kind, folder):
    shift = max(0, -kind.late_milliseconds)
    clip = {
        "width": 64,
        "height": 48,
        "pix_fmt": PIX_FMTS.get(kind.video, "yuv420p"),
        "pts": [shift + t for t in kind.shown_milliseconds],
        "time_base": Fraction(1, 1000),
        "metadata": {"title": "A title"},
    }
    if not SOURCES[kind.suffix][2]:
        del clip["time_base"]
        clip["pts"] = [t // 40 for t in clip["pts"]]
    if kind.video == "libx265":
        clip["options"] = {"x265-params": "log-level=error"}
    elif kind.b_frames is not None:
        clip["options"] = {"bf": str(kind.b_frames)}
    path = with_sound(
        folder / f"in{kind.suffix}", kind.sound, video=kind.video,
        late_seconds=Fraction(max(0, kind.late_milliseconds), 1000),
        clock_seconds=kind.clock_seconds, **clip,
    )  # fmt: skip
    if kind.is_twice:
        path.write_bytes(2 * path.read_bytes())
    return path


def check(kind, folder):
    source, target = file_of(kind, folder), folder / f"out{kind.target}"
    with open_video(source) as reader:
        shown = [round(frame.pts_seconds * 1000) for frame in reader]
        assert reader.damage.message is None
    if not kind.is_twice:
        assert [t - shown[0] for t in shown] == list(kind.shown_milliseconds)
    else:
        assert len(shown) == 2 * len(kind.shown_milliseconds)
    writer = restored(source, target)
    wrong = differences(facts_of(source), facts_of(target), kind.target, writer.losses)
    assert not wrong, "; ".join(wrong)
    assert not writer.is_silent


@pytest.mark.parametrize("seed", range(EVERY_DAY))
def test_what_files_say_before_and_after_agrees(tmp_path, seed):
    check(kind_of(seed), tmp_path)


@pytest.mark.slow
def test_what_files_say_before_and_after_agrees_always(tmp_path):
    wrong = []
    for seed in range(EVERY_DAY, ALL):
        folder = tmp_path / str(seed)
        folder.mkdir()
        kind = kind_of(seed)
        try:
            check(kind, folder)
        except Exception as error:
            words = str(error).partition("\n")[0] or repr(error)
            wrong.append(f"{seed}: {kind}\n    {type(error).__name__}: {words}")
    assert not wrong, "\n".join([f"{len(wrong)} of {ALL - EVERY_DAY}:", *wrong])
