"""Interlaced video: which field comes first is found in what moves, and each field becomes a frame."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from instantvir_models.errors import UsageError
from instantvir_models.media import open_video
from instantvir_models.media.fields import FieldChoice, find_fields

WIDTH, HEIGHT = 96, 64


def panning(num_frames, step=3):
    """uint8 [T, H, W, 3], grey: a smooth picture moving sideways by `step` pixels a frame."""
    small = np.random.default_rng(3).random((HEIGHT // 8, WIDTH // 8 + 27), dtype=np.float32)
    wide = cv2.resize(small, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    wide = (wide * 200 + 25).clip(0, 255).astype(np.uint8)
    return np.stack(
        [np.repeat(wide[:, step * t : step * t + WIDTH, None], 3, -1) for t in range(num_frames)]
    )


def woven(frames, first):
    """Half as many pictures, the rows of each from two frames."""
    out = frames[0::2].copy()
    rows = slice(1 if first == "top" else 0, None, 2)
    out[:, rows] = frames[1::2, rows]
    return out


def telecined(film):
    """Five pictures of four: A, B, B and C, C and D, D."""
    out = []
    for a, b, c, d in film.reshape(-1, 4, *film.shape[1:]):
        pairs = ((a, a), (b, b), (b, c), (c, d), (d, d))
        for top, bottom in pairs:
            picture = top.copy()
            picture[1::2] = bottom[1::2]
            out.append(picture)
    return np.stack(out)


def written(path, frames, *, rate=25):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        for index, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv444p")
            picture.pts, picture.time_base = index, 1 / Fraction(rate)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def read(path, choice):
    with open_video(path, fields=choice) as reader:
        return list(reader), reader


def psnr(frames, clean):
    got = np.stack([frame.pixels for frame in frames]).astype(float)
    return 10 * np.log10(255**2 / np.square(got - clean).mean())


@pytest.mark.parametrize("step", [1, 3])
def test_the_order_of_the_fields_is_found_in_what_moves(step):
    frames = panning(24, step)
    grey = frames[..., 0]
    assert find_fields(grey).scan == "progressive"
    for first in ("top", "bottom"):
        found = find_fields(woven(frames, first)[..., 0])
        assert (found.scan, found.first) == ("interlaced", first)


@pytest.mark.parametrize("first", ["top", "bottom"])
def test_fields_are_found_where_fine_detail_fits_nothing_well(first):
    """Grass that pans by two of its blades a field fits its own rows as badly as those of the picture
    before; yet one order is better in every picture."""
    grass = cv2.GaussianBlur(
        np.random.default_rng(3).random((HEIGHT, WIDTH + 48), np.float32), (0, 0), 1
    )
    grass = ((grass - grass.mean()) / grass.std() * 40 + 128).clip(0, 255).astype(np.uint8)
    frames = np.stack([grass[:, 2 * t : 2 * t + WIDTH] for t in range(24)])
    assert find_fields(frames).scan == "progressive"
    found = find_fields(woven(frames, first))
    assert (found.scan, found.first) == ("interlaced", first)


@pytest.mark.parametrize("pictures", [1, 2, 12])
def test_where_nothing_moves_nothing_is_claimed(pictures):
    assert find_fields(np.repeat(panning(1), pictures, 0)[..., 0]).scan == "unknown"
    black = np.zeros((pictures, HEIGHT, WIDTH), np.uint8)
    assert find_fields(black).scan == "unknown"


@pytest.mark.parametrize("size", ["160x120", "320x176", "352x288"])
def test_a_test_card_that_is_whole_has_no_fields(size):
    """Its stripes are drawn in pairs of rows, and fit one field of the picture before better."""
    graph = av.filter.Graph()
    source = graph.add("testsrc2", f"size={size}:rate=25")
    sink = graph.add("buffersink")
    source.link_to(sink)
    graph.configure()
    card = [graph.pull().reformat(format="gray").to_ndarray() for _ in range(24)]
    assert find_fields(card).scan == "progressive"


def test_a_page_of_text_that_scrolls_has_no_fields():
    """Strokes of letters lie in certain rows, so one order fits better in each picture."""
    page = np.full((176, 320), 255, np.uint8)
    letters, rng = list("etaoinshrdlu "), np.random.default_rng(2)
    for line in range(13):
        text = "".join(rng.choice(letters, 44))
        where = (20, 20 + 12 * line)
        cv2.putText(page, text, where, cv2.FONT_HERSHEY_COMPLEX_SMALL, 0.45, 10, 1, cv2.LINE_AA)
    assert find_fields([np.roll(page, -2 * t, 0) for t in range(6)]).scan != "interlaced"


def test_noise_is_no_field():
    noise = np.random.default_rng(0).integers(0, 256, (12, HEIGHT, WIDTH), np.uint8)
    assert find_fields(noise).first is None


@pytest.mark.parametrize("first", ["top", "bottom"])
def test_each_field_becomes_a_frame_at_its_own_time(tmp_path, first):
    frames = panning(24)
    path = written(tmp_path / "in.mkv", woven(frames, first))
    got, reader = read(path, FieldChoice())
    assert (reader.fields.first, reader.info.frame_rate, len(got)) == (first, 50, 24)
    assert [round(frame.pts_seconds * 50) for frame in got] == list(range(24))
    assert psnr(got[2:-2], frames[2:-2]) > 40
    wrong, _ = read(path, FieldChoice(fields="bottom" if first == "top" else "top"))
    assert psnr(wrong[2:-2], frames[2:-2]) < 30
    half, reader = read(path, FieldChoice(each_field=False))
    assert (reader.info.frame_rate, len(half)) == (25, 12)
    assert psnr(half[1:-1], frames[2:-2:2]) > 40


def test_where_nothing_moves_at_first_it_looks_further_on(tmp_path):
    frames = panning(200, 1)
    frames[:60] = frames[60]
    path = written(tmp_path / "in.mkv", woven(frames, "bottom"), rate=20)
    _, reader = read(path, FieldChoice())
    assert (reader.fields.scan, reader.fields.first) == ("interlaced", "bottom")


def test_lines_that_move_in_a_tiny_picture_are_no_fields(tmp_path):
    graph = av.filter.Graph()
    source, sink = graph.add("testsrc2", "size=48x64:rate=30"), graph.add("buffersink")
    source.link_to(sink)
    graph.configure()
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(24):
            container.mux(stream.encode(graph.pull().reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    with open_video(tmp_path / "in.mkv", fields=FieldChoice()) as reader:
        assert len(list(reader)) == 24


def test_whole_pictures_stay_as_they_are(tmp_path):
    path = written(tmp_path / "in.mkv", panning(12))
    looked, reader = read(path, FieldChoice())
    assert (reader.fields.scan, reader.info.frame_rate) == ("progressive", 25)
    plain, _ = read(path, None)
    for one, other in zip(looked, plain, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert (one.pts, one.time_base) == (other.pts, other.time_base)


def test_film_comes_back_from_a_telecine(tmp_path):
    film = panning(24)
    path = written(tmp_path / "in.mkv", telecined(film), rate=30)
    got, reader = read(path, FieldChoice())
    assert (reader.fields.scan, reader.info.frame_rate) == ("telecined", 24)
    assert abs(len(got) - 24) <= 1
    assert psnr(got[4:20], film[4:20]) > 40


def test_a_name_that_is_no_order_of_fields_is_refused():
    with pytest.raises(UsageError, match="`--fields` is `upper`"):
        FieldChoice(fields="upper")
