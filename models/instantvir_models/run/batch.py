"""Many videos, each tried whatever became of the others: a row tells what came of one."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from instantvir_models.errors import InstantVIRError
from instantvir_models.outputs.names import written_path
from instantvir_models.run.asked import made_otherwise
from instantvir_models.run.jobs import Job, refuse_to_overwrite
from instantvir_models.run.journal import Fingerprint
from instantvir_models.run.restore_report import RestoreReport

logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    """What became of one input."""

    RESTORED = "restored"
    """Or copied, where nothing was sure enough to be changed; or looked at, in a dry run."""
    SKIPPED = "skipped"
    """Its output was there already."""
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class BatchRow:
    """What came of one input; a row of `instantvir restore --json`. Pickles, to cross processes."""

    input: str
    output: str
    outcome: Outcome
    report: RestoreReport | None = None
    """None where nothing was restored."""
    error: InstantVIRError | None = None
    """Why it failed; with None beside `FAILED` it is a bug, whose traceback was logged."""
    sentence: str | None = None
    """Why it failed or was skipped, in words."""
    is_stale: bool = False
    """Whether the output that is there is known to be of another input or of other settings."""
    differences: tuple[str, ...] | None = None
    """What of the settings was otherwise when the output that is there was made; None where nobody knows, or
    nothing was skipped."""

    @property
    def is_partial(self) -> bool:
        """Whether the input was damaged, or its sound was lost."""
        return self.report is not None and bool(self.report.damage or self.report.is_silent)

    def as_json(self) -> dict[str, Any]:
        """What `RestoreReport` holds, in front of it what came of it; of a failure or what was skipped that
        alone."""
        error = None if self.outcome is not Outcome.FAILED else self.sentence
        said = {
            "outcome": self.outcome.value,
            "error": error,
            "hint": None if self.error is None else self.error.hint,
            "skipped_because": self.sentence if self.outcome is Outcome.SKIPPED else None,
            "is_stale": self.is_stale,
            "made_otherwise": self.differences,
        }
        named = {"input": self.input, "output": self.output}
        return said | (named if self.report is None else asdict(self.report))


def attempted(
    job: Job,
    attempt: Callable[[Job], RestoreReport],
    *,
    with_comparison: bool = False,
    asked: Fingerprint | None = None,
) -> BatchRow:
    """What came of one job of many; nothing but an interruption ends the others.

    Args:
        asked: what an output that is there is compared with; None compares nothing.
    """
    row = BatchRow(input=job.source, output=job.destination, outcome=Outcome.FAILED)
    if job.is_done and not job.may_replace:
        return _skipped(row, job, asked)
    try:
        refuse_to_overwrite(job, with_comparison=with_comparison)
        return replace(row, outcome=Outcome.RESTORED, report=attempt(job))
    except InstantVIRError as error:
        sentence = "; ".join((str(error), *getattr(error, "__notes__", ())))
        return replace(row, error=error, sentence=sentence)
    except Exception as error:
        logger.exception("a bug: `%s` could not be restored", job.source)
        return replace(row, sentence=f"a bug ({type(error).__name__}: {error})")


def _skipped(row: BatchRow, job: Job, asked: Fingerprint | None) -> BatchRow:
    """The row of a job whose output is there, with what is known of how that was made."""
    target = written_path(job.destination)
    differences = None if asked is None or target is None else made_otherwise(target, asked)
    if job.is_outdated:
        words = "it is older than its input, which has changed"
    elif differences:
        words = f"it was made otherwise ({'; '.join(differences)})"
    else:
        words = "it is done" if differences == [] else "it is done, by whatever settings"
    is_stale = job.is_outdated or bool(differences)
    advice = "" if differences == [] and not is_stale else "; `--overwrite` makes it anew"
    sentence = f"`{job.destination}` is there already: {words}{advice}"
    return replace(
        row,
        outcome=Outcome.SKIPPED,
        sentence=sentence,
        is_stale=is_stale,
        differences=None if differences is None else tuple(differences),
    )
