"""Whatever goes in comes out: what files say before and after agrees, or a loss is named."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest

from instantvir_models.media import open_video
from tests.models.test_media_companions import restored, with_sound

NUM_COMBINATIONS = int(os.environ.get("INSTANTVIR_TEST_COMBINATIONS", "24"))
"""All of them take a second for ten; more are tried by hand."""

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
}  # fmt: skip
PIX_FMTS = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p", "qtrle": "rgb24"}
TARGETS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".ts")
MILLISECOND = 1e-3


def a_file(random, folder):
    """A clip of ten frames with sound, of a kind that chance has chosen."""
    suffix = str(random.choice(list(SOURCES)))
    videos, sounds, has_any_times = SOURCES[suffix]
    video, sound = str(random.choice(videos)), str(random.choice(sounds))
    clip = {"width": 64, "height": 48, "pix_fmt": PIX_FMTS.get(video, "yuv420p")}
    if has_any_times and random.random() < 0.5:
        clip["pts"] = np.cumsum(random.integers(1, 15, 10) * 40).tolist()
        clip["time_base"] = Fraction(1, 1000)
    if video in ("libx264", "mpeg2video") or (video == "mpeg4" and suffix != ".mkv"):
        clip["options"] = {"bf": str(random.integers(0, 3))}
    late_seconds = Fraction(int(random.integers(0, 400)), 1000) if suffix != ".avi" else Fraction(0)
    path = with_sound(folder / f"in{suffix}", sound, video=video, late_seconds=late_seconds, **clip)
    return path, f"{suffix} {video} {sound} {clip} {late_seconds}"


def described(path):
    """Times of pictures and the stretch of sound, in seconds from whichever begins first."""
    with open_video(path) as reader:
        shown = [frame.pts_seconds for frame in reader]
        assert reader.damage.message is None
        packets = [p for p in reader.demuxer.waiting.drain() if p.stream.type == "audio"]
        spans = [(p.pts * p.time_base, p.duration * p.time_base) for p in packets]
    with av.open(str(path), format={".ts": "mpegts"}.get(path.suffix)) as container:
        heard = list(container.decode(audio=0)) if container.streams.audio else []
    samples = sum(frame.samples / frame.sample_rate for frame in heard)
    return shown, [(float(begin), float(length)) for begin, length in spans], samples


@pytest.mark.parametrize("seed", range(NUM_COMBINATIONS))
def test_what_files_say_before_and_after_agrees(tmp_path, seed):
    random = np.random.default_rng(seed)
    source, words = a_file(random, tmp_path)
    # NUT says no rate that all its times fit, so AVI keeps its pictures at the average one.
    targets = [t for t in TARGETS if t != ".avi"] if source.suffix == ".nut" else TARGETS
    target = tmp_path / f"out{random.choice(targets)}"
    print(words, "->", target.suffix)  # noqa: T201
    writer = restored(source, target)
    assert writer.losses == ()
    assert not writer.is_silent
    before, after = described(source), described(target)
    within = 0.021 if ".avi" in (source.suffix, target.suffix) else 1.1 * MILLISECOND
    zero_before, zero_after = before[0][0], after[0][0]
    assert [t - zero_after for t in after[0]] == pytest.approx(
        [t - zero_before for t in before[0]], abs=within
    )
    assert min(after[0][0], after[1][0][0]) < 0.05
    if target.suffix != ".avi":  # which knows no times of sound
        first = [sounds[0][0] - shown[0] for shown, sounds, _ in (before, after)]
        is_copied = len(before[1]) == len(after[1])
        assert first[1] == pytest.approx(first[0], abs=within if is_copied else 0.07)
    assert after[2] == pytest.approx(before[2], abs=0.08)
