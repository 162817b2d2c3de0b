"""Where in a video the pictures get another size, as those of a recorded broadcast do."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from instantvir_models.media.container_reader import ContainerReader
from instantvir_models.media.reach import InputRules
from instantvir_models.media.source import ContainerSource
from instantvir_models.media.timeline import Trim


def size_changes(source: Path, *, trim: Trim, rules: InputRules) -> list[Fraction]:
    """Seconds from the beginning of a video at which a picture has another size than the one before it;
    every wanted picture is decoded.

    Raises:
        VideoOpenError: if it cannot be read.
    """
    opened_from = ContainerSource(
        source,
        input_format=None,
        input_options=None,
        is_live=False,
        timeout_seconds=None,
        rules=rules,
    )
    with ContainerReader(opened_from, trim=trim, threads=None, other_streams=False) as reader:
        shown = [frame.pts * frame.time_base for frame in reader]
        sizes, begin = reader.demuxer.account.other_sizes, reader.demuxer.first_seconds
    return [
        here - begin for before, here in pairwise(shown) if sizes.get(before) != sizes.get(here)
    ]
