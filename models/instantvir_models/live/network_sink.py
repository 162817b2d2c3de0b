"""A live output over a network, which no server can keep from ending."""

import threading
from collections.abc import Callable, Iterable

from instantvir_models.media import CompanionPacket, Frame, VideoWriter
from instantvir_models.media.connection import Connection


class NetworkSink:
    """A sink that owns a connection and the writer on top of it.

    Args:
        timeout_seconds: a server that takes nothing for so long counts as lost.
        given_up: set it, from any thread, to let what waits for the server fail at once.
        new_writer: makes the writer once the connection stands.

    Raises:
        VideoWriteError: if the server does not answer, or the writer cannot be made.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_seconds: float,
        given_up: threading.Event,
        new_writer: Callable[[Connection], VideoWriter],
    ) -> None:
        self._connection = Connection(address, timeout_seconds=timeout_seconds, given_up=given_up)
        try:
            self._writer = new_writer(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def write(self, frame: Frame) -> None:
        """Encode and send one frame."""
        self._writer.write(frame)

    def write_companions(self, packets: Iterable[CompanionPacket]) -> None:
        """Send audio and subtitles."""
        self._writer.write_companions(packets)

    def close(self) -> None:
        """Send what is left and say good-bye."""
        try:
            self._writer.close()
        finally:
            self._connection.close()

    def abort(self) -> None:
        """Give up."""
        self._writer.abort()
        self._connection.close()
