"""`instantvir degrade`: say what came of it."""

from instantvir_cli import console
from instantvir_cli.options import EncodingOptions, SourceOptions
from instantvir_models.run.degrade import degrade


def degrade_file(
    source: str,
    output: str,
    *,
    operator: str,
    seed: int,
    part: SourceOptions,
    encoding: EncodingOptions,
    may_overwrite: bool,
) -> None:
    """Write the measurement, and beside it the note that `restore` picks up."""
    rules = part.rules()
    report = degrade(
        source,
        output,
        operator=operator,
        seed=seed,
        start=part.start,
        duration=part.duration,
        follow_references=rules.follow_references,
        max_pixels=rules.max_pixels,
        sandbox=rules.sandbox,
        codec=encoding.codec,
        crf=encoding.crf,
        preset=encoding.preset,
        pix_fmt=encoding.pix_fmt,
        output_format=encoding.output_format,
        overwrite=may_overwrite,
    )
    if report.is_lossy:
        console.warn(
            f"`{report.output.suffix}` is written with a lossy codec; use .mkv for lossless"
        )
    if report.clean_size != report.input_size:
        console.say(f"cropped {_size(report.input_size)} to {_size(report.clean_size)}")
    note = "" if report.note is None else f" and {report.note.name}"
    console.say(f"wrote {output} ({_size(report.output_size)}){note}: {report.operator}")


def _size(size: tuple[int, int]) -> str:
    width, height = size
    return f"{width}x{height}"
