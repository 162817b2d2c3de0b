"""From `--model`, `--device`, `--prompt` and `--vram` to a student that is ready to restore."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from instantvir_cli import console
from instantvir_models.checkpoints.load import EMBEDDED, LoadedStudent, load_student
from instantvir_models.cpu import fastest_dtype
from instantvir_models.errors import UsageError
from instantvir_models.operators.spec import Degradation
from instantvir_models.students.base import Student
from instantvir_models.students.wan.plan import plan_memory, plan_that_fits
from instantvir_models.students.wan.student import WanStudent
from instantvir_models.text import read_prompt

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class OpenedStudent:
    """A student and the device it is on."""

    loaded: LoadedStudent
    device: torch.device


def open_student(model: str, *, device: str, prompt: str | None) -> OpenedStudent:
    """The student called `model`, on the device the user wants, told the prompt.

    Raises:
        UsageError: if it cannot run there.
        CheckpointError: if there is no such student.
    """
    place = _place(model, device)
    dtype = torch.bfloat16 if place.type == "cuda" else fastest_dtype()
    loaded = load_student(model, device=place, dtype=dtype)
    student = loaded.student
    if isinstance(student, WanStudent):
        if prompt is None:
            console.say(
                "no prompt: the student restores without words (`--prompt` says what is seen)"
            )
        else:
            config = student.transformer.config
            text = read_prompt(prompt, text_dim=config.text_dim, text_len=config.text_len)
            loaded = replace(loaded, student=student.with_text(text))
    elif prompt is not None:
        console.warn(f"`--prompt` has no effect: the model `{model}` does not read text")
    if loaded.revision is not None:
        console.say(f"{model} is at commit {loaded.revision}")
    return OpenedStudent(loaded, place)


def fitted(
    opened: OpenedStudent,
    size: tuple[int, int],
    *,
    vram_gigabytes: float | None,
    tile_pixels: int | None = None,
) -> Student[Any]:
    """The student with a history that fits the memory allowed; says what it needs.

    Raises:
        UsageError: if frames of `size` (height, width) do not fit at all.
    """
    if vram_gigabytes is not None and not 0 < vram_gigabytes <= 10_000:
        raise UsageError(f"`--vram` is {vram_gigabytes:g}; it is gigabytes, more than 0")
    student = opened.loaded.student
    if not isinstance(student, WanStudent):
        if vram_gigabytes is not None:
            console.warn("`--vram` has no effect: this model runs on the CPU in a few megabytes")
        return student
    checkpoint = opened.loaded.checkpoint
    assert checkpoint is not None
    assert checkpoint.autoencoder is not None
    height, width = size
    settings = student.settings
    networks = student.transformer.config, checkpoint.autoencoder
    if vram_gigabytes is None:
        plan = plan_memory(
            *networks, settings, student.footprint, height=height, width=width,
            dtype=student.dtype, tile_pixels=tile_pixels or 0,
        )  # fmt: skip
    else:
        plan = plan_that_fits(
            *networks, settings, height=height, width=width, dtype=student.dtype,
            budget_bytes=vram_gigabytes * 1e9, tile_pixels=tile_pixels or 0,
        )  # fmt: skip
    given_up = settings.window_latents - plan.footprint.window_latents
    note = f"; history cut by {given_up} latents to fit" if given_up else ""
    console.say(f"memory for {width}x{height}: {plan}{note}")
    return replace(student, memory_limit=plan.footprint)


def warn_of_another_task(loaded: LoadedStudent, degradation: Degradation) -> None:
    """Say so where the student was trained for something else than what happened to the video."""
    trained_for = None if loaded.checkpoint is None else loaded.checkpoint.task
    happened = tasks_in(degradation)
    if trained_for is not None and trained_for not in happened:
        console.warn(
            f"`{loaded.name}` was trained for {trained_for}, this video needs "
            f"{' and '.join(happened)}; expect poor results"
        )


def tasks_in(degradation: Degradation) -> tuple[str, ...]:
    """What a degradation needs, in the words of `--task`."""
    traits = degradation.operator.traits
    found = {
        "deblur": traits.blur_sigma > 0 or traits.temporal_sigma > 0,
        "sr": traits.scale > 1,
        "inpaint": traits.known_fraction < 1,
    }
    return tuple(name for name, is_there in found.items() if is_there) or ("denoise",)


def _place(model: str, device: str) -> torch.device:
    if device not in DEVICES:
        raise UsageError(f"`--device` is `{device}`", hint="it is `auto`, `cpu` or `cuda`")
    is_tiny = model == EMBEDDED or model.endswith(".safetensors")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and not is_tiny else "cpu")
    if device == "cuda" and (is_tiny or not torch.cuda.is_available()):
        reason = (
            "the embedded student runs on the CPU only"
            if torch.cuda.is_available()
            else "no CUDA device is available"
        )
        raise UsageError(f"cannot use `--device cuda`: {reason}", hint="use `--device auto`")
    return torch.device(device)
