"""From tasks to a degradation: what is looked at, and what a note beside a video counts for."""

import cv2
import numpy as np
import pytest
import torch

from instantvir_models.diagnosis.sample import Sample
from instantvir_models.errors import UsageError
from instantvir_models.operators.mask import largest_known_part
from instantvir_models.operators.measurement import LEVEL
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run import resolution
from instantvir_models.run.resolution import (
    needs_first_frames,
    needs_sample,
    resolve,
    resolve_video,
)
from instantvir_models.tasks import (
    DEBLUR,
    DENOISE,
    INPAINT,
    SR,
    TASKS,
    TaskOptions,
    parse_tasks,
    tasks_in,
)
from tests.models.test_diagnosis import gravel

SAMPLE = Sample(np.zeros((1, 8, 8, 3), np.uint8))


class Looked(Exception):
    """The sample was looked at."""


def looked(*args, **kwargs):
    raise Looked


@pytest.mark.parametrize(
    "tasks", [(DENOISE,), (DEBLUR,), (SR,), (DEBLUR, SR), (INPAINT,), (INPAINT, DEBLUR)]
)
@pytest.mark.parametrize("noise", [None, 5.0])
@pytest.mark.parametrize("sigma", [None, 2.0])
@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("is_lossy", [False, True])
def test_a_live_stream_waits_for_a_sample_only_if_it_is_looked_at(
    monkeypatch, tmp_path, tasks, noise, sigma, has_mask, is_lossy
):
    if (sigma is not None and DEBLUR not in tasks) or (has_mask and INPAINT not in tasks):
        return  # refused: the option would do nothing
    for name in ("noise_std", "codec_noise_std", "blur", "mask"):
        monkeypatch.setattr(resolution, f"estimate_{name}", looked)
    monkeypatch.setattr(resolution, "traces_of", looked)
    mask = tmp_path / "mask.png"
    cv2.imwrite(str(mask), np.full((24, 32), 255, np.uint8))
    options = TaskOptions(
        tasks=tasks, noise_levels=noise, blur_sigma=sigma, mask=mask if has_mask else None
    )
    was_looked_at = False
    try:
        resolve(options, sample=SAMPLE, is_lossy=is_lossy)
    except Looked:
        was_looked_at = True
    assert was_looked_at == needs_sample(options, is_lossy=is_lossy)


def resolved(frames, *, dust=False):
    options = TaskOptions(tasks=() if dust else (DENOISE,), dust=dust)
    return resolve(options, sample=Sample(frames), is_lossy=False)


@pytest.mark.parametrize("dust", [False, True])
def test_of_texture_that_stays_from_frame_to_frame_nothing_is_taken_away(dust):
    """`--task denoise` and `--dust` told 16 levels of clean gravel, with high confidence."""
    stones = gravel(64, 96)
    frames = np.stack([stones[t : t + 48, 2 * t : 2 * t + 80] for t in range(4)])
    found = resolved(frames, dust=dust)
    assert found.degradation.noise_std == 0
    assert found.estimates[0].confidence == "low"
    assert any("no noise is taken away" in remark for remark in found.remarks)


@pytest.mark.parametrize("height", [24, 96])
def test_of_noise_that_is_sure_all_is_told(height):
    smooth = cv2.resize(gravel(6, 8), (128, height), interpolation=cv2.INTER_CUBIC)
    noise = 10 * np.random.default_rng(0).standard_normal((4, height, 128, 3))
    found = resolved(np.rint(smooth + noise).clip(0, 255).astype(np.uint8))
    told, confidence = found.degradation.noise_std / LEVEL, found.estimates[0].confidence
    if height < 32:  # too small to be looked at: a little less, and said to be unsure
        assert confidence == "low"
        assert 5 < told < 11
    else:
        assert confidence == "high"
        assert told == pytest.approx(10, rel=0.1)
    assert not found.remarks


def test_what_is_crisper_than_an_average_is_not_enlarged_all_the_way():
    """Fur that came through a cubic without a filter was sharpened twice, by 0.4 dB for the worse."""
    fur = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 1), np.uint8).repeat(3, -1)
    fur[:, :, :64] = 128
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.2) for frame in fur])
    sharp = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.5) for frame in fur])

    def follow(frames, *tasks, is_lossy=True):
        options = TaskOptions(tasks=tasks, scale=2 if SR in tasks else None)
        return resolve(options, sample=Sample(frames), is_lossy=is_lossy).follow

    assert follow(sharp, SR) == 0.5
    assert follow(soft, SR) == follow(sharp, DENOISE) == follow(sharp, SR, is_lossy=False) == 1


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
def test_the_benchmark_of_a_task_calls_for_that_task(task):
    shape = ClipShape(num_frames=1, height=8, width=8)
    degradation = parse_degradation(task.benchmark_spec, shape=shape)
    assert tasks_in(degradation.operator.traits) == (task,)


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.own_option], ids=str)
def test_an_option_without_its_task_is_refused(task, tmp_path):
    value = {"blur_sigma": 2.0, "scale": 2, "mask": tmp_path / "mask.png"}[task.own_option]
    others = tuple(other for other in TASKS.values() if other is not task)
    options = TaskOptions(tasks=others, **{task.own_option: value})
    with pytest.raises(UsageError, match=f"no effect without `--task {task}`"):
        resolve(options, sample=SAMPLE, is_lossy=False)


def test_a_task_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(UsageError, match="no task called `denose`") as caught:
        parse_tasks(["denose"])
    assert "did you mean `denoise`" in caught.value.hint


def test_a_note_beside_the_video_counts_unless_the_user_knows_better(tmp_path):
    video = tmp_path / "y.mkv"
    note = tmp_path / "y.mkv.operator.json"
    note.write_text('{"format": "instantvir-operator-1", "operator": "blur:sigma=3+noise:std=5"}')
    silent = TaskOptions(tasks=(DENOISE,))
    assert not needs_first_frames(str(video), silent, is_lossy=True)
    resolved = resolve_video(str(video), silent, sample=None, is_lossy=True)
    assert resolved.note == note
    assert resolved.is_operator_known
    assert resolved.degradation.is_lossy
    assert resolved.degradation.spec == "blur:sigma=3+noise:std=5"
    told = TaskOptions(tasks=(DENOISE,), noise_levels=2)
    assert resolve_video(str(video), told, sample=None, is_lossy=False).note is None


def test_beside_holes_noise_is_read_off_where_there_is_none(tmp_path):
    """`--task denoise --task inpaint --mask` took no noise away, and said nothing."""
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.uniform(40, 210, (96, 128, 3)), (0, 0), 6)
    noisy = (smooth + rng.normal(0, 8, (4, 96, 128, 3))).clip(0, 255).astype(np.uint8)

    def found(known, *tasks):
        path = tmp_path / "mask.png"
        cv2.imwrite(str(path), (255 * known).astype(np.uint8))
        frames = np.where(known[..., None], noisy, 0).astype(np.uint8)
        options = TaskOptions(tasks=tasks, mask=path)
        assert needs_sample(options, is_lossy=False) == (DENOISE in tasks)
        return resolve(options, sample=Sample(frames), is_lossy=False)

    logo = np.ones((96, 128), bool)
    logo[:20, 90:] = False
    both = found(logo, INPAINT, DENOISE)
    assert both.degradation.noise_std / LEVEL == pytest.approx(8, rel=0.15)
    assert both.estimates
    assert not both.remarks
    alone = found(logo, INPAINT)
    assert alone.degradation.noise_std == 0
    assert "none is changed, noise and all" in alone.remarks[0]
    scattered = found(rng.random((96, 128)) < 0.5, INPAINT, DENOISE)
    assert scattered.degradation.noise_std == 0
    assert "say it with `--noise`" in scattered.remarks[0]


@pytest.mark.parametrize("is_lossy", [False, True])
@pytest.mark.parametrize("tasks", [(INPAINT,), (DEBLUR, INPAINT)], ids=["alone", "and a blur"])
def test_that_pixels_stay_is_said_only_where_they_do(tmp_path, tasks, is_lossy):
    """It was said behind codecs, too, and of blurs, where every pixel is changed."""
    cv2.imwrite(str(tmp_path / "mask.png"), np.full((48, 64), 255, np.uint8))
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    options = TaskOptions(
        tasks=tasks, mask=tmp_path / "mask.png", blur_sigma=(2 if len(tasks) > 1 else None)
    )
    said = " ".join(resolve(options, sample=Sample(frames), is_lossy=is_lossy).remarks)
    assert ("none is changed" in said) == (tasks == (INPAINT,) and not is_lossy)
    assert ("what the codec added is taken away" in said) == (tasks == (INPAINT,) and is_lossy)


def test_beside_holes_noise_that_nobody_sees_is_none(tmp_path):
    known = np.ones((96, 128), np.uint8)
    known[:20, 90:] = 0
    cv2.imwrite(str(tmp_path / "mask.png"), 255 * known)
    ramp = np.linspace(40, 200, 128)[None, None, :, None].repeat(96, 1).repeat(3, 3).repeat(4, 0)
    options = TaskOptions(tasks=(INPAINT, DENOISE), mask=tmp_path / "mask.png")
    resolved = resolve(options, sample=Sample(ramp.astype(np.uint8)), is_lossy=False)
    assert resolved.degradation.noise_std == 0
    assert "no noise is taken away: none is sure" in resolved.remarks[0]


def test_the_largest_part_without_holes_is_found():
    known = torch.ones(1, 1, 100, 130)
    known[..., 40, 20] = known[..., 50, 100] = 0
    rows, columns = largest_known_part(known)
    assert (rows, columns) == (slice(0, 96), slice(32, 96))
    assert largest_known_part(torch.zeros(1, 1, 32, 32)) == (slice(0, 0), slice(0, 0))
