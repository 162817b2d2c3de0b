"""What is wrong with an output whatever the pictures are: told before any is looked at."""

from __future__ import annotations

import io

from instantvir_models.errors import VideoWriteError
from instantvir_models.media.destination import final_path, is_images
from instantvir_models.media.ffmpeg_errors import write_error
from instantvir_models.media.muxer import open_muxer
from instantvir_models.media.names import as_address, destination_name, is_network_address
from instantvir_models.media.settings import EncoderSettings, check_encoder
from instantvir_models.outputs.names import written_path
from instantvir_models.outputs.rule import check_can_be_made


def check_output(
    destination: str,
    settings: EncoderSettings | None = None,
    *,
    output_format: str | None = None,
    makes_folder: bool = False,
) -> None:
    """Nothing, if `create_video` may go well. Nothing is written, and nobody is called.

    Args:
        destination, settings, output_format: as `create_video` takes them.
        makes_folder: whether the folder is made when it is needed.

    Raises:
        VideoWriteError: if the folder is missing or not writable, no container or encoder is called
            so, or the container does not hold what the encoder makes.
    """
    path = written_path(destination)
    if path is not None and (makes_folder or is_images(path)):
        check_can_be_made(path.parent)
    else:
        final_path(destination)
    if not is_images(path) and not is_network_address(destination):
        _rehearse(destination, settings or EncoderSettings(), output_format)


def _rehearse(destination: str, settings: EncoderSettings, output_format: str | None) -> None:
    """A container and a stream in it that are never begun."""
    name, is_pipe = destination_name(destination), destination == "-"
    if is_pipe and output_format is None:
        raise needs_format(name)
    target = io.BytesIO() if is_pipe else as_address(destination)
    container = open_muxer(target, output_format, name=name, is_whole=not is_pipe, is_live=False)
    with container:
        codec = check_encoder(settings, format_name=container.format.name)
        try:
            container.add_stream(codec, rate=25)
        except ValueError as error:
            told = write_error(error, name, codec=codec)
            if told is None:
                raise
            raise told from error


def needs_format(name: str) -> VideoWriteError:
    """What is said of an output whose name tells no container."""
    return VideoWriteError(
        f"{name} needs a container format",
        hint="matroska and nut suit pipes; mp4 is written in fragments",
    )
