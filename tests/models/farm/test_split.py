"""A video in pieces, joined: its frames, times and sound are those of one that was restored at once."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from instantvir_models.errors import UsageError, VideoOpenError, VideoWriteError
from instantvir_models.farm.pieces import Blocks, cuts_in, pieces_of
from instantvir_models.farm.split import join, look_through, restore_piece, split
from instantvir_models.media import EncoderSettings, open_video
from instantvir_models.run.jobs import Job
from instantvir_models.run.opening import open_chosen
from instantvir_models.run.plan import RestorePlan
from instantvir_models.run.restoration import prepared
from instantvir_models.tasks import TaskOptions, parse_tasks
from tests.media_clips import make_clip, packets_of, write_frames

PLAN = RestorePlan(
    wanted=TaskOptions(tasks=parse_tasks(["denoise"]), noise_levels=5),
    encoder=EncoderSettings(codec="ffv1"),
)
TIMES = [Fraction(index, 25) for index in range(100)]
BLOCKS = Blocks(first=3, following=3)


def test_pieces_are_the_video_each_frame_once():
    pieces = pieces_of(TIMES, [], frames_per_piece=30, warm_up=6, blocks=BLOCKS)
    assert [(piece.first, piece.stop) for piece in pieces] == [(0, 30), (30, 60), (60, 100)]


def test_a_cut_between_scenes_is_taken_where_there_is_one_near():
    pieces = pieces_of(TIMES, [5, 33, 41, 66], frames_per_piece=30, warm_up=6, blocks=BLOCKS)
    assert [piece.first for piece in pieces] == [0, 33, 66]


@pytest.mark.parametrize(
    "blocks", [BLOCKS, Blocks(first=9, following=12), Blocks(first=1, following=1, radius=2)]
)
def test_a_piece_is_read_from_and_to_where_blocks_of_the_whole_begin_and_end(blocks):
    for piece in pieces_of(TIMES, [], frames_per_piece=31, warm_up=7, blocks=blocks):
        assert piece.read_first % blocks.following == 0
        assert piece.read_first <= max(0, piece.first - 7 - blocks.radius)
        end = piece.read_stop - blocks.radius
        assert piece.read_stop == 100 or (
            end >= piece.stop and (end - blocks.first) % blocks.following == 0
        )
        if piece.read_first:
            assert TIMES[piece.read_first - 1] < piece.start_seconds < TIMES[piece.read_first]


def test_a_cut_changes_much_more_than_what_moves():
    moving = [0.0] + [6.0] * 40
    assert cuts_in(moving) == []
    assert cuts_in([*moving[:20], 60.0, *moving[20:]]) == [20]
    assert cuts_in([0.0, 0.1, 0.2, 5.0, 0.1]) == []  # a flicker of a still picture


@pytest.fixture(scope="module")
def solver():
    return open_chosen()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """27 frames at odd times, with sound."""
    path = tmp_path_factory.mktemp("clip") / "tape.mkv"
    times = [2 * index + (index % 3 == 1) for index in range(27)]
    return make_clip(
        path, width=64, height=48, num_frames=27, pts=times, time_base=Fraction(1, 50), audio=True
    )


def at_once(clip, folder, solver):
    job = Job(str(clip), str(folder / "whole.mkv"))
    with prepared(job, PLAN, solver) as restoration:
        restoration.run()
    return folder / "whole.mkv"


def in_pieces(clip, folder, solver, *, warm_up, bits=False):
    job = Job(str(clip), str(folder / "joined.mkv"), folder)
    video = split(job, PLAN, solver, minutes=9 / 25 / 60, warm_up=warm_up)
    for piece in video.pieces:
        restore_piece(piece, PLAN, solver, lambda _: None)
    return video


def frames_of(path):
    with open_video(path) as reader:
        return [(frame.pts * frame.time_base, frame.pixels) for frame in reader]


def psnr(one, other):
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def test_joined_equals_unsplit_in_count_times_and_sound_and_nearly_in_pixels(
    clip, tmp_path, solver
):
    whole = at_once(clip, tmp_path, solver)
    video = in_pieces(clip, tmp_path, solver, warm_up=6)
    assert len(video.pieces) == 3
    assert join(video) == 27
    one, other = frames_of(whole), frames_of(tmp_path / "joined.mkv")
    assert [time for time, _ in one] == [time for time, _ in other]
    assert packets_of(whole, "audio") == packets_of(tmp_path / "joined.mkv", "audio")
    assert min(psnr(a, b) for (_, a), (_, b) in zip(one, other, strict=True)) > 45
    assert not video.folder.exists()


def test_with_the_whole_past_as_warm_up_it_is_the_same_to_the_bit(clip, tmp_path, solver):
    whole = at_once(clip, tmp_path, solver)
    join(in_pieces(clip, tmp_path, solver, warm_up=27))
    pairs = zip(frames_of(whole), frames_of(tmp_path / "joined.mkv"), strict=True)
    assert all(np.array_equal(a, b) for (_, a), (_, b) in pairs)


def test_a_piece_that_is_short_is_not_joined(clip, tmp_path, solver):
    video = in_pieces(clip, tmp_path, solver, warm_up=0)
    first, second = video.pieces[:2]
    shorter = replace(second, piece=replace(second.piece, stop=second.piece.stop - 2))
    restore_piece(shorter, PLAN, solver, lambda _: None)
    with pytest.raises(VideoWriteError, match=r"has 7 frames"):
        join(video)
    assert not (tmp_path / "joined.mkv").exists()
    assert first.piece.first == 0


def test_a_video_that_cannot_be_entered_where_it_should_be_is_a_sentence(clip, tmp_path, solver):
    job = Job(str(clip), str(tmp_path / "joined.mkv"), tmp_path)
    piece = split(job, PLAN, solver, minutes=0.006).pieces[1]
    with pytest.raises(VideoOpenError, match="cannot be entered in the middle"):
        restore_piece(replace(piece, mark=0), PLAN, solver, lambda _: None)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"start_seconds": 1.0}, "--start"),
        ({"comparison_style": "side"}, "--compare"),
        ({"wanted": TaskOptions(dust=True)}, "--dust"),
    ],
)
def test_what_does_not_go_with_it_is_said(clip, tmp_path, solver, change, sentence):
    job = Job(str(clip), str(tmp_path / "joined.mkv"))
    with pytest.raises(UsageError, match=sentence):
        split(job, replace(PLAN, **change), solver, minutes=1)


def test_a_pipe_and_no_minutes_are_said(tmp_path, solver, clip):
    with pytest.raises(UsageError, match="a video file"):
        split(Job("-", "out.mkv"), PLAN, solver, minutes=1)
    with pytest.raises(UsageError, match="minutes, above 0"):
        split(Job(str(clip), "out.mkv"), PLAN, solver, minutes=0)


def test_a_look_through_finds_times_and_the_cut(tmp_path):
    clip = make_clip(tmp_path / "a.mkv", width=64, height=48, num_frames=4)
    seen = look_through(str(clip))
    assert seen.times == tuple(Fraction(index, 25) for index in range(4))
    assert len(set(seen.marks)) == 4


def test_noise_hides_no_cut(tmp_path):
    """Pictures were compared pixel by pixel: with noise of 20 levels all of them changed by 20."""
    noise = np.random.default_rng(0)
    ramp = np.linspace(40, 200, 64)[None, :, None]
    scenes = [ramp] * 16 + [240 - ramp] * 16
    noisy = [scene + noise.normal(0, 20, (48, 64, 3)) for scene in scenes]
    frames = [picture.clip(0, 255).astype(np.uint8) for picture in noisy]
    path = write_frames(tmp_path / "a.mkv", frames, "ffv1", "bgr0")
    assert look_through(str(path)).cuts == (16,)
