"""Video into a container: a file that appears whole or not at all, a pipe, or an address."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from instantvir_models.errors import VideoWriteError
from instantvir_models.media.base import VideoReader, VideoWriter
from instantvir_models.media.companions import Companions, can_hold_sound, copy_description
from instantvir_models.media.connection import Connection
from instantvir_models.media.destination import claimed, stream_of
from instantvir_models.media.encoder import VideoEncoder
from instantvir_models.media.ffmpeg_errors import write_error
from instantvir_models.media.frame import Frame
from instantvir_models.media.hdr import HLG, PQ
from instantvir_models.media.muxer import open_muxer, pieces_of, writes_several
from instantvir_models.media.names import (
    Destination,
    as_address,
    destination_name,
    is_network_address,
)
from instantvir_models.media.packets import CompanionPacket
from instantvir_models.media.pieces import Pieces
from instantvir_models.media.rehearsal import needs_format
from instantvir_models.media.settings import (
    EncoderSettings,
    ResolvedEncoder,
    resolve_encoder,
    software_sibling,
)
from instantvir_models.outputs.claim import Claim
from instantvir_models.outputs.moving import sync_file

logger = logging.getLogger(__name__)


class ContainerWriter(VideoWriter):
    """Encodes frames, with what comes along, into a container.

    The arguments are those of `create_video`.

    Raises:
        VideoWriteError: whatever goes wrong with the output, on opening, writing or closing.
            Nothing is left behind then, unless it is live.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        info_of: VideoReader | None,
        width: int,
        height: int,
        settings: EncoderSettings,
        frame_rate: Fraction,
        output_format: str | None,
        is_live: bool,
        may_replace: bool,
    ) -> None:
        super().__init__(destination_name(destination), width=width, height=height)
        self._is_live = is_live
        self._is_network = is_network_address(str(destination)) or isinstance(
            destination, Connection
        )
        self._reader = info_of
        self._settings = settings
        self._frame_rate = frame_rate
        self._choice: ResolvedEncoder | None = None
        self._container: OutputContainer | None = None
        self._companions: Companions | None = None
        self._description_losses: tuple[str, ...] = ()
        self._moved: tuple[str, ...] = ()
        self._could_hold_sound = False
        self._claim = claimed(destination, may_replace=may_replace)
        self._is_claim_ours = not isinstance(destination, Claim)
        is_several = writes_several(output_format, destination)
        self._grows_in_place = is_live and is_several
        self._pieces = Pieces() if is_several and self._claim is not None else None
        if self._claim is None or self._grows_in_place:
            target = stream_of(destination)
            _take_links_away(self._claim)
        else:
            target = as_address(str(self._claim.unfinished))
        self._pipe = None if isinstance(target, str) else target
        with self._no_remains():
            self._encoder = self._open(target, output_format)
            if self._claim is not None and is_live and not self._grows_in_place:
                self._claim.place()

    @property
    def losses(self) -> tuple[str, ...]:
        """What of the source the output is not given, in words, as far as it is known now."""
        carried = self._companions.losses if self._companions else ()
        return (*self._encoder.losses, *self._description_losses, *carried, *self._moved)

    @property
    def is_silent(self) -> bool:
        """Whether the source has sound, the container could hold some, and it gets none."""
        return (
            self._could_hold_sound and self._companions is not None and self._companions.is_silent
        )

    def write_companions(self, packets: Iterable[CompanionPacket]) -> None:
        """Copy audio and subtitles, to a live output."""
        if self._companions is not None:
            with self._no_remains():
                self._companions.write(packets)
            self._flush_pipe()

    def _open(self, target: str | BinaryIO, output_format: str | None) -> VideoEncoder:
        """Set up the container and all its streams, and begin it; in software where the hardware
        that was asked for is not there."""
        if output_format is None and self._claim is None and not isinstance(target, str):
            raise needs_format(self._name)
        try:
            return self._begin(target, output_format)
        except (av.FFmpegError, OSError) as error:
            sibling = software_sibling(self._choice.codec) if self._choice else None
            if sibling is None or "avcodec_open2" not in str(error):
                raise
            logger.warning(
                "%s is not available here (%s); %s encodes instead",
                self._settings.codec, error.strerror, sibling,
            )  # fmt: skip
            self._settings = replace(self._settings, codec=sibling, preset=None)
            return self._begin(target, output_format)

    def _begin(self, target: str | BinaryIO, output_format: str | None) -> VideoEncoder:
        info = self._reader.info if self._reader else None
        kinds = {kind for kind, _ in info.side_data} if info else set()
        self._container = container = open_muxer(
            target,
            output_format,
            name=self._name,
            is_whole=self._claim is not None and not self._is_live,
            is_live=self._is_live,
            says_projection=not kinds.isdisjoint({"spherical", "stereo_3d"}),
            pieces=self._pieces,
        )
        self._choice = choice = resolve_encoder(
            self._settings,
            format_name=container.format.name,
            width=self._width,
            height=self._height,
            bit_depth=info.bit_depth if info else 8,
            is_hdr=info is not None and info.color.transfer in (PQ, HLG) and info.bit_depth > 8,
            has_alpha=info is not None and info.has_alpha,
        )
        encoder = self._new_encoder(container)
        for loss in encoder.losses:
            logger.warning("not carried over: %s", loss)
        self._carry_companions(container)
        container.start_encoding()
        if self._companions is not None:
            self._companions.write_covers()
        logger.info("writing %s as %s %s", self._name, choice.codec, choice.pix_fmt)
        return encoder

    def _new_encoder(self, container: OutputContainer) -> VideoEncoder:
        """An encoder as chosen, with a stream of its own in a container that was not begun yet."""
        assert self._choice is not None
        return VideoEncoder(
            container,
            self._choice,
            width=self._width,
            height=self._height,
            frame_rate=self._frame_rate,
            info_of=self._reader,
            is_live=self._is_live,
            is_prompt=self._is_live or self._settings.low_latency,
        )

    def _carry_companions(self, container: OutputContainer) -> None:
        if self._reader is None or self._reader.demuxer is None:
            return
        demuxer, span = self._reader.demuxer, self._reader.span
        self._description_losses = copy_description(demuxer, container, span)
        for loss in self._description_losses:
            logger.warning("not carried over: %s", loss)
        self._companions = Companions(demuxer, container, span, is_live=self._is_live)
        self._could_hold_sound = can_hold_sound(container)

    def _write(self, frame: Frame) -> None:
        self._mux(self._encoder.encode(frame))
        self._write_waiting_companions()
        self._flush_pipe()

    def _mux(self, packets: list[av.Packet[VideoStream]]) -> None:
        assert self._container is not None
        for packet in packets:
            self._container.mux(packet)
        if self._pieces is not None:
            self._pieces.check()

    def _write_waiting_companions(self) -> None:
        if self._companions is not None and not self._is_live:
            self._companions.write_waiting()

    def _flush_pipe(self) -> None:
        """What was written so far reaches the reader of a pipe now, not when a buffer is full."""
        if self._pipe is not None and hasattr(self._pipe, "flush"):
            self._pipe.flush()

    def _mux_all(self) -> None:
        """Hand over what is still to come of frames and of what comes along."""
        if self._num_frames:
            self._mux(self._encoder.last_packets())
            self._write_waiting_companions()

    @property
    def _num_frames(self) -> int:
        return self._encoder.num_frames

    def _finish(self) -> None:
        assert self._container is not None
        self._mux_all()
        if self._num_frames == 0:
            raise VideoWriteError(
                f"no frame was written to {self._name}", hint="the input gave none"
            )
        if self._companions is not None:
            self._companions.finish()
        self._moved = self._moved or self._encoder.moved
        for loss in self._moved:
            logger.warning("not carried over: %s", loss)
        self._container.close()
        if self._pieces is not None:
            self._pieces.check()
        self._flush_pipe()
        if self._claim is not None and self._is_claim_ours:
            self._give_name(self._claim)

    def _give_name(self, held: Claim) -> None:
        if self._is_live:
            sync_file(held.path)
            held.release()
        else:
            held.commit(held.made())

    def _discard(self) -> None:
        if self._container is not None:
            # Closing frees the file; that its end cannot be written does not matter any more.
            with suppress(Exception):
                self._container.close()
        if self._claim is not None and self._is_claim_ours:
            self._claim.release()

    def _sentence(self, error: BaseException) -> VideoWriteError | None:
        return write_error(
            error,
            self._name,
            codec=self._choice.codec if self._choice else None,
            format_name=self._container.format.name if self._container else None,
            is_network=self._is_network,
        )


def _take_links_away(held: Claim | None) -> None:
    """FFmpeg writes the pieces of a playlist through links, whose targets are not ours."""
    for piece in pieces_of(held.path) if held is not None else ():
        if piece.is_symlink():
            piece.unlink()
