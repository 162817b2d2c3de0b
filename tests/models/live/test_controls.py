"""What is asked of a running stream: by whom, from when on, and what it may not do."""

import threading

import numpy as np
import pytest
import torch

from instantvir_models.errors import CheckpointError, UsageError
from instantvir_models.live.controls import Controls, ControlSettings
from instantvir_models.live.source import SourceSettings
from instantvir_models.live.stream import LiveSettings, LiveStream
from instantvir_models.media import open_video
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.measurement import Degradation
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from tests.live_tools import Sink, output_to, small_student
from tests.media_clips import make_clip
from tests.wan_small import small_student as small_wan
from tests.wan_small import small_text

HEIGHT, WIDTH = 16, 16
BLUR = Degradation(operator=GaussianBlur(1.5), noise_std=0.02)
OTHER = small_text(seed=9, rows=5)
NUM_FRAMES = 9 + 12 + 12 + 3


def session_of(student):
    return Session(Amortised(student, torch.float32), BLUR, height=HEIGHT, width=WIDTH)


def streamed(path, student, controls, *, on_frame=lambda number: None):
    """Frames out of a live run; `on_frame` is called with the number of each as it leaves."""
    stream = LiveStream(
        SourceSettings(source=str(path)),
        LiveSettings(frames_per_block=12),
        controls=controls,
        on_event=lambda sentence: None,
    )
    stream.start()
    sink, numbers = Sink(), iter(range(NUM_FRAMES))
    status = stream.run(
        lambda height, width: session_of(student),
        lambda height, width: [output_to(sink)],
        on_pair=lambda measured, restored: on_frame(next(numbers)),
    )
    assert (status.frames_in, status.frames_out) == (NUM_FRAMES, NUM_FRAMES)
    return np.stack([frame.pixels for frame in sink.frames])


def clip(tmp_path):
    path = make_clip(
        tmp_path / "in.nut", width=WIDTH, height=HEIGHT, num_frames=NUM_FRAMES, codec="ffv1",
        pix_fmt="bgr0",
    )  # fmt: skip
    with open_video(path) as reader:
        return path, np.stack([frame.pixels for frame in reader])


@pytest.mark.parametrize("changed_after", [8, 20])
def test_a_prompt_holds_from_the_next_block_and_costs_no_frame(tmp_path, unguarded, changed_after):
    path, frames = clip(tmp_path)
    student = small_wan("lean", window_latents=6)
    controls = Controls(read_prompt=lambda prompt: OTHER)

    def on_frame(number):
        if number == changed_after:  # the last of its block
            controls.change(prompt="a red square")

    live = streamed(path, student, controls, on_frame=on_frame)
    session = session_of(student)
    before = session.push(frames[: changed_after + 1])
    session.change_text(OTHER)
    after = [session.push(frames[changed_after + 1 :]), session.flush()]
    np.testing.assert_array_equal(live, np.concatenate([before, *after]))
    unchanged = streamed(path, student, Controls())
    np.testing.assert_array_equal(live[: changed_after + 1], unchanged[: changed_after + 1])
    assert (live[changed_after + 1 :] != unchanged[changed_after + 1 :]).any(axis=(1, 2, 3)).all()


def test_a_session_that_begins_later_is_told_the_prompt_too(tmp_path):
    path, frames = clip(tmp_path)
    student = small_wan("lean", window_latents=6)
    controls = Controls(read_prompt=lambda prompt: OTHER)
    controls.change(prompt="a red square")
    live = streamed(path, student, controls)
    session = session_of(student.with_text(OTHER))
    np.testing.assert_array_equal(live, np.concatenate([session.push(frames), session.flush()]))


def test_a_sharpness_holds_from_the_next_block(tmp_path, unguarded):
    path, frames = clip(tmp_path)
    student = small_wan("lean", window_latents=6)
    controls = Controls(can_sharpen=True)

    def on_frame(number):
        if number == 8:
            controls.change(sharpness=1.5)

    live = streamed(path, student, controls, on_frame=on_frame)
    session = session_of(student)
    before = session.push(frames[:9])
    session.change_sharpness(1.5)
    after = [session.push(frames[9:]), session.flush()]
    np.testing.assert_array_equal(live, np.concatenate([before, *after]))
    plain = streamed(path, student, Controls())
    np.testing.assert_array_equal(live[:9], plain[:9])
    assert (live[9:] != plain[9:]).any()


def test_the_embedded_student_reads_no_text():
    session = Session(Amortised(small_student()), BLUR, height=24, width=32)
    with pytest.raises(UsageError, match="this student reads no text"):
        session.change_text(OTHER)
    controls = Controls()
    with pytest.raises(UsageError, match="reads no text"):
        controls.change(prompt="a red square", is_on=False)
    assert controls.settings == ControlSettings()


def test_the_stream_goes_on_with_the_old_prompt_while_a_new_one_is_read():
    is_reading, may_end = threading.Event(), threading.Event()

    def read(prompt):
        is_reading.set()
        assert may_end.wait(20)
        return OTHER

    controls = Controls(read_prompt=read)
    reader = threading.Thread(target=lambda: controls.change(prompt="a red square"))
    reader.start()
    assert is_reading.wait(20)
    assert controls.settings.text is None
    controls.change(strength=0.5)  # does not wait
    with pytest.raises(UsageError, match="another prompt is being read"):
        controls.change(prompt="two", strength=0.1)
    may_end.set()
    reader.join(20)
    settings = controls.settings
    assert (settings.text, settings.prompt, settings.strength) == (OTHER, "a red square", 0.5)


@pytest.mark.parametrize(
    "error",
    [
        CheckpointError("rows of another student"),
        RuntimeError("no memory"),
        MemoryError(),
        OSError(28, "disk full"),
    ],
)
def test_a_prompt_that_cannot_be_read_changes_nothing(error):
    def read(prompt):
        raise error

    controls = Controls(read_prompt=read)
    for _ in range(2):  # and the second time it is the same error, not that one is being read
        with pytest.raises(
            (CheckpointError, UsageError), match=r"rows of another|could not be read"
        ):
            controls.change(prompt="a red square", is_on=False)
    assert controls.settings == ControlSettings()


def test_a_prompt_is_not_read_in_vain():
    read = []
    controls = Controls(read_prompt=lambda prompt: read.append(prompt) or OTHER)
    with pytest.raises(UsageError, match="a number from 0 to 1"):
        controls.change(strength=7, prompt="a red square")
    assert read == []
