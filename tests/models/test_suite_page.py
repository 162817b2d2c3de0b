"""The page of a suite, from its folder to the browser of a person."""

import base64
import re
import shutil
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from instantvir_models.report.page import html, save_page
from instantvir_models.suite.page import MEASUREMENT, TRUTH, suite_page
from instantvir_models.suite.results import (
    Curve,
    Measure,
    MeasuredClip,
    Published,
    Row,
    Stage,
    Suite,
    SuiteClip,
    SuiteReceipt,
    SuiteSolver,
    SuiteTask,
    save_film,
)
from instantvir_models.suite.systems import STUDENT
from tests.chromium import chromium
from tests.models.test_report import content, moving

OURS = STUDENT
NOISE_OF = {OURS: 3, "SVI": 8}
FRAMES, HEIGHT, WIDTH = 6, 48, 64


def psnr(video, truth):
    error = video.astype(float) - truth
    return tuple(float(-10 * np.log10((e**2).mean() / 255**2)) for e in error)


def made_suite(folder, clips=("dog", "cups"), tasks=("denoise", "sr")):
    """A suite whose solvers only add noise of their own; `DPS` has failed."""
    made_clips, measured, rows = [], [], []
    for seed, name in enumerate(clips):
        truth = moving(FRAMES, HEIGHT, WIDTH)
        made_clips.append(
            SuiteClip(
                name=name, frames=FRAMES, height=HEIGHT, width=WIDTH, frames_per_second=25.0,
                source="made up", truth=save_film(truth, folder, name, "truth"),
            )
        )  # fmt: skip
        for task in tasks:
            y = moving(FRAMES, HEIGHT, WIDTH, noise=25, seed=seed)
            y = y[:, ::2, ::2] if task == "sr" else y
            film = save_film(np.ascontiguousarray(y), folder, name, task, "y")
            measured.append(MeasuredClip(task=task, clip=name, film=film, metrics={"psnr": 20.0}))
            for solver, noise in NOISE_OF.items():
                video = moving(FRAMES, HEIGHT, WIDTH, noise=noise, seed=seed)
                each = psnr(video, truth)
                rows.append(
                    Row(
                        solver=solver, task=task, clip=name, metrics={"psnr": float(np.mean(each))},
                        curves=(Curve(measure="psnr", values=each),), seconds_per_frame=noise / 10,
                        cpu_seconds_per_frame=noise / 10, evaluations_per_frame=float(noise),
                        stages=(Stage(name="prior", seconds_per_frame=0.2), Stage(name="rest", seconds_per_frame=0.1)),
                        film=save_film(video, folder, name, task, solver),
                    )
                )  # fmt: skip
            rows.append(Row(solver="DPS", task=task, clip=name, failure="it ran out of memory"))
    solvers = (
        SuiteSolver(name=OURS, about="one pass", family="one pass"),
        SuiteSolver(name="SVI", about="guidance", family="iterative", deviations=("its adjoint",)),
        SuiteSolver(name="DPS", about="guidance", family="iterative"),
    )
    return Suite(
        name="paper",
        receipt=SuiteReceipt(
            command="instantvir benchmark --suite paper", instantvir="0", python="3", torch="2",
            cpu="x", cores=2, threads=1, seed=0, started="2026-01-01T00:00:00+00:00",
        ),
        measures=(Measure(name="psnr", label="PSNR, dB", is_higher_better=True),),
        clips=tuple(made_clips),
        tasks=tuple(SuiteTask(name=task, about=task, spec="identity+noise:std=25") for task in tasks),
        solvers=solvers,
        measured=tuple(measured),
        rows=tuple(rows),
        published=(Published(system="SVI", task="sr", measure="psnr", value=28.5, source="a paper"),),
        missing=("LPIPS: weights are missing",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("suite")


@pytest.fixture(scope="module")
def text(folder):
    return html(suite_page(made_suite(folder), folder))


def rows_of(text, solver):
    """The cells of each row of a table that begins with `solver`."""
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    cells = [
        [re.sub("<.*?>", "", c) for c in re.findall(r"<td.*?>(.*?)</td>", row)] for row in rows
    ]
    return [row for row in cells if row and row[0] == solver]


def test_means_times_and_how_many_times_slower_are_in_the_tables(text):
    assert rows_of(text, OURS)[0][2:] == ["0.00", "0.3000", "3.0", "1.0", "2"]
    assert rows_of(text, "SVI")[0][3:] == ["0.8000", "8.0", "2.7", "2"]
    assert float(rows_of(text, "SVI")[0][2]) < -5
    assert rows_of(text, MEASUREMENT)[0][1] == "20.00"


def test_what_failed_is_missing_or_a_papers_own_is_said(text):
    assert ["DPS", "dog", "it ran out of memory"] in rows_of(text, "DPS")
    assert "LPIPS: weights are missing" in text
    assert '<td data-value="28.5">28.5</td>' in text.partition("What papers say")[2]
    assert "its adjoint" in text


def test_where_time_goes_is_shown_in_shares(text):
    bars = [item for item in content(text)["items"] if item["kind"] == "Bars"]
    assert [item["title"] for item in bars] == ["denoise", "sr"]
    assert bars[0]["names"] == [OURS, "SVI"]
    assert [part["label"] for part in bars[0]["parts"]] == ["prior", "rest"]
    assert [round(part["values"][0], 3) for part in bars[0]["parts"]] == [66.667, 33.333]


def test_every_restoration_is_a_view_beside_measurement_and_truth(text):
    (player,) = [item for item in content(text)["items"] if item["kind"] == "Player"]
    assert [scene["keys"] for scene in player["scenes"]] == [
        {"clip": clip, "task": task} for clip in ("dog", "cups") for task in ("denoise", "sr")
    ]
    views = player["scenes"][1]["views"]
    assert [view["name"] for view in views] == [MEASUREMENT, OURS, "SVI", TRUTH]
    assert [view["strip"]["width"] for view in views] == [WIDTH // 2, WIDTH, WIDTH, WIDTH]
    assert len(views[1]["curves"][0]["values"]) == views[1]["strip"]["frames"]


def test_a_suite_that_is_not_complete_says_so(folder):
    whole = made_suite(folder)
    page = suite_page(replace(whole, rows=whole.rows[:4]), folder)
    assert "4 of 12 restorations" in page.warnings[0]
    nothing = suite_page(replace(whole, rows=(), measured=()), folder)
    assert html(nothing)


# ---- in a browser -------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory, folder):
    path = folder / "page.html"
    save_page(suite_page(made_suite(folder), folder), path)
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        page.watch()
        yield page, f"file://{path}"


def shown(browser, state=""):
    """The page once it shows the scene that `state` names."""
    page, address = browser
    page.open("about:blank")
    page.open(f"{address}#{state}")
    page.wait("document.documentElement?.dataset.ready && players[0].box.dataset.painted")
    return page


def canvas(page, path):
    """What the player shows, [H, W, 3]."""
    data = page.value("players[0].canvas.toDataURL('image/png').split(',')[1]")
    path.write_bytes(base64.b64decode(data))
    return cv2.imread(str(path))


def painted(page, text):
    page.wait(f"players[0].box.dataset.painted === '{text}'")


@needs_chromium
def test_dragging_the_wipe_changes_pixels_only_between_where_it_was_and_is(browser, tmp_path):
    page = shown(browser, "wipe=25")
    page.show_in("light", 1000, 800)
    before = canvas(page, tmp_path / "a.png")
    page.value("players[0].box.scrollIntoView({block: 'center'})")
    x, y, width, height = page.value(
        "(({x, y, width, height}) => [x, y, width, height])(players[0].box.getBoundingClientRect())"
    )
    middle = y + height / 2
    page.drag((x + width / 4, middle), (x + width * 3 / 4, middle))
    painted(page, f"0 {MEASUREMENT} {OURS} 0 {WIDTH * 3 // 4} false")
    changed = np.flatnonzero((canvas(page, tmp_path / "b.png") != before).any((0, 2)))
    assert changed.min() in (WIDTH // 4, WIDTH // 4 + 1)
    assert changed.max() == WIDTH * 3 // 4
    assert len(changed) > WIDTH // 2 - 4


@needs_chromium
def test_everything_can_be_done_with_the_keyboard(browser):
    page = shown(browser)
    page.value("players[0].box.focus()")
    for key in ("ArrowRight", ".", "x", "e", "l"):
        page.press(key)
    painted(page, f"0 {OURS} {MEASUREMENT} 1 {round(WIDTH * 0.52)} true")
    page.wait("document.querySelectorAll('.loupe figure').length === 3")
    assert page.value("players[0].box.getAttribute('aria-valuenow')") == "52"
    page.press("Home")
    painted(page, f"0 {OURS} {MEASUREMENT} 1 0 true")
    page.press(" ")
    page.wait("players[0].state.frame === 4")
    page.press(" ")
    assert page.value("players[0].timer") is None


@needs_chromium
def test_both_sides_play_in_step_from_one_clock(browser, tmp_path):
    """A frame of the left and the same frame of the right, whichever is shown."""
    one = canvas(shown(browser, f"left={TRUTH}&right={TRUTH}&wipe=50&frame=3"), tmp_path / "a.png")
    truth = moving(FRAMES, HEIGHT, WIDTH)[3][..., ::-1].astype(float)
    beside_the_line = np.r_[0 : WIDTH // 2 - 2, WIDTH // 2 + 2 : WIDTH]
    assert np.abs(one - truth)[:, beside_the_line].mean() < 8


@needs_chromium
def test_choosing_a_task_keeps_the_clip_and_the_solver(browser):
    page = shown(browser, "scene=2&right=SVI")
    page.value(
        "(() => { const s = players[0].selects.task; s.value = 'sr'; s.dispatchEvent(new Event('change')) })()"
    )
    page.wait("players[0].state.scene === 3")
    assert page.value("players[0].state.right") == "SVI"
    assert page.value("players[0].selects.clip.value") == "cups"


@needs_chromium
def test_a_click_on_a_heading_sorts_and_another_turns_round(browser):
    page = shown(browser)
    first = "document.querySelector('tbody').rows[0].cells[0].textContent"
    click = "document.querySelectorAll('thead button')[3].click()"
    page.value(click)
    assert page.value(first) == OURS
    page.value(click)
    assert page.value(first) == "SVI"
    last = "[...document.querySelector('tbody').rows].at(-1).cells[0].textContent"
    assert page.value(last) == MEASUREMENT  # it took no time: what is empty comes last


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_either_colours(browser, scheme, tmp_path):
    page = browser[0]
    page.show_in(scheme, 390, 844, is_phone=True)
    page = shown(browser)
    assert page.value("document.documentElement.scrollWidth") == 390
    page.picture(tmp_path / "phone.png")
    back = cv2.imread(str(tmp_path / "phone.png"))[2, 2]
    assert (back < 60).all() if scheme == "dark" else (back > 200).all()


@needs_chromium
def test_nothing_was_asked_for_and_nothing_went_wrong(browser):
    page = shown(browser)
    time.sleep(0.2)
    assert page.complaints == []
    assert page.requests
    assert all(address.startswith((browser[1], "about:")) for address in page.requests)
