"""Options that several verbs share: one spelling, one help text."""

from pathlib import Path
from typing import Annotated

import typer

TaskOption = Annotated[
    list[str] | None,
    typer.Option("--task", help="deblur, sr, inpaint or denoise; may repeat"),
]
OperatorOption = Annotated[
    str | None,
    typer.Option(
        "--operator", help="What happened to the video, exactly: `blur:sigma=3+noise:std=5`"
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        help="tiny (built in), wan-lean, wan, ORG/REPO[@revision], a folder or a .safetensors file"
    ),
]
SolverOption = Annotated[
    str | None,
    typer.Option(
        help="A method without weights instead of a model, such as map, wiener, telea or nlmeans",
        metavar="NAME",
    ),
]
PromptOption = Annotated[
    str | None,
    typer.Option(help="What is seen, for models that read text; or a file of precomputed rows"),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda")]
CodecOption = Annotated[
    str | None, typer.Option(help="h264, hevc, av1, vp9, prores, ffv1 or an FFmpeg encoder")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print a summary as JSON on standard output")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing output")]
LatencyOption = Annotated[
    int | None, typer.Option(help="Frames per block, 1 to 3: fewer look less far ahead (default 3)")
]
BlurSigmaOption = Annotated[
    float | None, typer.Option(help="Blur in pixels; estimated if not given")
]
NoiseOption = Annotated[
    float | None, typer.Option(help="Noise in levels of 255; estimated if not given")
]
ScaleOption = Annotated[
    int | None, typer.Option(help="Enlargement for `sr`: 2, 3 or 4 (default 4)")
]
MaskOption = Annotated[Path | None, typer.Option(help="Image, white where pixels are known")]
TileOption = Annotated[int | None, typer.Option(help="Tile side, a multiple of 64; 0 never tiles")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads for the student")]
VramOption = Annotated[
    float | None,
    typer.Option(help="Gigabytes a full-size model may take (default: what is free on the card)"),
]
CrfOption = Annotated[int | None, typer.Option(help="Quality of the output, lower is better")]
PresetOption = Annotated[str | None, typer.Option(help="Speed preset of the encoder")]
StartOption = Annotated[float | None, typer.Option(help="Seconds to skip at the start")]
