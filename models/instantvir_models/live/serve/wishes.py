"""What a viewer of the page or the owner of the control socket may ask of a running stream."""

import time
from dataclasses import asdict
from typing import Any

from instantvir_models.checkpoints.prompt import is_file_of_rows
from instantvir_models.errors import InstantVIRError, UsageError
from instantvir_models.live.controls import Controls
from instantvir_models.live.status import LiveStatus
from instantvir_models.tasks import MOST_SHARPNESS

WISHES = ("is_on", "strength", "sharpness", "prompt", "snapshot", "status")

MOST_PROMPT_CHARACTERS = 2000


def apply_wishes(controls: Controls, wishes: object, *, may_name_files: bool) -> None:
    """Change what is asked for: `{"is_on": true, "strength": 0.5, "sharpness": 1, "prompt": "...", "snapshot": true}`.

    `status` changes nothing: every answer tells it.

    Args:
        wishes: what was sent, of any type.
        may_name_files: whether the prompt may be the path of a file of rows. Only for who could
            read that file anyway.

    Raises:
        InstantVIRError: if a wish is unknown, out of range or cannot be fulfilled; nothing is
            changed then.
    """
    if not isinstance(wishes, dict) or not wishes.keys() <= set(WISHES):
        raise UsageError(f"the wishes are {', '.join(f'`{name}`' for name in WISHES)}")
    for name in ("is_on", "snapshot", "status"):
        if not isinstance(wishes.get(name), (bool, type(None))):
            raise UsageError(f"`{name}` is true or false")
    controls.change(
        is_on=wishes.get("is_on"),
        strength=_number(wishes, "strength", most=1),
        sharpness=_number(wishes, "sharpness", most=MOST_SHARPNESS),
        prompt=_prompt(wishes.get("prompt"), may_name_files=may_name_files),
    )
    if wishes.get("snapshot"):
        controls.ask_for_snapshot()


def told(controls: Controls, status: LiveStatus) -> dict[str, Any]:
    """The status and the controls, as JSON has them."""
    settings = controls.settings
    return {
        **asdict(status),
        "controls": {
            "is_on": settings.is_on,
            "strength": settings.strength,
            "sharpness": settings.sharpness,
            "can_sharpen": controls.can_sharpen,
            "prompt": settings.prompt,
            "reads_text": controls.reads_text,
        },
        "now": time.time(),
    }


def refused(error: InstantVIRError) -> dict[str, Any]:
    """A sentence and, where there is one, what to do, as JSON has them."""
    return {"error": str(error), "hint": error.hint}


def _number(wishes: dict[str, Any], name: str, *, most: float) -> float | None:
    value = wishes.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError
        return float(value)
    except (TypeError, OverflowError):
        raise UsageError(f"`{name}` is a number from 0 to {most:g}") from None


def _prompt(prompt: object, *, may_name_files: bool) -> str | None:
    if prompt is None:
        return None
    if not isinstance(prompt, str):
        raise UsageError("`prompt` is a text")
    if len(prompt) > MOST_PROMPT_CHARACTERS:
        raise UsageError(
            f"the prompt has {len(prompt)} characters; at most {MOST_PROMPT_CHARACTERS} are read"
        )
    if "\0" in prompt or any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise UsageError("the prompt holds characters that no text has")
    if is_file_of_rows(prompt) and not may_name_files:
        raise UsageError(
            "a prompt from the page is a text, not a file",
            hint="name files through the control socket (`--control`)",
        )
    return prompt
