"""The sessions of a live stream: one for each kind of frames, and anew where frames are missing."""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from instantvir_models.errors import DeviceMemoryError, UsageError
from instantvir_models.live.capture import Captured, Kind
from instantvir_models.media.frame import Pixels
from instantvir_models.run.masks import FrameMaskSources
from instantvir_models.run.session import Session
from instantvir_models.students.text import TextRows

RestoredPair = tuple[Captured, Pixels]
"""A captured frame and what became of its pixels."""


class Sessions:
    """The session at work; knows which frames it holds, and which one it expects next.

    Before another one takes its place the caller takes what it holds, with `give_out`.

    Args:
        new_session: makes a session for measured frames of (height, width).
        kind: of the first frames.
        frames_per_block: frames that go together where there is no session.
        on_event: called with a sentence when something happens.
        masks: of the frames, where they have some.

    Raises:
        UsageError: if the degradation does not fit the first frames.
    """

    def __init__(
        self,
        new_session: Callable[[int, int], Session],
        kind: Kind,
        *,
        frames_per_block: int,
        on_event: Callable[[str], None],
        masks: FrameMaskSources | None = None,
    ) -> None:
        self._new_session, self._on_event = new_session, on_event
        self._masks = masks or FrameMaskSources(())
        self._frames_per_block = frames_per_block
        first = new_session(*kind[:2])
        self._session: Session | None = first
        self.kind = kind
        """Of the frames that it takes."""
        self.output_size = first.output_size
        """(height, width) of the first session's restored frames."""
        self.look_ahead = first.degradation.operator.temporal_radius
        """Frames that the first session waits for beyond a block."""
        self._held: deque[Captured] = deque()
        self._num_guarded_told = 0
        self._expected_index = 0

    @property
    def can_restore(self) -> bool:
        """Whether there is a session: none fits some kinds of frames."""
        return self._session is not None

    @property
    def num_held(self) -> int:
        """Frames that were given to a session and have not come out."""
        return len(self._held)

    @property
    def frames_to_gather(self) -> int:
        """Frames that make the session's next block come out: no frame waits for more."""
        return self._frames_per_block if self._session is None else self._session.frames_until_ready

    @property
    def counts_frames(self) -> bool:
        """Whether the operator looks at neighbours, or differs from frame to frame."""
        if self._session is None:
            return False
        operator = self._session.degradation.operator
        return operator.changes_over_time or operator.temporal_radius > 0

    def misses_frames_before(self, index: int) -> bool:
        """Whether the session would take frame `index` for another one, and it matters."""
        return index != self._expected_index and self.counts_frames

    def restore(
        self,
        block: Sequence[Captured],
        *,
        text: TextRows | None,
        sharpness: float,
        is_cheap: bool,
    ) -> list[RestoredPair]:
        """The frames that come out once `block` was pushed, the oldest first.

        Args:
            text: the prompt from now on; None leaves the session its own.
            sharpness: from now on.
            is_cheap: restore at half size or, where that means nothing, without the student.
        """
        session = self._session
        assert session is not None, "ask `can_restore` first"
        session.is_shrunk = is_cheap and session.can_shrink
        session.is_student_skipped = is_cheap and not session.can_shrink
        self._held.extend(block)
        self._expected_index = block[-1].index + 1
        if text is not None:
            session.change_text(text)
        if sharpness != session.sharpness:
            session.change_sharpness(sharpness)
        told = [self._masks.told(item.index, item.frame) for item in block]
        frames: Pixels = np.stack([frame.pixels for frame in told])  # type: ignore[assignment]
        known = [frame.known for frame in told if frame.known is not None]
        return self._with_captured(session.push(frames, np.stack(known) if known else None))

    def give_out(self) -> list[RestoredPair]:
        """What the session holds back; if it held anything, it has then ended."""
        if self._session is None or not self._session.frames_held:
            return []
        return self._with_captured(self._session.flush())

    def newly_guarded(self) -> int:
        """Frames that are the initial estimate in some places, of those that came out since this was
        last asked."""
        now = 0 if self._session is None else self._session.frames_guarded
        new, self._num_guarded_told = now - self._num_guarded_told, now
        return new

    def begin_anew(self, index: int = 0) -> None:
        """A new session for frames of the same kind, the first of which is `index`."""
        assert self._session is not None
        self._session, self._num_guarded_told = self._session.restarted(), 0
        self._session.skip(index)
        self._expected_index = index

    def change_kind(self, kind: Kind) -> None:
        """A session for other frames; those it cannot be made for are told."""
        height, width, depth = kind
        self._on_event(f"the input changes to {width}x{height} ({depth}); a new session begins")
        self.kind, self._expected_index, self._num_guarded_told = kind, 0, 0
        try:
            self._session = self._new_session(height, width)
        except (UsageError, DeviceMemoryError) as error:
            self._on_event(f"frames of {width}x{height} are passed through unrestored: {error}")
            self._session = None

    def _with_captured(self, restored: Pixels) -> list[RestoredPair]:
        return [(self._held.popleft(), pixels) for pixels in restored]
