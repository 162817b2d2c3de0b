"""What is said of a degradation that was found."""

from instantvir_cli import console
from instantvir_models.run.resolution import Resolved


def describe_resolution(resolved: Resolved, *, names_command: bool = True) -> None:
    """Say where the degradation is from, what was read off the video, and how sure it is.

    Args:
        names_command: whether to say, of what was found, which command of `restore` does the same.
    """
    if resolved.note is not None:
        console.say(f"operator from {resolved.note.name}: {resolved.degradation.spec}")
    if resolved.diagnosis is not None:
        diagnosis = resolved.diagnosis
        for sentence in diagnosis.sentences if names_command else diagnosis.found:
            console.say(sentence)
        return
    for estimate in resolved.estimates:
        console.say(
            f"estimated {estimate.name}: {estimate.value:.2f} +- {estimate.std:.2f} {estimate.unit} "
            f"(confidence {estimate.confidence})"
        )
        if estimate.confidence == "low":
            console.warn(f"the estimate of the {estimate.name} is unsure; better say it yourself")
    for remark in resolved.remarks:
        console.say(remark)
