"""What a farm has done, on disk beside the results: which machine, how long, with which weights.

A run goes on by the results that are there; this is for people, and for whoever asks later.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from instantvir_models.farm.work import Ended
from instantvir_models.outputs.lines import add_line

NAME = "instantvir-manifest.jsonl"


@dataclass(frozen=True)
class Manifest:
    """A file of JSON lines in the folder of the results, one for each job that ended."""

    folder: Path

    def keep(self, ended: Ended) -> None:
        """Add a line; it is on the disk when this returns.

        Raises:
            VideoWriteError: if it cannot be.
        """
        line = {**ended.row.as_json(), "worker": ended.worker, "seconds": round(ended.seconds, 3)}
        add_line(self.folder / NAME, json.dumps(line, default=str))
