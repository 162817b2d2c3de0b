"""The steps of `card.py`: each gives rows of what was measured, and what the roofline predicts.

Every step runs on the CPU, too, at sizes that take a second (`place_of(stand_in=True)`): the same calls, so
what is wrong with them shows before a card is at hand.
"""

import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import kernels
from instantvir_kernels import reference, tiles
from instantvir_kernels.graphs import CudaRecorder
from instantvir_kernels.tools import roofline, tune
from instantvir_kernels.tools.baseline import read_baseline
from instantvir_models import __version__
from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.wan import WanVAE, WanVaeConfig
from instantvir_models.media import EncoderSettings, Frame, create_video, open_video
from instantvir_models.operators.spec import parse_degradation
from instantvir_models.run.opening import open_student
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.plan import plan_memory
from instantvir_models.students.wan.settings import Footprint, WanSettings
from instantvir_models.students.wan.student import WanStudent
from instantvir_models.students.wan.transformer import WanConfig, WanTransformer

ROOT = Path(__file__).resolve().parents[1]


FULL_SIZE = (480, 832)
"""(height, width) of the frames that the full-size students were made for."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    measured: str
    predicted: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the steps run, and how large what they run is."""

    device: torch.device
    dtype: torch.dtype
    size: tuple[int, int]
    """(height, width) of the full-size students' frames."""
    transformer: WanConfig
    lean: LeanConfig
    wan: WanVaeConfig
    past_blocks: tuple[int, ...]
    measured_blocks: int
    new_recorder: Callable[[], Any] | None
    """Of the steady block; None where nothing can record one."""
    is_card: bool


def place_of(*, stand_in: bool) -> Place:
    """The card that is here, or its stand-in.

    Raises:
        SystemExit: without a card.
    """
    if stand_in:
        return Place(
            device=torch.device("cpu"), dtype=torch.float32, size=(32, 32),
            transformer=WanConfig(
                dim=48, ffn_dim=64, num_heads=2, num_layers=2, text_dim=16, text_len=12, freq_dim=32
            ),
            lean=LeanConfig(
                low_channels=8, high_channels=24, separate_layers=1, fusion_layers=1, ista_steps=1,
                ista_layers=1,
            ),
            wan=WanVaeConfig(base_channels=8), past_blocks=(0, 1), measured_blocks=2,
            new_recorder=_tape_recorder, is_card=False,
        )  # fmt: skip
    if not torch.cuda.is_available():
        sys.exit("there is no NVIDIA card here; `--stand-in` runs the same steps, tiny, on the CPU")
    return Place(
        device=torch.device("cuda"), dtype=torch.bfloat16, size=FULL_SIZE,
        transformer=WanConfig(), lean=LeanConfig(), wan=WanVaeConfig(), past_blocks=(0, 2, 6),
        measured_blocks=4, new_recorder=CudaRecorder, is_card=True,
    )  # fmt: skip


def _tape_recorder() -> Any:
    sys.path.insert(0, str(ROOT))
    from tests.tape import TapeRecorder

    return TapeRecorder()


# what is here


def machine(place: Place) -> Iterator[Row]:
    """Versions, and what the card says of itself."""
    yield Row("instantvir", __version__)
    for name in ("torch", "triton", "av", "numpy"):
        yield Row(name, _version(name))
    yield Row("Python, system", f"{platform.python_version()}, {platform.platform(terse=True)}")
    if not place.is_card:
        yield Row("card", "none: a stand-in on the CPU, whose numbers mean nothing")
        return
    card = torch.cuda.get_device_properties(0)
    yield Row(
        "card",
        f"{card.name}, {card.total_memory / 2**30:.1f} GiB, {card.multi_processor_count} SMs",
    )
    yield Row("compute capability, CUDA", f"{card.major}.{card.minor}, {torch.version.cuda}")
    asked = [
        "nvidia-smi",
        "--query-gpu=driver_version,clocks.max.sm,power.limit",
        "--format=csv,noheader",
    ]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    yield Row("driver, clock, power", said or "nvidia-smi is silent")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def card_tests(place: Place) -> Iterator[Row]:
    """The tests that need a card; without one all of them are skipped."""
    paths = [
        str(ROOT / "tests" / "models" / name)
        for name in ("test_wan_offload.py", "test_operators.py", "test_on_a_card.py")
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip() or done.stderr.strip() or "no word").splitlines()[-1]
    yield Row("pytest -m cuda", last.strip("= "))
    if done.returncode not in (0, 5) or re.search(r"\d+ (failed|error)", last):
        raise RuntimeError(f"tests failed: {last}")


# kernels


def kernel_rows(place: Place) -> Iterator[Row]:
    """Each kernel against its reference, then beside SDPA, FlashAttention and FlexAttention."""
    torch.manual_seed(0)
    wrong = []
    names = (torch.bfloat16, torch.float16) if place.is_card else (torch.float32,)
    timer = kernels.card_seconds if place.is_card else kernels.cpu_seconds
    cases = kernels.card_cases if place.is_card else kernels.small_cases
    for dtype in names:
        for case in cases(dtype):
            for line in kernels.measured(case, repeats=10 if place.is_card else 1, timer=timer):
                yield _row_of_kernel(line)
                if line.largest_error is not None and not line.is_correct:
                    wrong.append(f"{line.case}, {line.contender}")
    if wrong:
        raise RuntimeError(f"wrong results: {'; '.join(wrong)}")


def _row_of_kernel(line: kernels.Line) -> Row:
    what = f"{line.case}, {line.contender}, {line.dtype}"
    if line.ms is None:
        return Row(what, line.problem or "")
    rate = "" if line.tflops is None else f", {line.tflops:.1f} TFLOP/s"
    return Row(what, f"{line.ms:.3f} ms, error {line.largest_error:.1e}{rate}")


def tile_rows(place: Place) -> Iterator[Row]:
    """The best tiles for heads of 128, beside those in the table; `tools.tune` keeps them for all heads."""
    jobs, seconds, candidates = _tile_jobs(place)
    for kernel, (job, expected) in jobs.items():
        best = tune.best_tile(
            job, candidates(kernel), expected=expected, seconds=seconds, say=lambda line: None
        )
        if best is None:
            yield Row(kernel, "no tile works")
            continue
        tile, time_taken = best
        yield Row(
            f"{kernel}, heads of 128",
            f"{_tile(tile)}: {1e3 * time_taken:.3f} ms",
            _in_table(place, kernel),
        )


def _tile_jobs(place: Place) -> tuple[Any, Any, Callable[[str], Sequence[tiles.Tile]]]:
    if place.is_card:
        return tune.jobs_of(128), tune.card_seconds, lambda kernel: tune.CANDIDATES[kernel]
    q = torch.randn(1, 8, 2, 16)
    expected = (reference.attention(q, q, q),)
    jobs = {tiles.ATTENTION: (lambda tile: (reference.attention(q, q, q),), expected)}
    return jobs, lambda run: kernels.cpu_seconds(run, 1)[0], lambda _: [tiles.INTERPRETER_TILE]


def _tile(tile: tiles.Tile) -> str:
    return f"{tile.block_q}x{tile.block_k}, {tile.num_warps} warps, {tile.num_stages} stages"


def _in_table(place: Place, kernel: str) -> str:
    if not place.is_card:
        return ""
    architecture = tiles.architecture_of(torch.cuda.get_device_capability())
    return (
        ""
        if architecture is None
        else f"in the table: {_tile(tiles.table()[architecture][kernel][128])}"
    )


# students


def student_rows(kind: str) -> Callable[[Place], Iterator[Row]]:
    """Full-size students of random weights with one autoencoder: FPS by history, with graphs off and on."""

    def rows(place: Place) -> Iterator[Row]:
        networks = _networks(place, kind)
        for past in place.past_blocks:
            for is_recorded in (False, True):
                yield from _rows_of_history(place, kind, networks, past, is_recorded=is_recorded)

    return rows


def _networks(place: Place, kind: str) -> tuple[WanTransformer, LeanVAE | WanVAE]:
    """Random weights that keep signals of order one, made where they are used."""
    torch.manual_seed(0)
    with torch.device(place.device):
        transformer = WanTransformer(place.transformer)
        autoencoder = LeanVAE(place.lean) if kind == "lean" else WanVAE(place.wan)
    for network in (transformer, autoencoder):
        network.to(place.dtype).eval().requires_grad_(False)
    return transformer, autoencoder


def _rows_of_history(
    place: Place, kind: str, networks: Any, past: int, *, is_recorded: bool
) -> Iterator[Row]:
    settings = WanSettings(window_latents=3 * (past + 1))
    config = place.transformer
    text = TextRows(torch.zeros(1, 0, config.text_dim, device=place.device), config.text_len)
    student = WanStudent(
        *networks, settings, text, new_recorder=place.new_recorder if is_recorded else None
    )
    name = f"{kind}, {past} past blocks, graphs {'on' if is_recorded else 'off'}"
    run = _timed_stream(student, place, warm_up=(3 if is_recorded else 1) * (past + 1) + 1)
    height, width = place.size
    plan = plan_memory(
        place.transformer, networks[1].config, settings,
        Footprint(settings.window_latents, settings.latents_per_block),
        height=height, width=width, dtype=place.dtype, text_rows=1,
    )  # fmt: skip
    yield Row(f"{name}: FPS", f"{run.fps:.2f}", _predicted_fps(place, kind, past))
    yield Row(f"{name}: ms a frame by stage", run.stages)
    yield Row(f"{name}: first frame", f"{run.first_frame_seconds:.2f} s")
    yield Row(f"{name}: most memory", run.memory, f"{plan.total / 1e9:.2f} GB planned")


@dataclass(frozen=True)
class StreamTimes:
    """What one stream took, once it was steady."""

    fps: float
    first_frame_seconds: float
    stages: str
    memory: str


def _timed_stream(student: Any, place: Place, *, warm_up: int) -> StreamTimes:
    """A session over moving noise: `warm_up` blocks, then those that are measured."""
    height, width = place.size
    degradation = parse_degradation("blur:sigma=2+noise:std=5")
    session = Session(
        Amortised(student, place.dtype), degradation, height=height, width=width,
        device=place.device, tile_pixels=0,
    )  # fmt: skip
    if place.is_card:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    session.push(_noise(student.first_block_frames, place.size))
    first = time.perf_counter() - started
    for _ in range(warm_up):
        session.push(_noise(student.frames_per_block, place.size))
    before = session.report
    block = _noise(student.frames_per_block, place.size)
    started = time.perf_counter()
    for _ in range(place.measured_blocks):
        session.push(block)
    seconds = time.perf_counter() - started
    after, frames = session.report, place.measured_blocks * student.frames_per_block
    stages = ", ".join(
        f"{name} {1e3 * (getattr(after, field) - getattr(before, field)) / frames:.1f}"
        for name, field in (
            ("convert", "convert_seconds"), ("estimate", "estimate_seconds"),
            ("student", "student_seconds"), ("consistency", "consistency_seconds"),
        )
    )  # fmt: skip
    peak = f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB" if place.is_card else "not counted"
    return StreamTimes(frames / seconds, first, stages, peak)


def _noise(frames: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, *size, 3), np.uint8)


def _predicted_fps(place: Place, kind: str, past: int) -> str:
    """The roofline of the card that is here, or of those that it knows; at full size, LeanVAE only."""
    if kind != "lean":
        return "no model of the Wan autoencoder"
    height, width = FULL_SIZE
    tokens = 3 * (width // 16) * (height // 16)
    costs = [
        *roofline.student_costs(roofline.StudentShape(), tokens=tokens, past_blocks=past),
        *roofline.autoencoder_costs(roofline.AutoencoderShape(), tokens=4 * tokens),
    ]
    name = torch.cuda.get_device_name() if place.is_card else ""
    known = [card for card in roofline.CARDS if card.name.split()[0] in name] or roofline.CARDS
    return "; ".join(f"{card.name} {_limits(card, costs, tokens)}" for card in known)


def _limits(card: roofline.Card, costs: list[roofline.Cost], tokens: int) -> str:
    shape = roofline.StudentShape()
    tile = tiles.table()[card.capability][tiles.ATTENTION][shape.head_dim]
    report = read_baseline().reports[f"sm_{card.capability}/attention-d128-bf16"]
    busy = roofline.tile_utilisation(card, tile, report, queries=tokens, heads=shape.heads)
    fps = [
        12 / roofline.Prediction.of(costs, card, sustained=share, attention_utilisation=busy).fused
        for share in (1.0, 0.6)
    ]
    size = f"{FULL_SIZE[1]}x{FULL_SIZE[0]}"
    return f"{fps[0]:.0f} FPS at its peak, {fps[1]:.0f} at 60 % of it ({size}, networks alone)"


def embedded_rows(place: Place) -> Iterator[Row]:
    """The student in the package, task by task."""
    opened = open_student(device=place.device.type)
    size = place.size if place.is_card else (48, 64)
    for task, spec in (("denoise", "identity+noise:std=10"), ("deblur", "blur:sigma=3+noise:std=2"),
                       ("inpaint", "mask:keep=0.5,seed=0"), ("sr x2", "down:factor=2")):  # fmt: skip
        try:
            yield _embedded_row(opened, task, spec, size, place)
        except Exception as error:  # one task must not hide the others
            yield Row(f"embedded, {task}", f"{type(error).__name__}: {error}"[:200])


def _embedded_row(opened: Any, task: str, spec: str, size: tuple[int, int], place: Place) -> Row:
    from instantvir_models.operators.spec import ClipShape

    height, width = size
    shape = ClipShape(num_frames=1, height=height, width=width)
    degradation = parse_degradation(spec, shape=shape)
    small = degradation.operator.A(torch.zeros(1, 1, 3, height, width)).shape[-2:]
    session = opened.new_session(degradation, height=small[0], width=small[1]).session
    pixels = _noise(3 * place.measured_blocks, (int(small[0]), int(small[1])))
    session.push(pixels[:3])
    started = time.perf_counter()
    session.push(pixels)
    seconds = time.perf_counter() - started
    return Row(f"embedded, {task}, {width}x{height}: FPS", f"{len(pixels) / seconds:.2f}")


# video in and out


def codec_rows(place: Place) -> Iterator[Row]:
    """NVENC through the project's own writer, NVDEC beside FFmpeg's software decoder."""
    height, width = place.size if place.is_card else (48, 64)
    frames = 96 if place.is_card else 6
    pixels = _noise(frames, (height, width)) // 8 + 100
    encoders = ("h264_nvenc", "hevc_nvenc", "h264") if place.is_card else ("h264",)
    with tempfile.TemporaryDirectory() as folder:
        for encoder in encoders:
            path = Path(folder) / f"{encoder}.mp4"
            try:
                seconds = _encoded(path, pixels, encoder)
                yield Row(f"encode, {encoder}: FPS", f"{frames / seconds:.1f}")
            except Exception as error:  # PyAV may be built without it
                yield Row(f"encode, {encoder}", f"{type(error).__name__}: {error}"[:200])
        path = Path(folder) / "h264.mp4"
        for name, decode in (("software", _decoded), ("NVDEC", _decoded_by_card)):
            if name == "NVDEC" and not place.is_card:
                yield Row("decode, NVDEC", "no card")
                continue
            try:
                found, seconds = decode(path)
                yield Row(f"decode, {name}: FPS", f"{found / seconds:.1f}")
            except Exception as error:
                yield Row(f"decode, {name}", f"{type(error).__name__}: {error}"[:200])


def _encoded(path: Path, pixels: np.ndarray, encoder: str) -> float:
    started = time.perf_counter()
    height, width = pixels.shape[1:3]
    with create_video(
        path, width=width, height=height, settings=EncoderSettings(codec=encoder), frame_rate=25
    ) as writer:
        for t, picture in enumerate(pixels):
            writer.write(Frame(picture, t, Fraction(1, 25), 1))
    return time.perf_counter() - started


def _decoded(path: Path) -> tuple[int, float]:
    started = time.perf_counter()
    with open_video(path) as reader:
        return sum(1 for _ in reader), time.perf_counter() - started


def _decoded_by_card(path: Path) -> tuple[int, float]:
    import av
    from av.codec.hwaccel import HWAccel

    started = time.perf_counter()
    card = HWAccel("cuda", allow_software_fallback=False)
    with av.open(str(path), hwaccel=card) as container:
        return sum(1 for _ in container.decode(video=0)), time.perf_counter() - started


# distillation


def distillation_rows(place: Place) -> Iterator[Row]:
    """Steps of the posterior teacher with a Wan-shaped student: seconds a step, memory, loss."""
    from instantvir_distill.levels import NoiseLaw
    from instantvir_distill.methods.base import Example, Networks
    from instantvir_distill.methods.posterior_teacher import PosteriorTeacher
    from instantvir_distill.restorers import SequenceRestorer
    from instantvir_models.operators.blur import GaussianBlur
    from instantvir_models.operators.measurement import Degradation, Measurement
    from instantvir_models.priors.base import ErrorTable
    from instantvir_models.priors.wan import WanPrior

    config = replace(place.transformer, num_layers=min(place.transformer.num_layers, 8))
    small = replace(place, transformer=config, dtype=torch.float32)
    side = 128 if place.is_card else 32
    transformer, autoencoder = _networks(small, "lean")
    teacher_net, teacher_autoencoder = _networks(small, "wan")
    transformer.requires_grad_(True)
    text = TextRows(torch.zeros(1, 0, config.text_dim, device=place.device), config.text_len)
    student = WanStudent(transformer, autoencoder, WanSettings(), text)
    teacher = WanPrior(
        teacher_net, teacher_autoencoder, text, text, ErrorTable((0.1, 1.0), (0.05, 0.3))
    )
    given = Degradation(operator=GaussianBlur(1.0), noise_std=0.1)
    y: Tensor = 0.3 * torch.randn(1, 9, 3, side, side, device=place.device)
    example = Example(Measurement(y, given), slice(0, 9), "deblur")
    networks = Networks(SequenceRestorer(student), _prior=teacher)
    optimiser = torch.optim.AdamW(transformer.parameters(), lr=1e-5)
    # normalised, every gradient has a loss of 0.5; and with one noise, losses can be compared
    method = PosteriorTeacher(levels=NoiseLaw(low=0.1, high=1.0), is_normalised=False)
    losses, seconds = [], []
    for _ in range(3):
        started = time.perf_counter()
        optimiser.zero_grad()
        generator = torch.Generator().manual_seed(0)
        loss = method.loss([example], networks, generator)
        loss.total.backward()
        optimiser.step()
        losses.append(float(loss.total.detach()))
        seconds.append(time.perf_counter() - started)
    if not all(np.isfinite(losses)):
        raise RuntimeError(f"losses are {losses}")
    what = f"{config.num_layers} layers, 9 frames of {side}x{side}"
    yield Row(f"{what}: seconds a step", f"{min(seconds):.2f} (the first {seconds[0]:.2f})")
    yield Row(f"{what}: losses", ", ".join(f"{loss:.6g}" for loss in losses))
    if place.is_card:
        yield Row(f"{what}: most memory", f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB")


@dataclass(frozen=True)
class Step:
    """Something to find out, and how long it may take."""

    name: str
    about: str
    run: Callable[[Place], Iterator[Row]]
    most_seconds: float


STEPS = (
    Step("machine", "versions and the card", machine, 30),
    Step("tests", "the tests that need a card", card_tests, 120),
    Step(
        "kernels", "each kernel against its reference, and beside PyTorch's own", kernel_rows, 120
    ),
    Step("embedded", "the student in the package", embedded_rows, 60),
    Step("students-lean", "full-size students with LeanVAE", student_rows("lean"), 120),
    Step("students-wan", "full-size students with the Wan autoencoder", student_rows("wan"), 150),
    Step("codecs", "NVDEC and NVENC", codec_rows, 40),
    Step("distillation", "a few steps of distillation", distillation_rows, 60),
    Step("tiles", "the best tiles for heads of 128", tile_rows, 120),
)
"""In the order of what is wanted most: where time runs out, the last ones wait for the next call."""
