"""Sound costs a frame of delay at most: a container holds a frame back until it has later sound."""

import io
import threading
import time
from fractions import Fraction

import av
import numpy as np

from instantvir_models.live.output import LiveOutput
from instantvir_models.live.source import SourceSettings
from instantvir_models.live.stream import LiveSettings, LiveStream
from instantvir_models.live.watchdog import Pulse
from instantvir_models.media import (
    EncoderSettings,
    Frame,
    VideoReader,
    VideoWriter,
    create_video,
    open_video,
)
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.measurement import Degradation
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from tests.live_tools import small_student
from tests.media_clips import make_clip

SIZE, FPS = 32, 25


class Tape:
    """Keeps what is written, for readers that look in between."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._lock = threading.Lock()

    def write(self, data: bytes) -> int:
        with self._lock:
            self._data += data
        return len(data)

    def num_frames(self) -> int:
        """Frames that can be read by now."""
        with self._lock:
            data = bytes(self._data)
        try:
            with av.open(io.BytesIO(data)) as container:
                return sum(packet.size > 0 for packet in container.demux(video=0))
        except av.FFmpegError:  # the headers are not there yet
            return 0


def live_writer(reader: VideoReader, tape: Tape) -> VideoWriter:
    return create_video(
        tape, info_of=reader, width=SIZE, height=SIZE, output_format="nut", is_live=True,
        settings=EncoderSettings(low_latency=True),
    )  # fmt: skip


def test_no_frame_of_a_block_waits_for_the_sound_of_the_next(tmp_path):
    """The source stands still after a whole block and its sound: all of it must be out."""
    path = make_clip(
        tmp_path / "in.nut", width=SIZE, height=SIZE, num_frames=30, audio=True,
        codec="ffv1", pix_fmt="bgr0",
    )  # fmt: skip
    tape = Tape()
    stream = LiveStream(
        SourceSettings(source=str(path), follow_seconds=600),
        LiveSettings(),
        on_event=lambda event: None,
    )
    stream.start()

    def outputs(height, width):
        assert stream.source is not None
        reader = stream.source.reader
        return [
            LiveOutput(
                "tape", lambda: live_writer(reader, tape), queue_size=9, reconnect=False,
                is_only_one=True, on_event=lambda event: None, pulse=Pulse("tape"),
            )
        ]  # fmt: skip

    def new_session(height, width):
        degradation = Degradation(operator=GaussianBlur(1.5), noise_std=0.02)
        return Session(Amortised(small_student()), degradation, height=height, width=width)

    running = threading.Thread(target=stream.run, args=(new_session, outputs))
    running.start()
    try:
        deadline = time.monotonic() + 30
        while tape.num_frames() < 30 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert tape.num_frames() == 30
    finally:
        stream.stop()
        running.join(30)


def test_a_silent_track_holds_frames_back_for_a_second_at_most(tmp_path):
    path = make_clip(tmp_path / "in.mkv", width=SIZE, height=SIZE, audio=True)
    tape = Tape()
    with open_video(path) as reader:
        writer = live_writer(reader, tape)
        pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
        for number in range(4 * FPS):
            writer.write(Frame(pixels, number, Fraction(1, FPS), 1))
        assert tape.num_frames() >= 3 * FPS - 2
        writer.close()
    assert tape.num_frames() == 4 * FPS
