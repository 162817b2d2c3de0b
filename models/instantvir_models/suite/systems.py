"""Who takes part: every system with its paper, its prior, and what is done otherwise than there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instantvir_models.checkpoints.load import EMBEDDED, load_student
from instantvir_models.checkpoints.prior import SHIPPED_PRIOR, load_prior
from instantvir_models.checkpoints.tensors import sha256_of
from instantvir_models.errors import CheckpointError, UsageError
from instantvir_models.operators.measurement import Degradation
from instantvir_models.priors.flow import FlowPrior, ImagePrior
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.solvers.base import Solver
from instantvir_models.solvers.iterative.diffir2vr import DiffIR2VR
from instantvir_models.solvers.iterative.one_step import OneEvaluation
from instantvir_models.solvers.iterative.red_diff import RedDiff
from instantvir_models.solvers.iterative.systems import (
    ddnm,
    diffpir,
    dps,
    flowdps,
    lvtino,
    pigdm,
    svi,
    vision_xl,
)
from instantvir_models.solvers.registry import METHODS, named_solver
from instantvir_models.suite.counting import CountedPrior
from instantvir_models.suite.results import SuiteSolver

STUDENT = "instantvir"
"""Name of the student's row."""

ONE_PASS, ITERATIVE, CLASSICAL, PEER = "one pass", "iterative", "classical", "peer"

STARTS_GREY = (
    "where there is more noise than this prior takes (10 of its range), a step is done with mid-grey "
    "as the prediction and no evaluation"
)
TRUE_ADJOINT = "A^T is the adjoint; the released code has another matrix in its place"
DAMPED = (
    "where the measurement has noise, conjugate gradients are damped by it over the prior's error; the "
    "paper has no noise"
)


@dataclass(frozen=True)
class Made:
    """A solver for one degradation, and the prior that it asks."""

    solver: Solver[Any]
    counted: CountedPrior | None = None


@dataclass(frozen=True)
class System:
    """Somebody who restores inside this program."""

    about: SuiteSolver
    make: Callable[[Degradation], Made]
    cost: float
    """Network evaluations of a frame, about: cheap ones go first."""
    evaluations_per_frame: float | None = None
    """Where it is known beforehand and no prior counts it."""


@dataclass(frozen=True)
class Priors:
    """A video prior, and the same one looking at single frames."""

    video: FlowPrior
    image: ImagePrior
    digest: str

    def named(self, kind: str) -> str:
        """How tables name it."""
        return f"{kind} prior {self.digest[:12]}"


def open_priors(path: Path | None) -> Priors:
    """The prior in `path`, by default the one in the package.

    Raises:
        CheckpointError: if there is none.
    """
    found = path or SHIPPED_PRIOR
    if not found.is_file():
        raise CheckpointError(
            f"there is no prior `{found}`, which the iterative solvers ask",
            hint="`--prior FILE`; `instantvir distill --recipe tiny-teacher` makes one",
        )
    video = load_prior(found)
    return Priors(video, ImagePrior(video, video.errors), sha256_of(found))


def paper_systems(priors: Priors, *, model: str = EMBEDDED) -> tuple[System, ...]:
    """The systems of the paper's table, those that share their loop, and what needs no network."""
    return (*_one_pass(priors, model), *_classical(), *_iterative(priors))


def those_without(systems: Sequence[System], names: Sequence[str]) -> tuple[System, ...]:
    """The systems but those named, as tables write them, in any case.

    Raises:
        UsageError: if one is not there, or is the student, beside whom all are shown.
    """
    there = {system.about.name.casefold(): system for system in systems}
    unknown = [name for name in names if name.casefold() not in there]
    if unknown:
        raise UsageError(
            f"there is no system called `{unknown[0]}`",
            hint=f"there are {', '.join(f'`{system.about.name}`' for system in systems)}",
        )
    left_out = {name.casefold() for name in names}
    if STUDENT in left_out:
        raise UsageError(f"all are shown beside `{STUDENT}`, which cannot be left out")
    return tuple(system for name, system in there.items() if name not in left_out)


def _one_pass(priors: Priors, model: str) -> tuple[System, ...]:
    loaded = load_student(model)
    student = SuiteSolver(
        name=STUDENT,
        about=f"the student `{model}`, one causal pass",
        family=ONE_PASS,
        prior=f"student {loaded.sha256[:12]}",
        settings=f"blocks of {loaded.student.frames_per_block} frames",
    )
    teacher = SuiteSolver(
        name="teacher, one evaluation",
        about="the video prior asked once, and a closed-form step: what distillation has to beat",
        family=ONE_PASS,
        prior=priors.named("video"),
    )
    return (
        System(student, lambda _: Made(Amortised(loaded.student)), 1, evaluations_per_frame=1),
        System(teacher, lambda _: _asking(priors.video, _one_evaluation), 1),
    )


def _one_evaluation(prior: CountedPrior) -> Solver[Any]:
    return OneEvaluation(prior=prior)


CLASSICAL_NAMES = {
    "initial estimate": "map",
    "bicubic": "bicubic",
    "Lanczos": "lanczos",
    "bicubic, consistent": "bicubic_consistent",
    "Wiener": "wiener",
    "Richardson-Lucy": "richardson_lucy",
    "non-local means": "nlmeans",
    "non-local means, 5 frames": "nlmeans_over_time",
    "Telea": "telea",
    "biharmonic": "biharmonic",
}


def _classical() -> tuple[System, ...]:
    return tuple(_classical_system(shown, name) for shown, name in CLASSICAL_NAMES.items())


def _classical_system(shown: str, name: str) -> System:
    about = SuiteSolver(
        name=shown, about=METHODS[name].about, family=CLASSICAL, settings=f"--solver {name}"
    )
    return System(about, lambda _: Made(named_solver(name)), 0, evaluations_per_frame=0)


def _iterative(priors: Priors) -> tuple[System, ...]:
    video, image = priors.video, priors.image
    of_video, of_image = priors.named("video"), priors.named("image")
    grey = (STARTS_GREY,)
    return (
        System(
            SuiteSolver(
                name="VISION-XL",
                about="the first frame inverted, 8 steps of an image prior, conjugate gradients",
                family=ITERATIVE, prior=of_image, source="Kwon and Ye, ICCV 2025, arXiv 2412.00156",
                settings="8 of 25 steps, 10 CG steps, eta 0.2, low pass",
                deviations=(
                    "as released: the frames before the last correction come out",
                    "no second pass for guidance: with empty prompts it changes nothing",
                    TRUE_ADJOINT, DAMPED,
                ),
            ),
            lambda _: _asking(image, vision_xl), 8 + 7 / 5,
        ),
        System(
            SuiteSolver(
                name="SVI",
                about="an image prior on all frames with one noise, conjugate gradients over the clip",
                family=ITERATIVE, prior=of_image, source="Kwon and Ye, ICLR 2025, arXiv 2409.02574",
                settings="20 steps, 5 CG steps, eta 0.15",
                deviations=(*grey, DAMPED, "no evaluation at time 0 after the last step"),
            ),
            lambda _: _asking(image, svi), 14,
        ),
        System(
            SuiteSolver(
                name="LVTINO", about="a video prior sampled at five noises, a closed-form step after each",
                family=ITERATIVE, prior=of_video,
                source="Spagnoletti, Almansa and Pereyra, arXiv 2510.01339",
                settings="5 levels, start of weight 200",
                deviations=(
                    "four steps of the probability flow; the original asks a consistency model once",
                    "no image prior between",
                    "the data weigh as much as the prior's squared error over that of the noise; the "
                    "original has weights that were searched for each task",
                    "as released: the frames before the last step come out",
                ),
            ),
            lambda _: _asking(video, lvtino), 20,
        ),
        System(
            SuiteSolver(
                name="FlowDPS", about="steps down the norm of what is missed, faded out as noise falls",
                family=ITERATIVE, prior=of_image, source="Kim, Kim and Ye, ICCV 2025, arXiv 2503.08136",
                settings="28 steps, shift 4, 3 steps of 15",
                deviations=(
                    "the step grows with the root of the number of values, so that it is the same as for "
                    "its latents",
                    "no guidance by a prompt: this prior reads none", *grey,
                ),
            ),
            lambda _: _asking(image, flowdps), 20,
        ),
        System(
            SuiteSolver(
                name="DiffIR2VR-Zero",
                about="frames restored by an image prior, steadied along the optical flow",
                family=ITERATIVE, prior=of_image, source="Yeh et al., arXiv 2407.01519",
                settings="50 steps, estimates warped in the first 5, batches of 10 frames",
                deviations=(
                    "the condition is the initial estimate, taken for the video with white errors; "
                    "the original has a restoring network and a control branch",
                    "flow by DIS on the first stage's frames; the original has GMFlow",
                    "no token merging: this prior has no attention",
                    "no guidance against a negative prompt",
                ),
            ),
            lambda _: _asking(image, lambda prior: DiffIR2VR(prior=prior)), 50,
        ),
        System(
            SuiteSolver(
                name="RED-diff", about="one video, by gradient descent on data and prior",
                family=ITERATIVE, prior=of_video,
                source="Mardani et al., ICLR 2024, arXiv 2305.04391",
                settings="100 steps of Adam, rate 0.1, weight 0.25",
                deviations=("begins at the initial estimate, not at A_dagger y, which raises noise", *grey),
            ),
            lambda _: _asking(video, lambda prior: RedDiff(prior=prior)), 67,
        ),
        System(
            SuiteSolver(
                name="DDNM", about="projection onto A x = y at every step", family=ITERATIVE,
                prior=of_video, source="Wang et al., ICLR 2023, arXiv 2212.00490",
                settings="100 steps, eta 0.85",
                deviations=(
                    "with noise the projection is weighed for each coefficient as by a Gaussian, and "
                    "the fresh noise stays what it is (DDNM+ cuts both)", *grey,
                ),
            ),
            lambda _: _asking(video, ddnm), 67,
        ),
        System(
            SuiteSolver(
                name="DiffPIR", about="a proximal step towards y at every step", family=ITERATIVE,
                prior=of_video, source="Zhu et al., CVPRW 2023, arXiv 2305.08995",
                settings="100 steps, lambda 1, zeta 0.1, 0.25 or 1 by task",
                deviations=("begins at pure noise", *grey),
            ),
            lambda degradation: _asking(video, lambda prior: diffpir(prior, degradation)), 80,
        ),
        System(
            SuiteSolver(
                name="PiGDM", about="guided by the pseudo-inverse, through the network",
                family=ITERATIVE, prior=of_video, source="Song et al., ICLR 2023",
                settings="100 steps, eta 0",
                deviations=(
                    "as in the paper: the guidance of the released code falls off with 1 + r^2",
                    "a guided flow; its code adds the guidance after a DDIM step", *grey,
                ),
            ),
            lambda _: _asking(video, lambda prior: pigdm(prior, as_released=False)), 180,
        ),
        System(
            SuiteSolver(
                name="DPS", about="guided by the gradient of |y - A x|, through the network",
                family=ITERATIVE, prior=of_image, source="Chung et al., ICLR 2023, arXiv 2209.14687",
                settings="1000 steps, zeta 0.3, 0.5 for masks",
                deviations=(
                    "zeta grows with the root of the number of pixels, so that it is the same step at "
                    "this size as at 256x256", *grey,
                ),
            ),
            lambda degradation: _asking(image, lambda prior: dps(prior, degradation)), 1340,
        ),
    )  # fmt: skip


def _asking(prior: FlowPrior | ImagePrior, make: Callable[[CountedPrior], Solver[Any]]) -> Made:
    counted = CountedPrior(prior)
    return Made(make(counted), counted)
