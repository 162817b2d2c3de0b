"""`instantvir benchmark --suite`: every system on the same clips, measurements and prior, as tables and files."""

import json
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import cv2
import torch
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from instantvir_cli import __version__, console
from instantvir_cli.options import SuiteOptions
from instantvir_models.errors import UsageError
from instantvir_models.outputs.claim import claim, told
from instantvir_models.outputs.rule import refuse
from instantvir_models.report.page import check_page_name, save_page
from instantvir_models.speed.meters import hardware
from instantvir_models.suite.clips import CleanClip, bundled_clips, clips_of
from instantvir_models.suite.page import suite_page
from instantvir_models.suite.peers import Peer
from instantvir_models.suite.published import published
from instantvir_models.suite.real import REAL_TASKS, real_case_of
from instantvir_models.suite.results import Published, Suite, SuiteReceipt, SuiteTask, save_text
from instantvir_models.suite.runner import PAPER_TASKS, MakeCase, SuitePlan, case_of, run_suite
from instantvir_models.suite.systems import open_priors, paper_systems, those_without
from instantvir_models.suite.tables import (
    SHORT_WORDS,
    Mean,
    cells,
    csv_text,
    floor,
    header,
    losses,
    markdown,
    means,
)

SUITES: dict[str, tuple[tuple[SuiteTask, ...], MakeCase, tuple[Published, ...]]] = {
    "paper": (PAPER_TASKS, case_of, published()),
    "real": (REAL_TASKS, real_case_of, ()),
}
"""What is done to clips, how, and what papers say of it."""

SEED = 0


def run_suite_command(
    asked: SuiteOptions,
    model: str,
    threads: int,
    *,
    report: Path | None,
    may_overwrite: bool,
    as_json: bool,
) -> None:
    """Do what is missing of the suite, write its tables, and print them."""
    if asked.suite not in SUITES:
        raise UsageError(
            f"there is no suite called `{asked.suite}`", hint=f"there are {' and '.join(SUITES)}"
        )
    if report is not None:
        check_page_name(report)
        refuse(report, may_replace=may_overwrite)
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    tasks, make_case, figures = SUITES[asked.suite]
    plan = SuitePlan(
        name=asked.suite,
        clips=_clips(asked),
        systems=those_without(
            paper_systems(open_priors(asked.prior), model=model), asked.without or ()
        ),
        peers=tuple(Peer.read(text) for text in asked.peer or ()),
        tasks=tasks,
        make_case=make_case,
        published=figures,
        seed=SEED,
    )
    folder = asked.output or Path("suite")
    with _alone_in(folder):
        suite = run_suite(plan, folder, _receipt(threads), say=console.say)
        write_tables(suite, folder)
        page = suite_page(suite, folder)
        if report is None:  # what is in the folder of a suite is made anew, as its tables are
            save_page(page, folder / "report.html", may_replace=True)
        else:
            save_page(page, report, may_replace=may_overwrite)
    if as_json:
        typer.echo((folder / "results.json").read_text(encoding="utf-8"), nl=False)
    else:
        _print(suite)
        in_folder = "report.html, " if report is None else ""
        console.say(
            f"written to {folder}: {in_folder}results.json, results.csv, results.md, and the films"
        )


def _alone_in(folder: Path) -> AbstractContextManager[object]:
    """Two runs would write each other's rows. What is no folder is refused when the suite begins."""
    if folder.exists() and not folder.is_dir():
        return nullcontext()
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return claim(folder / "suite")


def write_tables(suite: Suite, folder: Path) -> None:
    """`results.{json,csv,md}` beside the suite: all rows in one file, and means for people."""
    save_text(folder / "results.csv", csv_text(suite))
    save_text(folder / "results.md", markdown(suite))
    whole = {"suite": asdict(suite), "means": [asdict(mean) for mean in means(suite)]}
    save_text(folder / "results.json", json.dumps(whole, indent=1) + "\n")


def _clips(asked: SuiteOptions) -> tuple[CleanClip, ...]:
    if asked.clips is None:
        return bundled_clips()
    return clips_of(asked.clips, num_frames=asked.length, crop=asked.crop_size())


def _receipt(threads: int) -> SuiteReceipt:
    machine = hardware()
    return SuiteReceipt(
        command=" ".join(["instantvir", *sys.argv[1:]]),
        instantvir=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        cpu=machine["cpu"],
        cores=machine["cores"],
        threads=threads,
        seed=SEED,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        load_at_start=round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    )


def _print(suite: Suite) -> None:
    """The tables, on standard output: they are the data of this verb."""
    out = Console()

    def say(sentence: str) -> None:
        out.print(sentence, highlight=False, markup=False)

    every = means(suite)
    for task in suite.tasks:
        here = [mean for mean in every if mean.task == task.name]
        out.print(_table(suite, task, [mean for mean in here if mean.clips]))
        for mean in here:
            if not mean.clips and not mean.is_refused:
                say(f"failed: {mean.solver}: {mean.failure}")
        refused = ", ".join(mean.solver for mean in here if mean.is_refused)
        if refused:
            say(f"cannot undo it: {refused}")
        say("ahead of the student: " + " ".join(losses(suite, task.name)) + "\n")
    say(f"{SHORT_WORDS}; all of it is in results.md.")
    if suite.published:
        say(_published(suite))
    for sentence in filter(None, (floor(suite), *suite.missing)):
        say(f"{sentence}.")


def _table(suite: Suite, task: SuiteTask, done: list[Mean]) -> Table:
    title = escape(f"{task.name}: {task.spec}")
    table = Table(title=title, box=SIMPLE_HEAD, padding=0, show_edge=False)
    for index, name in enumerate(header(suite, in_short=True)):
        table.add_column(escape(name), justify="right" if index else "left", no_wrap=True)
    for mean in done:
        table.add_row(*(escape(cell) for cell in cells(suite, mean, in_short=True)))
    return table


def _published(suite: Suite) -> str:
    figures = ", ".join(
        f"{f.system} {'<' if f.is_below else ''}{f.value:g}"
        for f in suite.published
        if f.measure == "frames_per_second"
    )
    return (
        f"The paper's own figures, not measured here (832x480, A100), FPS: {figures}; PSNR, LPIPS and FVD "
        "are in results.md."
    )
