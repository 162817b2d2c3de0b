"""Growing pauses between attempts to connect again."""

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0


class Backoff:
    """The pause before each next attempt: twice the last one, up to `LONGEST_WAIT_SECONDS`."""

    def __init__(self) -> None:
        self._wait_seconds = FIRST_WAIT_SECONDS

    def next_seconds(self) -> float:
        """How long to wait now, after one more attempt has failed."""
        wait_seconds = self._wait_seconds
        self._wait_seconds = min(2 * wait_seconds, LONGEST_WAIT_SECONDS)
        return wait_seconds

    def reset(self) -> None:
        """An attempt has succeeded: the next pause is short again."""
        self._wait_seconds = FIRST_WAIT_SECONDS
