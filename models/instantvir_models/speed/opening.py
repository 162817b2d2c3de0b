"""What a plan restores with."""

from dataclasses import replace

from instantvir_models.errors import UsageError
from instantvir_models.run.opening import OpenedSolver, open_chosen
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.speed.plan import SpeedPlan
from instantvir_models.students.wan.student import WanStudent


def open_planned(plan: SpeedPlan) -> OpenedSolver:
    """The solver of a plan, for its device.

    Raises:
        UsageError, CheckpointError: as `open_chosen`, or if it has no window to change.
    """
    opened = open_chosen(
        model=plan.model,
        solver=plan.solver,
        device=plan.device,
        prompt=plan.prompt,
        dtype=plan.torch_dtype,
    )
    return opened if plan.window is None else _with_window(opened, plan.window)


def _with_window(opened: OpenedSolver, window_latents: int) -> OpenedSolver:
    student = None if opened.loaded is None else opened.loaded.student
    if opened.loaded is None or not isinstance(student, WanStudent):
        raise UsageError(
            f"`--window` has no effect: `{opened.name}` attends to no latents",
            hint="it is for full-size students",
        )
    try:
        settings = replace(student.settings, window_latents=window_latents)
    except ValueError as error:
        raise UsageError(f"`--window` is {window_latents}: {error}") from error
    student = replace(student, settings=settings)
    assert isinstance(opened.solver, Amortised)
    return replace(
        opened,
        solver=replace(opened.solver, student=student),
        loaded=replace(opened.loaded, student=student),
    )
