"""Stories of `instantvir restore` and `degrade`, each on a tiny clip, through the real command."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from instantvir_cli.app import app
from instantvir_cli.exit_status import ExitStatus
from instantvir_models.media import open_video
from tests.media_clips import make_clip, packets_of, write_frames

DATA = Path(__file__).parents[1] / "data"
COMMAND = [sys.executable, "-c", "from instantvir_cli.app import app; app()"]


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def frames_of(path):
    with open_video(path) as reader:
        return [frame.pixels for frame in reader]


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "in.mp4"
    make_clip(path, width=48, height=32, num_frames=7, audio=True)
    return path


def assert_fails(result, status, sentence, hint=""):
    assert result.exit_code == status, result.stderr
    assert "error:" in result.stderr
    flat = " ".join(result.stderr.split())
    assert sentence in flat
    assert hint in flat
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_video_comes_back_whole_beside_the_input(clip):
    result = run("restore", clip, "--task", "denoise")
    assert result.exit_code == 0, result.stderr
    target = clip.with_name("in.restored.mp4")
    assert len(frames_of(target)) == 7
    assert packets_of(target, "audio") == packets_of(clip, "audio")
    assert "estimated noise" in result.stderr
    assert sorted(p.name for p in clip.parent.iterdir()) == ["in.mp4", "in.restored.mp4"]


def test_a_small_clean_clip_is_not_smoothed(tmp_path):
    """Of a photo's texture 7 levels were called noise, with high confidence, and went."""
    photo = cv2.imread(str(DATA / "clips" / "rooftops.png"))[..., ::-1]
    small = cv2.resize(photo, (96, 64), interpolation=cv2.INTER_AREA)
    frames = [np.ascontiguousarray(small[t : t + 48, t : t + 80]) for t in range(4)]
    path = write_frames(tmp_path / "in.mkv", frames, "ffv1", "bgr0")
    target = tmp_path / "out.mkv"
    stored = ("--codec", "ffv1", "--pix-fmt", "bgr0")
    result = run("restore", path, "-o", target, "--task", "denoise", *stored)
    assert result.exit_code == 0, result.stderr
    assert "no noise is taken away: none is sure" in " ".join(result.stderr.split())
    assert np.abs(np.stack(frames_of(target)).astype(int) - frames).max() <= 1


@pytest.mark.parametrize("name", ["still.png", "still.jpg", "50% off.jpg", "scan.tif", "scan.bmp"])
def test_a_picture_comes_back_as_a_picture(tmp_path, name):
    """FFmpeg takes all but PNG for one of a series by their names, and series are not opened."""
    cv2.imwrite(str(tmp_path / name), np.full((16, 24, 3), 90, np.uint8))
    result = run("restore", tmp_path / name, "--task", "denoise", "--noise", 5, "--solver", "map")
    assert result.exit_code == 0, result.stderr
    made = [path for path in tmp_path.iterdir() if path.name != name]
    assert [path.suffix for path in made] == [Path(name).suffix]
    assert cv2.imread(str(made[0])).shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("name", "codec"), [("scan.tga", "targa"), ("scan.ppm", "ppm"), ("scan.pam", "pam")]
)
def test_a_picture_that_is_not_written_becomes_a_png(tmp_path, name, codec):
    """TGA and PAM were refused, for nothing but their names tells what they are; PPM and others became a
    video."""
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = (
        24,
        16,
        "bgr24" if codec == "targa" else "rgb24",
    )
    encoder.time_base = Fraction(1, 25)
    pixels = np.full((16, 24, 3), (200, 90, 30), np.uint8)
    (packet,) = encoder.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
    (tmp_path / name).write_bytes(bytes(packet))
    result = run("restore", tmp_path / name, "--operator", "noise:std=0.01", "--solver", "map")
    assert result.exit_code == 0, result.stderr
    assert np.array_equal(cv2.imread(str(tmp_path / "scan.restored.png"))[..., ::-1], pixels)


@pytest.mark.parametrize(
    ("args", "size"),
    [
        (["--task", "deblur", "--blur-sigma", 2], (48, 32)),
        (["--task", "sr", "--scale", 2], (96, 64)),
        (["--task", "sr", "--task", "denoise", "--noise", 5], (192, 128)),
        (["--operator", "blur:sigma=1+noise:std=2"], (48, 32)),
    ],
)
def test_every_task_writes_its_size(clip, tmp_path, args, size):
    target = tmp_path / "out.mkv"
    result = run("restore", clip, *args, "-o", target, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["frames"] == 7
    assert tuple(summary["output_size"]) == size
    assert summary["residual"] is not None
    assert summary["frames_replaced"] <= summary["frames_guarded"] == len(summary["guarded"])
    assert len(summary["model_sha256"]) == 64
    assert set(summary["stage_seconds"]) == {
        "decode", "convert", "estimate", "student", "consistency", "encode"
    }  # fmt: skip
    with open_video(target) as reader:
        assert (reader.info.width, reader.info.height) == size


def test_degrade_leaves_a_note_that_restore_picks_up(clip, tmp_path):
    measurement = tmp_path / "y.mkv"
    spec = "mask:keep=0.5+noise:std=0"
    assert run("degrade", clip, "-o", measurement, "--operator", spec, "--seed", 4).exit_code == 0
    assert (tmp_path / "y.mkv.operator.json").exists()
    assert (tmp_path / "y.mkv.mask.png").exists()
    result = run("restore", measurement, "-o", tmp_path / "x.mkv", "--codec", "ffv1",
                 "--reference", clip, "--json")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["is_operator_known"]
    assert summary["output_psnr"] > summary["input_psnr"] + 10
    known = cv2.imread(str(tmp_path / "y.mkv.mask.png"), cv2.IMREAD_GRAYSCALE) > 0
    for y, x in zip(frames_of(measurement), frames_of(tmp_path / "x.mkv"), strict=True):
        np.testing.assert_array_equal(x[known], y[known])  # what was measured is kept bit for bit


def test_degrade_is_reproducible_and_crops_to_the_factor(clip, tmp_path):
    for name in ("a.mkv", "b.mkv"):
        spec = "down:factor=5+noise:std=9"
        result = run("degrade", clip, "-o", tmp_path / name, "--operator", spec)
        assert result.exit_code == 0, result.stderr
        assert "cropped 48x32 to 45x30" in result.stderr
    a, b = frames_of(tmp_path / "a.mkv"), frames_of(tmp_path / "b.mkv")
    np.testing.assert_array_equal(a, b)
    assert a[0].shape == (6, 9, 3)


def test_a_temporal_blur_in_windows_equals_the_whole_clip(tmp_path):
    import torch

    from instantvir_models.media import open_video, to_uint8, to_unit
    from instantvir_models.operators.spec import parse_degradation
    from instantvir_models.run.degrade import measured

    path = tmp_path / "in.mkv"
    make_clip(path, width=16, height=16, num_frames=11, codec="ffv1", pix_fmt="bgr0")
    degradation = parse_degradation("temporal:kernel=uniform,size=5")
    with open_video(path) as reader:
        streamed = [frame.pixels for frame in measured(iter(reader), degradation, seed=0)]
    whole = to_uint8(degradation.operator.A(to_unit(np.stack(frames_of(path))).to(torch.float64)))
    assert np.abs(np.stack(streamed).astype(int) - whole).max() <= 1


def test_the_operator_of_a_guess_is_not_called_known(clip, tmp_path):
    result = run("restore", clip, "--task", "deblur", "-o", tmp_path / "o.mp4", "--json")
    assert result.exit_code == 0, result.stderr
    assert not json.loads(result.stdout)["is_operator_known"]
    assert "estimated operator" in result.stderr


def test_several_inputs_go_into_a_folder(clip, tmp_path):
    second = tmp_path / "second.mp4"
    make_clip(second, width=32, height=32, num_frames=2)
    result = run(
        "restore",
        clip,
        second,
        "--task",
        "denoise",
        "--noise",
        3,
        "-o",
        f"{tmp_path}/out/",
        "--json",
    )
    assert result.exit_code == 0, result.stderr
    assert len(json.loads(result.stdout)) == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "in.restored.mp4", "second.restored.mp4"
    ]  # fmt: skip


def test_dry_run_says_what_it_would_do_and_writes_nothing(clip):
    result = run("restore", clip, "--task", "denoise", "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["output"] is None
    assert "in.restored.mp4" in result.stderr
    assert [p.name for p in clip.parent.iterdir()] == ["in.mp4"]


def test_a_dry_run_minds_no_result_that_is_there(clip):
    """Whoever had restored once could not look any more."""
    there = clip.parent / "in.restored.mp4"
    there.write_bytes(b"precious")
    for inputs in ([clip], [f"{clip.parent}/"]):
        result = run("restore", *inputs, "--task", "denoise", "--dry-run")
        assert result.exit_code == 0, result.stderr
        assert "(estimated or assumed)" in result.stderr
    assert there.read_bytes() == b"precious"
    assert run("restore", clip, "--task", "denoise", "--dry-run", "-o", clip).exit_code == 2


def test_what_goes_beside_the_output_may_go_into_a_folder_that_is_made_for_it(photo, tmp_path):
    file = natural_file(tmp_path / "in.mkv", photo, levels=12)
    new = tmp_path / "new"
    result = run("restore", file, "-o", f"{new}/", "--picture", new / "found.png",
                 "--report", new / "page.html", "--uncertainty", new / "off.mkv")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    made = ["found.png", "in.restored.mkv", "off.mkv", "page.html"]
    assert sorted(path.name for path in new.iterdir()) == made


def test_a_page_that_cannot_be_made_is_told_before_the_work(clip, tmp_path):
    target = tmp_path / "o.mp4"
    result = run(
        "restore", clip, "--task", "denoise", "-o", target, "--report", tmp_path / "no" / "r.html"
    )
    assert result.exit_code == ExitStatus.BAD_OUTPUT
    assert "does not exist" in result.stderr
    assert not target.exists()


def test_a_mask_alone_says_where_and_not_what(clip, tmp_path):
    mask = tmp_path / "mask.png"
    cv2.imwrite(str(mask), np.full((32, 48), 255, np.uint8))
    result = run("restore", clip, "--mask", mask, "-o", tmp_path / "o.mp4")
    assert result.exit_code == 2
    assert "add `--task inpaint`" in result.stderr


@pytest.mark.parametrize("style", ["side", "wipe"])
def test_compare_writes_a_video_and_a_sheet(clip, tmp_path, style):
    target = tmp_path / "o.mp4"
    result = run("restore", clip, "--task", "sr", "--scale", 2, "-o", target,
                 "--compare", "--compare-style", style)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    width = 192 if style == "side" else 96
    assert frames_of(tmp_path / "o.compare.mp4")[0].shape == (64, width, 3)
    assert cv2.imread(str(tmp_path / "o.compare.png")).shape[1] == 192


def test_start_and_duration_cut_the_video(clip, tmp_path):
    target = tmp_path / "o.mp4"
    result = run("restore", clip, "--task", "denoise", "--noise", 2, "-o", target,
                 "--start", 0.08, "--duration", 0.12)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert len(frames_of(target)) == 3


def test_ten_bits_stay_ten_bits(tmp_path):
    source = tmp_path / "in.mkv"
    make_clip(source, width=32, height=32, num_frames=4, codec="ffv1", pix_fmt="yuv420p10le")
    result = run("restore", source, "--task", "denoise", "--noise", 1, "-o", tmp_path / "o.mp4")
    assert result.exit_code == 0, result.stderr
    with open_video(tmp_path / "o.mp4") as reader:
        assert reader.info.bit_depth == 10


def test_quiet_says_nothing(clip, tmp_path):
    result = run("restore", clip, "--task", "denoise", "-o", tmp_path / "o.mp4", "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout == ""


def test_numbers_without_a_task_are_a_question(clip):
    assert_fails(
        run("restore", clip, "--noise", 5),
        ExitStatus.USAGE,
        "nothing says what is wrong",
        "`--noise` goes with `--task denoise`",
    )


def natural_file(path, photo, *, levels, codec="ffv1", pix_fmt="bgr0", options=None):
    """A photo seen by a moving camera, with noise, as a file."""
    rng = np.random.default_rng(0)
    frames = [photo[t : t + 96, 2 * t : 2 * t + 128] for t in range(6)]
    noisy = [frame + levels * rng.standard_normal(frame.shape) for frame in frames]
    write_frames(path, [np.rint(f).clip(0, 255).astype(np.uint8) for f in noisy], codec, pix_fmt, options)  # fmt: skip
    return path


@pytest.fixture
def photo():
    return cv2.imread(str(DATA / "clips" / "flower.png"))[..., ::-1]


def test_with_nothing_told_it_looks_says_and_mends(photo, tmp_path):
    clean, noisy = (
        natural_file(tmp_path / name, photo, levels=levels)
        for name, levels in (("clean.mkv", 0), ("noisy.mkv", 12))
    )
    target = tmp_path / "out.mkv"
    result = run("restore", noisy, "-o", target, "--reference", clean, "--codec", "ffv1", "--json")
    assert result.exit_code == 0, result.stderr
    assert "noise: pixels are off by 1" in result.stderr
    assert "to do: take away noise" in result.stderr
    summary = json.loads(result.stdout)
    assert summary["output_psnr"] > summary["input_psnr"] + 2
    assert summary["output_psnr_over_frames"] > summary["input_psnr_over_frames"] + 2
    assert "that is the mean of the frames" not in result.stderr
    assert summary["findings"][0]["kind"] == "error"
    told = shlex.split(summary["command"])
    assert told[:3] == ["instantvir", "restore", str(noisy)]
    again = run(*told[1:], "-o", tmp_path / "told.mkv", "--codec", "ffv1")
    assert again.exit_code == 0, again.stderr
    for one, other in zip(frames_of(target), frames_of(tmp_path / "told.mkv"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_a_codec_did_is_mended_and_the_command_that_is_named_does_the_same(tmp_path):
    roofs = cv2.imread(str(DATA / "clips" / "rooftops.png"))[..., ::-1]
    file = natural_file(
        tmp_path / "in.mkv", roofs, levels=0, codec="libx264", pix_fmt="yuv420p",
        options={"crf": "36"},
    )  # fmt: skip
    result = run("restore", file, "-o", tmp_path / "out.mkv", "--codec", "ffv1", "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["keep_detail"] >= 0.97
    again = run(
        *shlex.split(summary["command"])[1:], "-o", tmp_path / "told.mkv", "--codec", "ffv1"
    )
    assert again.exit_code == 0, again.stderr
    before, one, other = (frames_of(tmp_path / n) for n in ("in.mkv", "out.mkv", "told.mkv"))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, before)


def test_of_frames_that_are_equal_or_bad_the_mean_says_less_than_it_seems(tmp_path):
    """Two frames of four are equal, 100 dB each; the mean square over all frames is as bad as ever."""
    random = np.random.default_rng(0)
    clean = [random.integers(60, 190, (32, 48, 3), dtype=np.uint8) for _ in range(4)]
    noisy = [
        frame if t < 2 else (frame + random.integers(-50, 50, frame.shape)).astype(np.uint8)
        for t, frame in enumerate(clean)
    ]
    for name, frames in (("clean", clean), ("noisy", noisy)):
        write_frames(tmp_path / f"{name}.mkv", frames, "ffv1", "bgr0", None)
    result = run(
        "restore", tmp_path / "noisy.mkv", "--operator", "noise:std=0", "--solver", "map",
        "--reference", tmp_path / "clean.mkv", "-o", tmp_path / "out.mkv", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["input_psnr"] > said["input_psnr_over_frames"] + 30
    assert "(that is the mean of the frames, an equal one counts as 100 dB" in result.stderr


def test_a_video_in_which_nothing_shows_is_copied_to_the_byte(tmp_path):
    black = tmp_path / "black.mkv"
    write_frames(black, [np.zeros((64, 64, 3), np.uint8)] * 3, "libx264", "yuv420p", None)
    result = run("restore", black, "--json", "--sharpness", 1)
    assert result.exit_code == 0, result.stderr
    assert "too little can be seen" in result.stderr
    assert "`--sharpness` has no effect: nothing is restored" in " ".join(result.stderr.split())
    assert "to do: nothing" in result.stderr
    assert (tmp_path / "black.restored.mkv").read_bytes() == black.read_bytes()
    assert json.loads(result.stdout)["is_unchanged"]
    result = run("restore", black, "-o", tmp_path / "other.mp4")  # another container: written again
    assert result.exit_code == 0, result.stderr
    assert len(frames_of(tmp_path / "other.mp4")) == 3


def test_a_dry_run_draws_what_it_found_and_writes_no_video(photo, tmp_path):
    file = natural_file(
        tmp_path / "in.mp4", photo, levels=4, codec="libx264", pix_fmt="yuv420p",
        options={"crf": "30"},
    )  # fmt: skip
    drawn = tmp_path / "found.png"
    result = run("restore", file, "--dry-run", "--picture", drawn)
    assert result.exit_code == 0, result.stderr
    assert "found: compression and noise" in result.stderr
    assert "H.264 alone makes" in result.stderr
    height, width = cv2.imread(str(drawn)).shape[:2]
    assert width == 2 * 128
    assert height > 2 * 96
    assert sorted(p.name for p in tmp_path.iterdir()) == ["found.png", "in.mp4"]
    assert_fails(
        run("restore", file, "--task", "denoise", "--dry-run", "--picture", tmp_path / "no.png"),
        ExitStatus.USAGE,
        "shows what is found where nothing is told",
    )


@pytest.mark.parametrize(
    ("args", "sentence", "hint"),
    [
        (["--task", "debluur"], "there is no task called `debluur`", "did you mean `deblur`"),
        (["--operator", "blurr:sigma=1"], "no operator called `blurr`", "did you mean `blur`"),
        (["--task", "denoise", "--blur-sigma", "2"], "`--blur-sigma` has no effect", ""),
        (["--task", "denoise", "--noise", "999"], "`--noise` is 999", ""),
        (["--task", "denoise", "--keep-detail", "2"], "`--keep-detail` is 2", ""),
        (["--task", "denoise", "--sharpness", "2"], "it is a number from 0 to 1.5", ""),
        (
            ["--task", "denoise", "--noise", "5", "--solver", "nlmeans", "--sharpness", "1"],
            "it cannot be sharpened",
            "leave out `--sharpness`",
        ),
        (
            ["--task", "denoise", "--device", "tpu"],
            "`--device` is `tpu`",
            "auto, cpu, cuda",
        ),
        (["--task", "denoise", "--tile", "100"], "a multiple of 64", ""),
        (["--task", "inpaint"], "no missing pixels were found", "--mask"),
        (["--task", "inpaint", "--mask", "nowhere.png"], "no such file: `nowhere.png`", ""),
    ],
)
def test_usage_errors_are_named(clip, args, sentence, hint):
    result = run("restore", clip, *args)
    assert_fails(result, ExitStatus.USAGE, sentence, hint)
    assert [p.name for p in clip.parent.iterdir()] == ["in.mp4"]


def test_a_mask_of_the_wrong_size_is_named(clip, tmp_path):
    cv2.imwrite(str(tmp_path / "mask.png"), np.full((8, 8), 255, np.uint8))
    result = run("restore", clip, "--task", "inpaint", "--mask", tmp_path / "mask.png")
    assert_fails(result, ExitStatus.USAGE, "the mask is 8x8 but the video is 48x32")


def test_bad_inputs_are_named(tmp_path):
    task = ("--task", "denoise")
    missing = run("restore", tmp_path / "nope.mp4", *task)
    assert_fails(missing, ExitStatus.BAD_INPUT, "nope.mp4")
    assert_fails(run("restore", tmp_path, *task), ExitStatus.BAD_INPUT, "directory")
    (tmp_path / "text.mp4").write_text("this is no video")
    assert run("restore", tmp_path / "text.mp4", *task).exit_code == ExitStatus.BAD_INPUT
    (tmp_path / "empty.mp4").touch()
    assert run("restore", tmp_path / "empty.mp4", *task).exit_code == ExitStatus.BAD_INPUT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.mp4", "text.mp4"]


def test_bad_outputs_are_named(clip, tmp_path):
    task = ("--task", "denoise", "--noise", 2)
    result = run("restore", clip, *task, "-o", tmp_path / "no" / "such" / "folder.mp4")
    assert result.exit_code == ExitStatus.BAD_OUTPUT
    result = run("restore", clip, *task, "-o", tmp_path / "o.mp4", "--codec", "h265x")
    assert result.exit_code == ExitStatus.BAD_OUTPUT
    assert_fails(run("restore", clip, *task, "-o", clip), ExitStatus.USAGE, "is the input itself")
    (tmp_path / "there.mp4").write_text("precious")
    result = run("restore", clip, *task, "-o", tmp_path / "there.mp4")
    assert_fails(result, ExitStatus.USAGE, "exists already", "--overwrite")
    assert (tmp_path / "there.mp4").read_text() == "precious"
    assert run("restore", clip, *task, "-o", tmp_path / "there.mp4", "--overwrite").exit_code == 0


def test_bad_models_are_named(clip, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    from instantvir_models.checkpoints.load import WEIGHTS_FOLDER, load_student, save_student

    task = ("--task", "denoise", "--noise", 2)
    result = run("restore", clip, *task, "--model", "huge")
    assert_fails(result, ExitStatus.NO_CHECKPOINT, "no model called `huge`", "--model tiny")

    weights = WEIGHTS_FOLDER / "tiny.safetensors"
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:5000])
    assert_fails(
        run("restore", clip, *task, "--model", cut), ExitStatus.NO_CHECKPOINT, "not a readable"
    )

    foreign = tmp_path / "foreign.safetensors"
    save_file(load_file(weights), foreign)
    assert_fails(
        run("restore", clip, *task, "--model", foreign),
        ExitStatus.NO_CHECKPOINT,
        "no instantvir student",
    )

    student = load_student().student
    with torch.no_grad():
        student.head.bias[0] = float("nan")
    save_student(student, tmp_path / "nan.safetensors")
    result = run("restore", clip, *task, "--model", tmp_path / "nan.safetensors")
    assert_fails(result, ExitStatus.NO_CHECKPOINT, "not finite")


def test_a_truncated_video_restores_what_decodes(clip, tmp_path):
    source = tmp_path / "cut.mkv"
    make_clip(source, width=64, height=64, num_frames=40)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 2 // 3])
    result = run("restore", source, "--task", "denoise", "--noise", 2, "-o", tmp_path / "o.mkv")
    assert result.exit_code == ExitStatus.PARTIAL, result.stderr
    assert "damaged" in result.stderr
    assert 0 < len(frames_of(tmp_path / "o.mkv")) < 40


def test_a_full_disk_leaves_nothing(clip, tmp_path):
    """`ulimit -f` makes the kernel refuse to let the output grow, as a full disk does."""
    source = tmp_path / "long.mkv"
    make_clip(source, width=128, height=128, num_frames=30)
    command = " ".join(
        [f"'{part}'" if " " in part else part for part in COMMAND]
        + [
            "restore",
            str(source),
            "--operator",
            "identity+noise:std=1",
            "-o",
            str(tmp_path / "o.mkv"),
            "--codec",
            "ffv1",
        ]
    )
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; ulimit -f 40; exec {command}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitStatus.BAD_OUTPUT, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "long.mkv"]


def test_standard_input_and_output(clip):
    done = subprocess.run(
        [*COMMAND, "restore", "-", "--task", "denoise", "--noise", "2", "-o", "-", "--format", "nut"],
        input=_as_nut(clip), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    import io

    assert len(frames_of(io.BytesIO(done.stdout))) == 7


def _as_nut(clip):
    path = clip.with_name("pipe.nut")
    make_clip(path, width=48, height=32, num_frames=7, codec="ffv1", pix_fmt="yuv420p")
    return path.read_bytes()


def test_ctrl_c_leaves_no_half_file(tmp_path):
    source = tmp_path / "long.mp4"
    make_clip(source, width=256, height=256, num_frames=60)
    process = subprocess.Popen(
        [*COMMAND, "restore", str(source), "--operator", "blur:sigma=2+noise:std=1"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.05)
    assert len(list(tmp_path.iterdir())) == 2, "the writer never started"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == ExitStatus.INTERRUPTED, stderr
    assert "interrupted" in stderr
    assert [p.name for p in tmp_path.iterdir()] == ["long.mp4"]


def test_a_method_without_weights_restores_a_file(tmp_path):
    clip = make_clip(tmp_path / "in.mp4", width=48, height=32, num_frames=4)
    result = run(
        "restore", clip, "--operator", "blur:sigma=1+noise:std=2", "--solver", "wiener", "--json"
    )
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["model"], summary["model_sha256"], summary["frames"]) == ("wiener", None, 4)
    refused = run(
        "restore", clip, "--operator", "down:factor=2", "--solver", "wiener", "--overwrite"
    )
    assert refused.exit_code == ExitStatus.USAGE
    assert "cannot undo `down:factor=2" in " ".join(refused.stderr.split())


def page_of(path):
    """What the script of a page is given, and its text."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1]), text


def test_a_report_shows_before_after_and_how_long_it_took(clip, tmp_path):
    page = tmp_path / "out.html"
    result = run(
        "restore", clip, "--operator", "identity+noise:std=10", "--reference", clip,
        "--report", page, "-o", tmp_path / "out.mkv",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    content, text = page_of(page)
    kinds = {item["kind"]: item for item in content["items"]}
    (scene,) = kinds["Player"]["scenes"]
    assert [view["name"] for view in scene["views"]] == ["input", "restored", "truth"]
    assert {view["strip"]["frames"] for view in scene["views"]} == {7}
    assert scene["views"][1]["heat"]
    titles = [item["title"] for item in content["items"]]
    assert "Against the reference" in titles
    assert "How far the restoration believes to be off" in titles
    assert "identity+noise:std=10" in text
    again = run("restore", clip, "--task", "denoise", "--report", page)
    assert_fails(again, ExitStatus.USAGE, f"`{page}` exists already", "--overwrite")


def test_a_report_of_an_enlargement_shows_what_it_leaves_unexplained(clip, tmp_path):
    page = tmp_path / "out.html"
    result = run("restore", clip, "--operator", "down:factor=2,kernel=area", "--report", page)
    assert result.exit_code == 0, result.stderr
    content, _ = page_of(page)
    (scene,) = content["items"][0]["scenes"]
    assert (scene["width"], scene["height"]) == (96, 64)
    before, after = scene["views"]
    assert (before["strip"]["width"], after["strip"]["width"]) == (48, 96)
    assert after["heat"]["width"] == 48


def test_a_report_is_of_one_video(clip, tmp_path):
    result = run("restore", clip, clip, "-o", f"{tmp_path}/", "--task", "sr", "--report", "x.html")
    assert result.exit_code == ExitStatus.USAGE
