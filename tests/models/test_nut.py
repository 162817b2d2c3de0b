"""An endless NUT stream is read in pieces, and nothing is lost between them."""

import io
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from instantvir_models.media import CompanionPacket, open_video
from instantvir_models.media.nut import (
    FILE_ID,
    SYNCPOINT,
    NutPieces,
    without_back_pointer,
)
from instantvir_models.media.source import ContainerSource

NUM_FRAMES = 40


class Chopped:
    """Bytes that come in portions of random sizes, as from a pipe."""

    name = "a pipe"

    def __init__(self, data: bytes, seed: int) -> None:
        self._file, self._random = io.BytesIO(data), np.random.default_rng(seed)
        self.num_bytes = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(int(self._random.integers(1, size + 1)))
        self.num_bytes += len(data)
        return data


def nut(codec: str, *, size: int = 64, has_sound: bool = False, frames: int = NUM_FRAMES) -> bytes:
    """A NUT stream of noise; H.264 has B-frames and a keyframe every ten frames."""
    target, rng = io.BytesIO(), np.random.default_rng(0)
    pix_fmt = "rgb24" if codec == "rawvideo" else "yuv420p"
    options = {"g": "10", "bf": "2", "preset": "veryfast"} if codec == "libx264" else {}
    with av.open(target, "w", format="nut") as container:
        video = container.add_stream(
            codec, rate=25, width=size, height=size, pix_fmt=pix_fmt, options=options
        )
        sound = container.add_stream("pcm_s16le", rate=8000) if has_sound else None
        for number in range(frames):
            pixels = rng.integers(0, 255, (size, size, 3)).astype(np.uint8)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(video.encode(picture))
            if sound is not None:
                container.mux(sound.encode(_sound(number)))
        container.mux(video.encode(None))
    return target.getvalue()


def _sound(number: int) -> av.AudioFrame:
    samples = np.full((1, 320), number, np.int16)
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 8000, 320 * number, Fraction(1, 8000)
    return frame


def everything_in(
    source: object,
) -> tuple[list[tuple[int, NDArray[np.uint8]]], list[CompanionPacket]]:
    """Time stamps and pixels of all frames, and all sound."""
    with open_video(source, is_live=True) as reader:  # type: ignore[arg-type]
        frames = [(frame.pts, frame.pixels) for frame in reader]
        assert reader.damage.message is None
        assert reader.demuxer is not None
        return frames, reader.demuxer.take_waiting()  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("codec", "size", "has_sound"),
    [("rawvideo", 64, False), ("rawvideo", 64, True), ("libx264", 192, True)],
)
@pytest.mark.parametrize("syncpoints_per_piece", [1, 7])
def test_pieces_hold_every_frame_and_packet_of_the_whole_once(
    codec: str, size: int, has_sound: bool, syncpoints_per_piece: int
) -> None:
    data = nut(codec, size=size, has_sound=has_sound)
    assert data.count(SYNCPOINT) > 2 * syncpoints_per_piece
    frames, sound = everything_in(Chopped(data, seed=1))
    pieces = NutPieces(Chopped(data, seed=2), syncpoints_per_piece=syncpoints_per_piece)
    piece_frames, piece_sound = everything_in(pieces)
    assert [pts for pts, _ in piece_frames] == [pts for pts, _ in frames]
    assert len(frames) == NUM_FRAMES
    for (_, ours), (_, whole) in zip(piece_frames, frames, strict=True):
        np.testing.assert_array_equal(ours, whole)
    assert piece_sound == sound
    assert bool(sound) == has_sound


def test_a_new_piece_holds_no_frame_back() -> None:
    """Its streams are known: nothing more is read before its first frames are out."""
    data = nut("rawvideo")
    syncpoints = [match.start() for match in re.finditer(re.escape(SYNCPOINT), data)]
    delivered: list[int] = []
    delivered_when_dry: list[int] = []

    class Watched(Chopped):
        def read(self, size: int) -> bytes:
            if self.num_bytes >= syncpoints[4]:
                delivered_when_dry.append(len(delivered))
            return super().read(min(size, max(1, syncpoints[4] - self.num_bytes)))

    pieces = NutPieces(Watched(data, seed=5), syncpoints_per_piece=3)
    with open_video(pieces, is_live=True) as reader:
        for frame in reader:
            delivered.append(frame.pts)  # noqa: PERF401  (counted while it grows)
    assert len(delivered) == NUM_FRAMES
    assert delivered_when_dry[0] >= 7  # two frames a syncpoint, and the last may be on its way


def test_what_is_not_nut_passes_unchanged_however_it_is_cut() -> None:
    noise = np.random.default_rng(3).bytes(5000)
    for data in (noise, b"YUV4MPEG2 W64", FILE_ID[:-1] + b"x" + SYNCPOINT * 9, b"", FILE_ID[:7]):
        pieces = NutPieces(Chopped(data, seed=4), syncpoints_per_piece=1)
        assert b"".join(iter(lambda pieces=pieces: pieces.read(100), b"")) == data
        assert not pieces.begin_next_piece()
        assert pieces.num_bytes == len(data)


def test_a_stream_cut_anywhere_near_a_boundary_ends_well() -> None:
    data = nut("rawvideo", frames=4)
    boundary = data.rindex(SYNCPOINT)
    for end in range(boundary - 2, boundary + 30):
        pieces = NutPieces(Chopped(data[:end], seed=end), syncpoints_per_piece=1)
        with open_video(pieces, is_live=True) as reader:
            assert len(list(reader)) == (1 if end < boundary else 2)  # two frames a syncpoint


def test_a_syncpoint_without_back_pointer_differs_in_pointer_and_checksum_only() -> None:
    data = nut("rawvideo")
    last = data[data.rindex(SYNCPOINT) :]
    changed = without_back_pointer(last)
    assert changed != last
    assert len(changed) == len(last)
    assert without_back_pointer(changed) == changed
    damaged = last[:9] + bytes([last[9] ^ 1]) + last[10:]
    assert without_back_pointer(damaged) == damaged


def test_a_growing_nut_file_is_opened_again_before_the_demuxer_remembers_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Event

    from instantvir_models.live.source import LiveSource, SourceSettings
    from instantvir_models.live.watchdog import Pulse

    path = tmp_path / "growing.nut"
    path.write_bytes(nut("rawvideo", frames=200))
    opened = []
    monkeypatch.setattr(NutPieces.__init__, "__kwdefaults__", {"syncpoints_per_piece": 30})
    monkeypatch.setattr(
        ContainerSource, "open", lambda self: opened.append(self.source) or open_container(self)
    )
    source = LiveSource(
        SourceSettings(source=str(path), follow_seconds=0.1),
        stop=Event(),
        on_event=lambda sentence: None,
        on_companions=lambda packets: None,
        pulse=Pulse("input"),
    )
    num_frames = sum(1 for _ in source)
    source.close()
    assert num_frames == 200
    assert len(opened) == 4
    assert all(isinstance(piece, NutPieces) for piece in opened)


open_container = ContainerSource.open
