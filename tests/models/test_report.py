"""A page holds all it shows, says no more than it was told, and fits where it is to go."""

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from instantvir_models.errors import UsageError, VideoWriteError
from instantvir_models.report.page import (
    Column,
    Line,
    Lines,
    Page,
    Player,
    Scene,
    Section,
    Table,
    View,
    check_page_name,
    html,
    save_page,
)
from instantvir_models.report.strips import fitted_strips, heat_strip, largest_error, strip


def moving(frames=6, height=48, width=64, noise=0, seed=0):
    """[T, H, W, 3]: a smooth picture that moves, with noise."""
    x = np.arange(width + frames)[None, :, None] * (2 * np.pi / 40)
    y = np.arange(height)[:, None, None] * (2 * np.pi / 30)
    whole = 128 + 60 * np.sin(x + y) + 40 * np.cos(y - 2 * x) * np.array([1, 0.5, -1])
    video = np.stack([whole[:, t : t + width] for t in range(frames)])
    video += np.random.default_rng(seed).normal(0, noise, video.shape)
    return video.clip(0, 255).astype(np.uint8)


def pixels(strip_):
    """The frames that a browser gets to see."""
    data = base64.b64decode(strip_.data_uri.partition(",")[2])
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return picture.reshape(strip_.frames, strip_.height, strip_.width, 3)


def page_of(*items, **more):
    return Page(title="a page", sections=(Section(title="a section", items=items),), **more)


def content(text):
    """What the script of a page is given."""
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_a_strip_shows_the_frames_in_order():
    video = moving()
    shown = pixels(strip(video, 92)).astype(float)
    assert np.abs(shown - video).mean() < 4
    assert np.abs(shown[0] - video[5]).mean() > 10


@pytest.mark.parametrize("budget", [1_000_000, 20_000, 5_000])
def test_strips_fit_and_what_they_gave_up_is_said(budget):
    videos = {"noisy": moving(noise=25), "clean": moving()}
    fitted = fitted_strips(videos, budget_bytes=budget)
    assert sum(len(each.data_uri) for each in fitted.strips.values()) <= budget
    assert {each.frames for each in fitted.strips.values()} == {fitted.frames}
    assert f"quality {fitted.quality}" in fitted.sentence
    shown = pixels(fitted.strips["clean"])
    first = moving()[fitted.first]
    small = cv2.resize(first, shown.shape[2:0:-1], interpolation=cv2.INTER_AREA)
    assert np.abs(shown[0].astype(float) - small).mean() < 8


def test_strips_of_one_page_have_as_many_frames():
    with pytest.raises(ValueError, match=r"got \[2, 3\]"):
        fitted_strips({"a": moving(2), "b": moving(3)}, budget_bytes=1e6)


def test_a_map_of_errors_is_exact_box_by_box():
    error = np.zeros((2, 32, 64))
    error[1, :8, :8] = 10
    shown = pixels(heat_strip(error, most=20, width=8))
    assert shown.shape == (2, 4, 8, 3)
    assert shown[1, 0, 0].tolist() == [128] * 3
    assert shown.sum() == 3 * 128


def test_the_last_colour_is_a_round_number_that_few_errors_exceed():
    assert largest_error([np.full((1, 9, 9), 3.0)]) == 4
    assert largest_error([np.full((1, 9, 9), 300.0)]) == 255
    assert largest_error([]) == 2


def test_a_table_is_there_without_javascript_with_the_best_in_bold():
    columns = (Column(label="solver"), Column(label="PSNR", digits=2, best="high"))
    rows = (("a", 30.0), ("b", 31.234), ("c", None), ("d", float("nan")))
    text = html(page_of(Table(title="t", columns=columns, rows=rows)))
    assert "<b>31.23</b>" in text
    assert "<b>30.00</b>" not in text
    assert text.count('<td class="number" data-value=""></td>') == 2
    assert "Chart.js" not in text  # nothing to draw


def test_words_of_others_stay_words():
    evil = "</script><script>alert(1)</script>"
    line = Line(label=evil, values=(1.0, float("inf")))
    text = html(
        page_of(
            Table(title=evil, columns=(Column(label=evil),), rows=((evil,),)),
            Lines(title=evil, x_label=evil, y_label="", x=("1", "2"), lines=(line,)),
            facts={evil: evil},
            warnings=(evil,),
        )
    )
    assert "<script>alert" not in text
    (item,) = content(text)["items"]
    assert item["lines"][0] == {"label": evil, "values": [1.0, None]}


def test_a_picture_that_two_scenes_share_is_in_the_page_once():
    truth = strip(moving(2), 75)
    scenes = tuple(
        Scene(
            keys={"clip": name}, width=64, height=48, frames_per_second=12, left="truth",
            right="truth", views=(View(name="truth", strip=truth),),
        )
        for name in "ab"
    )  # fmt: skip
    text = html(page_of(Player(title="", scenes=scenes)))
    assert text.count(truth.data_uri) == 1
    assert content(text)["pictures"] == [truth.data_uri]


def test_a_page_may_ask_nobody_for_anything():
    text = html(page_of(Lines(title="", x_label="", y_label="", x=("1",), lines=())))
    assert "default-src 'none'" in text
    assert "sourceMappingURL" not in text
    assert not re.search(r'(src|href)="', text)


def test_a_page_is_whole_or_not_there_and_replaces_nothing_unasked(tmp_path):
    with pytest.raises(VideoWriteError, match="does not exist"):
        save_page(page_of(), tmp_path / "nowhere" / "out.html")
    save_page(page_of(), tmp_path / "out.html")
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]
    with pytest.raises(UsageError, match="exists already"):
        save_page(page_of(), tmp_path / "out.html")
    save_page(page_of(), tmp_path / "out.html", may_replace=True)


def test_a_page_takes_the_place_of_no_video():
    with pytest.raises(UsageError, match=r"`--report` is `clip\.mp4`"):
        check_page_name(Path("clip.mp4"))
    check_page_name(Path("OUT.HTML"))
