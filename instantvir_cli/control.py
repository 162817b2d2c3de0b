"""`instantvir control`: one wish to a running stream, one answer."""

import json
import socket
from pathlib import Path
from typing import Any

from instantvir_cli.standard_streams import put
from instantvir_models.errors import UsageError
from instantvir_models.tasks import MOST_SHARPNESS

PLAIN: dict[str, dict[str, bool]] = {
    "on": {"is_on": True},
    "off": {"is_on": False},
    "snapshot": {"snapshot": True},
    "status": {"status": True},
}
"""Wishes that need no value."""


def control_stream(path: Path, wish: str, value: str | None) -> None:
    """Print the JSON that the stream at `path` answers to a wish.

    Raises:
        UsageError: if nobody answers there, or the stream refuses.
    """
    wishes = json.dumps(_wishes(wish, value), ensure_ascii=False)
    line = _answer(path, wishes.encode("utf-8", "surrogatepass") + b"\n")
    if not line:
        raise UsageError(f"the stream at `{path}` ended before it answered")
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise UsageError(f"what listens at `{path}` is no stream of instantvir")
    if "error" in answer:
        raise UsageError(answer["error"], hint=answer.get("hint"))
    put(line.decode().rstrip("\n"))


def _wishes(wish: str, value: str | None) -> dict[str, Any]:
    if wish in PLAIN:
        if value is not None:
            raise UsageError(f"`{wish}` takes no value, got `{value}`")
        return PLAIN[wish]
    if wish not in ("strength", "sharpness", "prompt"):
        known = ", ".join([*PLAIN, "strength NUMBER", "sharpness NUMBER", "prompt TEXT"])
        raise UsageError(f"there is no wish `{wish}`", hint=f"the wishes are {known}")
    if value is None:
        raise UsageError(f"`{wish}` needs a value")
    if wish == "prompt":
        # the stream may run in another folder
        return {"prompt": str(Path(value).resolve()) if value.endswith(".safetensors") else value}
    try:
        return {wish: float(value)}
    except ValueError:
        most = 1 if wish == "strength" else MOST_SHARPNESS
        raise UsageError(f"the {wish} is `{value}`; it is a number from 0 to {most:g}") from None


def _answer(path: Path, wishes: bytes) -> bytes:
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("this system has no sockets in the file system")
    try:
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answers:
            connection.connect(str(path))
            connection.sendall(wishes)
            return answers.readline()
    except OSError as error:
        raise UsageError(
            f"no stream answers at `{path}`: {error.strerror or error}",
            hint="it is the path that was given to `instantvir stream --control`",
        ) from error
