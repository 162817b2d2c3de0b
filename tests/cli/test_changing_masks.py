"""Stories of masks that change (a video or a folder beside the video, or found in it) and of fields."""

import json
from fractions import Fraction

import cv2
import numpy as np
import pytest

from instantvir_models.diagnosis.dust import find_dust
from instantvir_models.media import EncoderSettings, Frame, create_video, open_video
from instantvir_models.operators.spots import dusty
from tests.cli.test_restore import assert_fails, frames_of, run
from tests.media_clips import make_clip
from tests.models.test_dust import panning
from tests.models.test_fields import panning as panning_fields
from tests.models.test_fields import woven
from tests.models.test_fields import written as written_fields

WIDTH, HEIGHT, FRAMES = 48, 32, 7


@pytest.fixture
def clip(tmp_path):
    return make_clip(
        tmp_path / "in.mkv", width=WIDTH, height=HEIGHT, num_frames=FRAMES, codec="ffv1",
        pix_fmt="bgr0",
    )  # fmt: skip


def masks(num_frames=FRAMES, width=WIDTH, height=HEIGHT):
    """[T, H, W], True where known."""
    return np.random.default_rng(1).random((num_frames, height, width)) < 0.6


def written(path, known):
    """A lossless video of masks."""
    with (
        open_video(path.parent / "in.mkv") as reader,
        create_video(
            path,
            width=known.shape[2],
            height=known.shape[1],
            frame_rate=25,
            settings=EncoderSettings(codec="ffv1"),
        ) as writer,
    ):
        time_base = reader.info.time_base
        for index, mask in enumerate(known):
            pixels = np.repeat(mask[..., None], 3, -1).astype(np.uint8) * 255
            writer.write(Frame(pixels, index * round(1 / (25 * time_base)), time_base))
    return path


def in_a_folder(path, known):
    path.mkdir()
    for index, mask in enumerate(known):
        cv2.imwrite(str(path / f"{index:03d}.png"), mask.astype(np.uint8) * 255)
    return path


@pytest.mark.parametrize("store", [written, in_a_folder])
def test_holes_of_each_frame_are_filled_and_the_rest_is_kept(clip, tmp_path, store):
    """A mask file in `degrade`, the note it leaves, and `restore` that picks the note up."""
    known = masks()
    file = store(tmp_path / ("masks.mkv" if store is written else "masks"), known)
    y, x = tmp_path / "y.mkv", tmp_path / "x.mkv"
    made = run("degrade", clip, "-o", y, "--operator", f"mask:path={file}")
    assert made.exit_code == 0, made.stderr
    for pixels, mask in zip(frames_of(y), known, strict=True):
        assert (pixels[~mask] == 128).all()
    result = run("restore", y, "-o", x, "--codec", "ffv1", "--reference", clip, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["operator"] == f"mask:path={file.name}"
    assert summary["output_psnr"] > summary["input_psnr"] + 10
    for before, after, mask in zip(frames_of(y), frames_of(x), known, strict=True):
        np.testing.assert_array_equal(after[mask], before[mask])


def test_a_stream_of_a_file_reads_its_masks_along_as_restore_does(clip, tmp_path):
    file = written(tmp_path / "masks.mkv", masks())
    options = ["--task", "inpaint", "--mask", file, "--codec", "ffv1"]
    for verb, name in (("restore", "a.mkv"), ("stream", "b.mkv")):
        result = run(verb, clip, *options, "-o", tmp_path / name)
        assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(frames_of(tmp_path / "a.mkv"), frames_of(tmp_path / "b.mkv"))


def test_holes_that_move_are_found(clip, tmp_path):
    y = tmp_path / "y.mkv"
    spec = "mask:keep=0.7,seed=1,per_frame=1"
    assert run("degrade", clip, "-o", y, "--operator", spec).exit_code == 0
    (tmp_path / "y.mkv.operator.json").unlink()
    result = run(
        "restore", y, "--task", "inpaint", "-o", tmp_path / "x.mkv", "--reference", clip, "--json"
    )
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["output_psnr"] > summary["input_psnr"] + 10
    assert not summary["is_operator_known"]


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        (masks(FRAMES - 2), "ends after 5 frames, and the video goes on"),
        (masks(FRAMES + 1), "goes on when the video has ended"),
        (masks(width=40), "is 40x32 but the video is 48x32"),
    ],
    ids=["too short", "too long", "of another size"],
)
def test_masks_that_do_not_belong_to_the_video_are_refused(clip, tmp_path, known, sentence):
    file = written(tmp_path / "masks.mkv", known)
    target = tmp_path / "x.mkv"
    result = run("restore", clip, "--task", "inpaint", "--mask", file, "-o", target)
    assert_fails(result, 2, sentence)
    assert not target.exists()


def test_an_empty_folder_holds_no_mask(clip, tmp_path):
    (tmp_path / "masks").mkdir()
    result = run("restore", clip, "--task", "inpaint", "--mask", tmp_path / "masks")
    assert_fails(result, 2, "holds no image", "one PNG per frame")


def test_dust_is_filled_and_nothing_else_is_touched(tmp_path):
    clean = panning(6, 1)
    dirty = dusty(clean, np.random.default_rng(0)).frames
    for name, frames in (("clean.mkv", clean), ("in.mkv", dirty)):
        with create_video(
            tmp_path / name, width=160, height=96, frame_rate=25,
            settings=EncoderSettings(codec="ffv1"),
        ) as writer:  # fmt: skip
            for index, pixels in enumerate(frames):
                writer.write(Frame(pixels, index, Fraction(1, 25)))
    result = run(
        "restore", tmp_path / "in.mkv", "--dust", "--noise", 0, "--codec", "ffv1", "--json",
        "-o", tmp_path / "x.mkv", "--reference", tmp_path / "clean.mkv",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["operator"] == "dust"
    assert summary["output_psnr"] > summary["input_psnr"] + 2
    read = frames_of(tmp_path / "in.mkv")
    for t in range(1, 5):
        known = find_dust(*read[t - 1 : t + 2])
        restored = frames_of(tmp_path / "x.mkv")[t]
        np.testing.assert_array_equal(restored[known], read[t][known])


def test_a_stream_fills_the_dust_that_a_file_does(tmp_path):
    """Each frame waits for the next one, and none is lost, the last one included."""
    dirty = dusty(panning(6, 1), np.random.default_rng(0)).frames
    with create_video(
        tmp_path / "in.mkv", width=160, height=96, frame_rate=25,
        settings=EncoderSettings(codec="ffv1"),
    ) as writer:  # fmt: skip
        for index, pixels in enumerate(dirty):
            writer.write(Frame(pixels, index, Fraction(1, 25)))
    told = ["--dust", "--noise", 0, "--codec", "ffv1"]
    for verb in ("restore", "stream"):
        result = run(verb, tmp_path / "in.mkv", *told, "-o", tmp_path / f"{verb}.mkv")
        assert result.exit_code == 0, result.stderr
    restored, streamed = (frames_of(tmp_path / f"{verb}.mkv") for verb in ("restore", "stream"))
    assert len(streamed) == 6
    assert not np.array_equal(streamed[2], frames_of(tmp_path / "in.mkv")[2])
    np.testing.assert_array_equal(streamed, restored)


def test_an_interlaced_video_comes_back_at_the_rate_of_its_fields(tmp_path):
    written_fields(tmp_path / "in.mkv", woven(panning_fields(12), "bottom"))
    options = ["--operator", "identity+noise:std=1", "-o", tmp_path / "out.mkv"]
    told = "interlaced, bottom field first (found): one whole frame for each field, 50 a second"
    for extra, sentence in (
        (["--same-rate"], told.replace("each field, 50", "each two fields, 25")),
        (["--fields", "none"], ""),
        ([], told),
    ):
        dry = ["--dry-run"] if extra else []
        result = run("restore", tmp_path / "in.mkv", *options, *extra, *dry)
        assert result.exit_code == 0, result.stderr
        said = " ".join(result.stderr.split())
        assert (sentence in said) if sentence else ("field first" not in said)
    with open_video(tmp_path / "out.mkv") as reader:
        assert (reader.info.frame_rate, reader.info.is_interlaced) == (50, False)
        assert [round(frame.pts_seconds * 50) for frame in reader] == list(range(12))


@pytest.mark.parametrize(("extra", "rate"), [(["--fields", "bottom"], 50), ([], 25)])
def test_a_stream_makes_whole_frames_of_fields_where_it_is_told(tmp_path, extra, rate):
    frames = panning_fields(12)
    written_fields(tmp_path / "in.mkv", woven(frames, "bottom"))
    target = tmp_path / "out.mkv"
    result = run(
        "stream", tmp_path / "in.mkv", "--operator", "identity", "--noise", 0, "--solver",
        "as_measured", "--codec", "ffv1", *extra, "-o", target,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    with open_video(target) as reader:
        shown = [round(frame.pts_seconds * rate) for frame in reader]
    assert shown == list(range(len(frames) * rate // 50))
