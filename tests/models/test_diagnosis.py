"""What is found in a video is near the truth, and where nothing can be known nothing is claimed."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from instantvir_models.diagnosis import diagnose as room
from instantvir_models.diagnosis.blur import doubt_about_blur
from instantvir_models.diagnosis.diagnose import (
    confidence_of,
    diagnose,
    diagnose_samples,
    told_with_codec,
)
from instantvir_models.diagnosis.dust import dust_in
from instantvir_models.diagnosis.error_model import Expected, expected_error, is_white, quadratic
from instantvir_models.diagnosis.remedy import (
    codec_factor,
    detail_to_keep,
    removable_part,
    told_factor,
    told_noise_std,
)
from instantvir_models.diagnosis.sample import Sample
from instantvir_models.diagnosis.traces import moved, traces_of
from instantvir_models.operators.measurement import LEVEL, LOSSY_STD
from instantvir_models.operators.spots import dusty
from instantvir_models.run.resolution import resolve
from instantvir_models.tasks import DENOISE, TaskOptions
from tests.media_clips import write_frames
from tests.models.test_scratches import scratched

PHOTOS = Path(__file__).parents[1] / "data" / "clips"
H264 = ("libx264", "yuv420p")


@pytest.fixture(scope="module")
def clean():
    """[6, 160, 208, 3]: a photo seen by a moving camera."""
    photo = cv2.imread(str(PHOTOS / "flower.png"))[..., ::-1]
    height, width = (
        min(size - 16, most) // 2 * 2 for size, most in zip(photo.shape, (160, 208), strict=False)
    )
    return np.stack([photo[t : t + height, 2 * t : 2 * t + width] for t in range(6)])


def with_noise(clean, levels):
    noise = np.random.default_rng(0).standard_normal(clean.shape)
    return np.rint(clean + levels * noise).clip(0, 255).astype(np.uint8)


def rms(a, b):
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("crf", [20, 30])
@pytest.mark.parametrize("levels", [0, 10])
def test_the_error_of_a_file_is_found_behind_its_codec(clean, tmp_path, crf, levels):
    path = write_frames(tmp_path / "in.mkv", with_noise(clean, levels), *H264, {"crf": str(crf)})
    found = diagnose(path)
    with room.open_video(path, threads=1) as reader:
        truth = rms(np.stack([frame.pixels for frame in reader]), clean)
    error = found.finding("error")
    assert error.low / 1.3 <= truth <= error.high * 1.3
    assert found.is_lossy
    assert found.finding("codec").value > 0


def test_noise_that_no_codec_touched_is_found(clean):
    found = diagnose_samples("in", [Sample(with_noise(clean, 12))], is_lossy=False)
    assert found.finding("error").value == pytest.approx(12, rel=0.35)
    assert found.remedy.degradation.noise_std == pytest.approx(12 * LEVEL, rel=0.35)


@pytest.mark.parametrize("levels", [5, 12])
def test_noise_on_pure_colours_is_found_as_well(levels):
    """Cut off at black and white it looked like less, said with high confidence: 5.6 dB were left."""
    colours = np.array([(191, 191, 191), (191, 191, 0), (0, 191, 0), (191, 0, 0)], np.uint8)
    bars = np.broadcast_to(np.repeat(colours, 64, 0)[None, None], (4, 192, 256, 3)).copy()
    bars[:, 96:144], bars[:, 144:] = (0, 0, 255), 16
    found = expected_error(traces_of(with_noise(bars, levels)))
    assert found.low < levels < found.high
    assert found.value == pytest.approx(levels, rel=0.15)


def test_grain_is_told_from_white_noise(clean):
    noise = np.random.default_rng(0).standard_normal((*clean.shape[:3], 1)).astype(np.float32)
    soft = np.stack([cv2.GaussianBlur(one, (0, 0), 1.2) for one in noise])[..., None]
    grainy = np.rint(clean + 40 * soft).clip(0, 255).astype(np.uint8)
    assert not is_white(traces_of(grainy))
    assert is_white(traces_of(with_noise(clean, 10)))


def rings(height, width, count):
    """A zone plate that grows: finest detail everywhere, of which no flow makes anything."""
    v, u = np.indices((height, width)) - np.array([height, width])[:, None, None] / 2
    phases = 0.3 * np.arange(count)[:, None, None]
    wave = np.cos(np.pi / width * (u**2 + v**2) + phases)
    return np.rint(128 + 100 * wave).astype(np.uint8)[..., None].repeat(3, -1)


def gravel(height, width, seed=0):
    """[height, width, 3]: stones of all greys, each hiding what is behind it."""
    rng = np.random.default_rng(seed)
    large = np.full((4 * height, 4 * width, 3), 128, np.float32)
    for y, x, radius in rng.integers(0, (4 * height, 4 * width, 11), (height * width, 3)):
        grey = rng.uniform(30, 220) + rng.normal(0, 12, 3)
        cv2.circle(large, (int(x), int(y)), 3 + int(radius), grey.tolist(), -1)
    small = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
    return np.rint(small).clip(0, 255).astype(np.uint8)


def test_texture_that_moves_otherwise_than_was_found_is_not_surely_noise():
    """It changes from frame to frame as noise does, but not as much in colour: 16 levels were sure."""
    clean = expected_error(traces_of(rings(48, 64, 5)))
    assert confidence_of(clean) == "low"


@pytest.mark.parametrize("is_grey", [True, False])
def test_white_noise_is_surely_noise_in_grey_videos_as_well(clean, is_grey):
    noise = 10 * np.random.default_rng(0).standard_normal((*clean.shape[:3], 1 if is_grey else 3))
    picture = clean.mean(-1, keepdims=True).repeat(3, -1) if is_grey else clean
    noisy = np.rint(picture + noise).clip(0, 255).astype(np.uint8)
    found = expected_error(traces_of(noisy))
    assert confidence_of(found) == "high"
    assert found.value == pytest.approx(10, rel=0.15)


def test_texture_of_a_frame_that_stands_alone_is_never_taken_away():
    """15 levels of gravel were taken away: with no other frame only colour tells noise from it."""
    clean = gravel(48, 64)[None]
    assert diagnose_samples("in", [Sample(clean)], is_lossy=False).remedy.degradation is None
    noisy = with_noise(np.full_like(clean, 128), 10)
    assert diagnose_samples("in", [Sample(noisy)], is_lossy=False).remedy.degradation is not None


def test_where_every_frame_is_another_picture_nothing_is_sure():
    """A cut between two clean pictures was 20 to 50 levels of noise, with high or medium confidence."""
    photos = [cv2.imread(str(PHOTOS / name))[..., ::-1] for name in ("flower.png", "rooftops.png")]
    cuts = np.stack([cv2.resize(p, (64, 48), interpolation=cv2.INTER_AREA) for p in photos])
    found = diagnose_samples("in", [Sample(cuts)], is_lossy=False)
    assert found.finding("error").confidence == "low"
    assert found.remedy.degradation is None


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (16, 200), (64, 64)])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_where_nothing_can_be_seen_nothing_is_claimed_or_done(shape, count, value):
    frames = np.full((count, *shape, 3), value, np.uint8)
    found = diagnose_samples("in", [Sample(frames)], is_lossy=True)
    assert found.findings == ()
    assert found.remedy.degradation is None
    assert found.command is None
    assert any("too little can be seen" in sentence for sentence in found.sentences)
    assert found.picture().dtype == np.uint8


def test_a_test_card_is_left_alone(tmp_path):
    card = np.zeros((128, 192, 3), np.uint8)
    for index in range(8):
        colour = [255 * (index >> bit & 1) * 3 // 4 for bit in range(3)]
        card[:, 24 * index : 24 * (index + 1)] = colour
    for frames in ([card], [card] * 4):
        for codec in (("ffv1", "bgr0"), H264):
            found = diagnose(write_frames(tmp_path / "card.mkv", frames, *codec))
            assert found.remedy.degradation is None, found.sentences


def test_a_file_cut_from_two_kinds_is_treated_as_its_cleaner_part(clean):
    samples = [Sample(with_noise(clean, levels)) for levels in (20, 4)]
    both = diagnose_samples("in", samples, is_lossy=False)
    [second] = [diagnose_samples("in", samples[1:], is_lossy=False)]
    assert both.finding("error").value == second.finding("error").value
    assert any("not the same everywhere" in note for note in both.notes)
    partly = [Sample(with_noise(clean, 20)), Sample(clean)]
    left = diagnose_samples("in", partly, is_lossy=False).remedy
    assert left.degradation is None
    assert "nothing is sure to help its cleanest part" in left.sentence


def test_what_is_told_and_what_solvers_add_make_the_error():
    for error in (3.0, 5.0, 20.0):
        told = told_noise_std(error, is_lossy=True) / LEVEL
        assert np.hypot(told, LOSSY_STD / LEVEL) == pytest.approx(error)
        assert told_noise_std(error, is_lossy=False) / LEVEL == pytest.approx(error)
    assert told_noise_std(1.0, is_lossy=True) == 0
    assert told_noise_std(1.0, is_lossy=True, is_inverted=True) > LEVEL  # an inverse amplifies it


def test_a_codec_adds_to_a_noise_that_is_known(clean, tmp_path):
    path = write_frames(tmp_path / "in.mkv", with_noise(clean, 3), *H264, {"crf": "34"})
    with room.open_video(path, threads=1) as reader:
        sample = Sample.of(list(reader))
    assert told_with_codec(3, traces_of(sample.frames, sample.codings)) > 4
    assert told_with_codec(3, traces_of(clean)) == 3
    wanted = TaskOptions(tasks=(DENOISE,), noise_levels=3)
    told = resolve(wanted, sample=sample, is_lossy=True)
    (share,) = told.estimates  # it was called known, and the sum was not said
    assert share.name == "codec noise"
    assert "noise of 3 levels, as told, and what H.264 added make" in told.remarks[0]
    assert f"is told {told.degradation.noise_std / LEVEL:.1f}" in told.remarks[0]
    assert not resolve(wanted, sample=Sample(clean), is_lossy=False).estimates


def test_softness_behind_coarse_steps_is_the_codecs(clean, tmp_path):
    path = write_frames(tmp_path / "in.mkv", clean, *H264, {"crf": "40"})
    with room.open_video(path, threads=1) as reader:
        sample = Sample.of(list(reader))
    assert "coarse" in doubt_about_blur(traces_of(sample.frames, sample.codings))
    assert doubt_about_blur(traces_of(clean)) is None


@pytest.mark.parametrize("kind", ["gaussian", "disc"])
def test_a_blur_behind_a_fine_codec_is_undone_with_noise_told(clean, tmp_path, kind):
    rows, columns = np.indices((13, 13)) - 6
    disc = np.clip(4.5 - np.hypot(rows, columns), 0, 1)
    blurred = [
        cv2.GaussianBlur(one, (0, 0), 3)
        if kind == "gaussian"
        else cv2.filter2D(one, -1, disc / disc.sum())
        for one in clean
    ]
    path = write_frames(tmp_path / "in.mkv", blurred, *H264, {"crf": "14"})
    remedy = diagnose(path).remedy
    if remedy.degradation is not None and not remedy.degradation.operator.is_identity:
        assert remedy.degradation.noise_std > 0.5 * LEVEL


def test_motion_is_followed(clean):
    before, after = clean[0].astype(np.float32), clean[1].astype(np.float32)
    inner = np.s_[8:-8, 8:-8]
    assert rms(moved(before, after)[inner], after[inner]) < 0.3 * rms(before[inner], after[inner])


def test_eight_and_sixteen_bits_leave_the_same_traces(clean):
    eight, sixteen = traces_of(clean), traces_of(clean.astype(np.uint16) * 257)
    assert sixteen.fine == pytest.approx(eight.fine, rel=1e-3)
    assert sixteen.changing_fine == pytest.approx(eight.changing_fine, rel=1e-2)


def test_a_wide_bar_or_strange_traces_are_never_called_high():
    assert confidence_of(Expected(5, 4, 6.5, is_familiar=True)) == "high"
    assert confidence_of(Expected(5, 4, 6.5, is_familiar=True, is_indirect=True)) == "medium"
    assert confidence_of(Expected(5, 2, 12, is_familiar=True)) == "low"
    assert confidence_of(Expected(5, 4.9, 5.1, is_familiar=False)) == "low"


@pytest.mark.parametrize(
    ("codec", "options"),
    [("mpeg2video", {"qmin": "4", "qmax": "4"}), ("mpeg4", {"qmin": "4", "qmax": "4"})],
)
def test_behind_codecs_whose_narrow_bars_missed_too_often_nothing_is_high(
    clean, tmp_path, codec, options
):
    """Of "high" behind MPEG-2, MPEG-4 and VP9 8 to 10 in 100 were wrong."""
    path = write_frames(tmp_path / "in.mkv", with_noise(clean, 6), codec, "yuv420p", options)
    error = diagnose(path).finding("error")
    assert error.high < 1.5 * error.value  # the bar alone would make it high
    assert error.confidence == "medium"


def test_a_quadratic_form_has_every_pair_once():
    assert quadratic(np.array([[2.0, 3.0]])).tolist() == [[1, 2, 3, 4, 6, 9]]


def test_halos_behind_a_codec_are_left_alone(tmp_path):
    photo = cv2.imread(str(PHOTOS / "rooftops.png"))[..., ::-1].astype(np.float32)
    exaggerated = photo + 2.5 * (photo - cv2.GaussianBlur(photo, (0, 0), 1.0))
    sharp, plain = (
        [np.rint(p[t : t + 160, t : t + 128]).clip(0, 255).astype(np.uint8) for t in range(6)]
        for p in (exaggerated, photo)
    )
    found = diagnose(write_frames(tmp_path / "in.mkv", sharp, *H264, {"crf": "26"}))
    assert found.finding("sharpening") is not None
    assert found.remedy.degradation is None
    natural = diagnose_samples("in", [Sample(np.stack(plain))], is_lossy=False)
    assert natural.finding("sharpening") is None


def test_of_lost_detail_little_can_be_taken_away():
    assert removable_part("h264", is_noisy=False) == 1
    assert removable_part("hevc", is_noisy=False) < 1
    assert removable_part("hevc", is_noisy=True) == 1


def test_of_coarse_noise_more_is_told_than_of_white(clean):
    """A solver that takes noise for white sees less of grain than there is: film stayed grainy."""
    white = 12 * np.random.default_rng(0).standard_normal(clean.shape)
    grain = np.stack([cv2.GaussianBlur(one, (0, 0), 1.0) for one in white])
    as_white, as_grain = (
        told_factor(traces_of(np.rint(clean + noise).clip(0, 255).astype(np.uint8)), is_noisy=True)
        for noise in (white, grain * white.std() / grain.std())
    )
    assert as_white == 1
    assert as_grain > 1.3
    weak = np.rint(clean + grain).clip(0, 255).astype(np.uint8)
    still = traces_of(weak[:1])
    assert told_factor(still, is_noisy=True) == 1


@pytest.mark.parametrize("codec_name", ["h264", "mpeg4"])
def test_of_what_a_codec_did_more_is_told_where_it_is_no_noise(clean, codec_name):
    traces = replace(traces_of(clean), is_lossless=False, codec_name=codec_name, changing_fine=0.0)
    usual = replace(traces, edges=13.0)
    assert codec_factor(usual, is_noisy=False) == 1.5
    if codec_name == "h264":
        assert codec_factor(usual, is_noisy=True) == 1
        assert codec_factor(replace(usual, edges=30.0), is_noisy=False) == 1
    else:
        assert codec_factor(replace(usual, changing_fine=2.0), is_noisy=True) == 1
        assert codec_factor(replace(usual, edges=6.0), is_noisy=False) == 1
    assert codec_factor(replace(usual, is_lossless=True, codec_name=None), is_noisy=True) == 1


def test_drawn_pictures_and_grids_keep_contrast_even_where_noise_is(clean):
    traces = replace(traces_of(clean), is_lossless=False, codec_name="h264", edges=36)
    assert detail_to_keep(traces, is_noisy=False) == 1
    blocky = replace(traces, codec_name="mjpeg", blockiness=2.9, changing_fine=0.7)
    assert 0 < detail_to_keep(blocky, is_noisy=True) < 0.8
    assert detail_to_keep(replace(blocky, blockiness=1.2, changing_fine=2.0), is_noisy=True) == 0


@pytest.mark.parametrize("codec", [H264, ("mpeg2video", "yuv420p")])
def test_where_a_codec_alone_was_at_work_faint_texture_stays_where_noise_is_it_goes(
    tmp_path, codec
):
    """Grass behind H.264 became smooth: nearer to the truth, and worse to look at."""
    photo = cv2.imread(str(PHOTOS / "rooftops.png"))[..., ::-1]
    clean = np.stack([photo[t : t + 160, t : t + 128] for t in range(6)])
    options = {"crf": "30"} if codec is H264 else {"qmin": "12", "qmax": "12"}
    noisy, plain = (
        diagnose(
            write_frames(tmp_path / f"{levels}.mkv", with_noise(clean, levels), *codec, options)
        )
        for levels in (25, 0)
    )
    assert noisy.remedy.degradation is not None
    assert plain.remedy.degradation is not None
    assert noisy.remedy.keep_detail == 0
    assert plain.remedy.keep_detail >= 0.9
    assert f"--keep-detail {plain.remedy.keep_detail:g}" in plain.command
    assert "faint texture" in plain.remedy.sentence


@pytest.mark.parametrize(("crf", "is_mended"), [("23", False), ("34", True)])
def test_behind_fine_steps_of_a_codec_that_filters_its_blocks_nothing_is_done(
    tmp_path, crf, is_mended
):
    """What looks like its damage there can be an exaggerated edge: such files lost up to 0.08 dB."""
    photo = cv2.imread(str(PHOTOS / "rooftops.png"))[..., ::-1]
    frames = np.stack([photo[t : t + 160, t : t + 128] for t in range(6)])
    remedy = diagnose(write_frames(tmp_path / "in.mkv", frames, *H264, {"crf": crf})).remedy
    assert (remedy.degradation is not None) == is_mended


def test_dust_is_found_where_all_places_show_some(clean):
    large = np.stack([cv2.resize(one, None, fx=1.5, fy=1.5) for one in clean])
    dirty = dusty(large, np.random.default_rng(2), spots_per_frame=8).frames
    found = diagnose_samples("in", [Sample(dirty)], is_lossy=False)
    assert found.finding("dust") is not None
    assert "dust" in found.remedy.degradation.spec
    assert "fill dust" in found.remedy.sentence
    for samples in ([Sample(large)], [Sample(dirty), Sample(large)], [Sample(dirty[:1])]):
        assert diagnose_samples("in", samples, is_lossy=False).finding("dust") is None


def test_scratches_are_found_where_all_places_show_some(clean):
    film = scratched(clean, 70, of_frames=[1, 3])[0]
    found = diagnose_samples("in", [Sample(film)], is_lossy=False)
    assert found.finding("dust") is not None
    assert "scratches from top to bottom" in found.finding("dust").sentence
    assert "dust" in found.remedy.degradation.spec
    once = scratched(clean, 70, of_frames=[1])[0]
    for samples in ([Sample(clean)], [Sample(film), Sample(clean)], [Sample(once)]):
        assert diagnose_samples("in", samples, is_lossy=False).finding("dust") is None


def test_what_moves_fast_in_one_place_is_no_dust():
    """The wings of a bee: spots, but always beside those of the frame before."""
    rng = np.random.default_rng(0)
    still = cv2.resize(rng.integers(60, 160, (24, 32, 3), np.uint8), (256, 192))
    frames = np.stack([still] * 6)
    for t, frame in enumerate(frames):
        for x, y in rng.integers(0, 30, (4, 2)):
            cv2.circle(frame, (100 + int(x), 80 + int(y)), 3, (250 - t,) * 3, -1)
    assert not dust_in(frames).is_dust
