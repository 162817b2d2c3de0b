"""Sound that a container cannot hold, turned into sound that it can."""

from __future__ import annotations

import logging
from contextlib import suppress
from fractions import Fraction

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Stream

logger = logging.getLogger(__name__)

_BITS_PER_SECOND_AND_CHANNEL = 96_000
_LOSSLESS = frozenset(
    {"flac", "alac", "truehd", "mlp", "ape", "wavpack", "tta", "tak", "shorten", "mp4als"}
)
_LOSSY_PCM = frozenset({"pcm_mulaw", "pcm_alaw", "pcm_vidc"})


def is_lossless(codec: str) -> bool:
    """Whether sound of this codec has lost nothing, so that turning it into another need not."""
    return codec in _LOSSLESS or (codec.startswith("pcm_") and codec not in _LOSSY_PCM)


def add_sound(
    output: OutputContainer,
    codec: str,
    source: AudioCodecContext,
    layout: str,
    sample_rates: tuple[int, ...] | None = None,
) -> AudioStream:
    """A stream of `codec` for sound like `source`; ValueError or FFmpegError if that cannot be.

    Args:
        layout: FFmpeg's name of the places of its channels.
        sample_rates: what the container holds; None for all.
    """
    encoder = av.Codec(codec, "w")
    allowed = encoder.audio_rates if sample_rates is None else list(sample_rates)
    rate = _nearest(source.sample_rate or 48_000, allowed)
    stream = output.add_stream(codec, rate=rate)
    assert isinstance(stream, AudioStream)
    context = stream.codec_context
    context.layout = layout
    context.format = _sample_format(source, [f.name for f in encoder.audio_formats or ()])
    context.bit_rate = _BITS_PER_SECOND_AND_CHANNEL * context.layout.nb_channels
    stream.time_base = context.time_base = Fraction(1, rate)
    context.open()
    return stream


def layouts_for(source: AudioCodecContext) -> tuple[str, ...]:
    """FFmpeg's names of layouts for sound like `source`: its own, or what is usual for as many channels
    where it names none; and two channels, where a container holds no more."""
    layout, num_channels = source.layout.name, source.layout.nb_channels
    if not num_channels or " channels" in layout:  # a number without places
        return tuple(dict.fromkeys((_USUAL_LAYOUTS.get(num_channels, "stereo"), "stereo")))
    return tuple(dict.fromkeys((layout, "stereo"))) if num_channels > 2 else (layout,)


class SoundConverter:
    """Packets of one stream decoded and encoded again, with their times; gaps become silence.

    Args:
        source: the stream whose packets come.
        target: what `add_sound` made of it.
        shares_decoder: whether others decode the same stream, so that it needs a decoder of its own.
    """

    def __init__(self, source: Stream, target: AudioStream, *, shares_decoder: bool) -> None:
        assert isinstance(source.codec_context, AudioCodecContext)
        self._decoder = _decoder_like(source.codec_context) if shares_decoder else (
            source.codec_context
        )  # fmt: skip
        self._encoder = target.codec_context
        self._target = target
        self._graph: av.filter.Graph | None = None
        self._form: tuple[int, str, str] | None = None

    def packets(self, packet: av.Packet[Stream] | None) -> list[av.Packet[Stream]]:
        """What is ready after this packet, with None all that is left; a damaged one gives less."""
        try:
            frames = self._decoder.decode(packet)
        except av.FFmpegError as error:
            logger.debug("sound could not be decoded: %s", error)
            frames = []
        filtered = [out for frame in frames for out in self._filtered(frame)]
        if packet is None:
            filtered += self._filtered(None)
        encoded = [made for frame in filtered for made in self._encoder.encode(frame)]
        if packet is None:
            encoded += self._encoder.encode(None)
        for made in encoded:
            made.stream = self._target
        return encoded

    def _filtered(self, frame: av.AudioFrame | None) -> list[av.AudioFrame]:
        done: list[av.AudioFrame] = []
        if frame is not None:
            form = (frame.sample_rate, frame.format.name, frame.layout.name)
            if form != self._form:
                done = self._filtered(None)
                self._graph, self._form = self._new_graph(frame), form
        if self._graph is None:
            return done
        self._graph.push(frame)
        while True:
            try:
                out = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return done
            assert isinstance(out, av.AudioFrame)
            done.append(out)

    def _new_graph(self, like: av.AudioFrame) -> av.filter.Graph:
        encoder, graph = self._encoder, av.filter.Graph()
        steps = [
            ("aresample", "async=1"),
            (
                "aformat",
                f"sample_fmts={encoder.format.name}:sample_rates={encoder.sample_rate}"
                f":channel_layouts={encoder.layout.name}",
            ),
        ]
        if encoder.frame_size:
            steps.append(("asetnsamples", f"n={encoder.frame_size}:p=0"))
        last = graph.add_abuffer(
            sample_rate=like.sample_rate,
            format=like.format.name,
            layout=like.layout.name,
            time_base=like.time_base,
        )
        for name, arguments in (*steps, ("abuffersink", None)):
            node = graph.add(name, arguments)
            last.link_to(node)
            last = node
        graph.configure()
        return graph


class SoundCheck:
    """Tells packets of sound that a strict decoder refuses, and what it makes of the others is thrown
    away: sound that is copied is decoded nowhere else.

    A decoder that does not know sound of its kind without the container's help (it refuses the first
    packets, too) is not asked any more.
    """

    def __init__(self, stream: Stream) -> None:
        context = stream.codec_context
        self._decoder: AudioCodecContext | None = None
        self._has_decoded, self._refused = False, 0
        if isinstance(context, AudioCodecContext) and context.codec.canonical_name in _TELLS_DAMAGE:
            with suppress(av.FFmpegError, ValueError):
                self._decoder = _decoder_like(context)
                if context.codec.canonical_name in _HAS_CHECK_SUMS:
                    self._decoder.options = {"err_detect": "crccheck+explode"}

    def is_whole(self, packet: av.Packet[Stream]) -> bool:
        """Whether nothing is known to be wrong with it."""
        if self._decoder is None:
            return True
        try:
            self._has_decoded |= bool(self._decoder.decode(packet))
        except av.FFmpegError:
            self._refused += 1
            if not self._has_decoded and self._refused > _MOST_REFUSED:
                self._decoder = None
            return not self._has_decoded
        return True


_TELLS_DAMAGE = frozenset({"aac", "ac3", "eac3", "alac", "flac", "mp2", "mp3", "opus", "vorbis"})
_HAS_CHECK_SUMS = frozenset({"ac3", "eac3", "flac"})
"""Of the others a strict decoder refuses what players are used to."""

_MOST_REFUSED = 8

_USUAL_LAYOUTS = {
    1: "mono",
    2: "stereo",
    3: "2.1",
    4: "quad",
    5: "5.0",
    6: "5.1",
    7: "6.1",
    8: "7.1",
}


def _decoder_like(context: AudioCodecContext) -> AudioCodecContext:
    decoder = av.CodecContext.create(context.codec.name, "r")
    assert isinstance(decoder, AudioCodecContext)
    decoder.extradata = context.extradata
    decoder.sample_rate, decoder.layout = context.sample_rate, context.layout
    return decoder


def _nearest(rate: int, allowed: list[int] | None) -> int:
    """The smallest allowed rate that loses nothing, or the largest there is."""
    if not allowed or rate in allowed:
        return rate
    return min((r for r in allowed if r >= rate), default=max(allowed))


def _sample_format(source: AudioCodecContext, allowed: list[str]) -> str:
    """The encoder's own format that is as deep as the source's, or its first."""
    source_format = source.format.name if source.format else "s16"
    is_shallow = source_format.rstrip("p") in ("u8", "s16")
    wanted = ("s16", "s16p") if is_shallow else ("s32", "s32p")
    return next((name for name in allowed if name in wanted), allowed[0] if allowed else "s16")
