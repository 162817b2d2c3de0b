"""A camera that is not there: moving pictures with their time and number burned in, at a set rate.

    python benchmarks/synthetic_camera.py --fps 25 --seconds 10 | instantvir stream -o -

Each frame carries two rows of square black or white bits: the monotonic clock in milliseconds when
it was handed over, and its number. The sound of frame n is a constant sample of value n, in packets
of 20 ms, so that picture and sound can be compared after any journey.
"""

import argparse
import sys
import time
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

BITS = 24
BIT_PIXELS = 4
"""Side of one bit; a row of `BITS` needs 96 columns."""

SAMPLE_RATE = 8000
LARGEST_SAMPLE = 30_000
PACKET_SAMPLES = SAMPLE_RATE // 50


def stamped(pixels: NDArray[np.uint8], number: int, milliseconds: int) -> NDArray[np.uint8]:
    """A copy of [H, W, 3] with both numbers (modulo 2^24) in its first 8 rows."""
    frame = pixels.copy()
    for row, value in enumerate((milliseconds, number)):
        bits = (value >> np.arange(BITS)) & 1
        pattern = np.kron(bits, np.ones((BIT_PIXELS, BIT_PIXELS))).astype(np.uint8)
        top = row * BIT_PIXELS
        frame[top : top + BIT_PIXELS, : BITS * BIT_PIXELS] = 16 + 224 * pattern[..., None]
    return frame


def read_stamp(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """(number, milliseconds) burned into a frame."""
    values = []
    for row in range(2):
        rows = pixels[row * BIT_PIXELS + 1 : (row + 1) * BIT_PIXELS - 1]
        strip = rows[:, : BITS * BIT_PIXELS].mean((0, 2)).reshape(BITS, BIT_PIXELS)
        bits = strip[:, 1:-1].mean(1) > 128
        values.append(int((bits << np.arange(BITS)).sum()))
    return values[1], values[0]


def milliseconds_since(stamp: int) -> int:
    """Milliseconds from a burned-in time until now; both are modulo 2^24 (4.6 hours)."""
    return (now_milliseconds() - stamp) % 2**BITS


def now_milliseconds() -> int:
    """The clock that is burned in: one for all processes of this machine."""
    return int(time.monotonic() * 1000) % 2**BITS


def scene(width: int, height: int) -> NDArray[np.uint8]:
    """A smooth picture twice as wide, [height, 2 width, 3]; the camera pans over it."""
    y, x = np.mgrid[0:height, 0 : 2 * width]
    waves = [100 + 60 * np.sin(2 * np.pi * (x / width * k + y / height)) for k in (1.0, 2.0, 3.0)]
    return np.stack(waves, -1).round().astype(np.uint8)


def record(args: argparse.Namespace) -> None:
    """Write frames until the time is over or the reader is gone."""
    width, height = map(int, args.size.split("x"))
    target = sys.stdout.buffer if args.output == "-" else args.output
    rate = Fraction(args.fps).limit_denominator(1000)
    panorama, noise = scene(width, height), np.random.default_rng(args.seed)
    with av.open(
        target, "w", format=args.format, container_options={"flush_packets": "1"}
    ) as container:
        options = {"tune": "zerolatency", "g": "10"} if args.codec == "libx264" else {}
        video = container.add_stream(
            args.codec, rate=rate, width=width, height=height, pix_fmt=args.pix_fmt, options=options
        )
        sound = None
        if args.audio:
            sound = container.add_stream(args.audio, rate=SAMPLE_RATE)
            sound.codec_context.layout = "mono"
        container.start_encoding()
        begin = time.monotonic()
        for number in range(args.frames or round(args.seconds * args.fps)):
            if not args.frames and time.monotonic() - begin > args.seconds:
                break  # a reader that made the camera wait does not make it stay
            if not args.burst:
                time.sleep(max(0.0, begin + number / args.fps - time.monotonic()))
            left = number % width
            picture = panorama[:, left : left + width].astype(np.float32)
            picture += noise.normal(0, args.noise, picture.shape) if args.noise else 0
            pixels = stamped(picture.clip(0, 255).astype(np.uint8), number, now_milliseconds())
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=args.pix_fmt)
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(video.encode(frame))
            if sound is not None:
                _encode_sound(container, sound, number, rate)
            if args.output == "-":
                sys.stdout.buffer.flush()
        for stream in (video, sound):
            if stream is not None:
                container.mux(stream.encode(None))


def _encode_sound(
    container: av.container.OutputContainer, sound: av.AudioStream, number: int, rate: Fraction
) -> None:
    begin, end = (round(n * SAMPLE_RATE / rate) for n in (number, number + 1))
    for first in range(begin, end, PACKET_SAMPLES):
        _encode_packet(container, sound, number, first, min(first + PACKET_SAMPLES, end))


def _encode_packet(
    container: av.container.OutputContainer,
    sound: av.AudioStream,
    number: int,
    first: int,
    last: int,
) -> None:
    samples = np.full((1, last - first), number % LARGEST_SAMPLE, np.int16)
    if sound.codec_context.format.name != "s16":
        samples = samples.astype(np.float32) / 32768
    frame = av.AudioFrame.from_ndarray(
        samples, format=sound.codec_context.format.name, layout="mono"
    )
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, first, Fraction(1, SAMPLE_RATE)
    container.mux(sound.encode(frame))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="96x64")
    parser.add_argument("--fps", type=float, default=25)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--frames", type=int, help="instead of --seconds")
    parser.add_argument("--burst", action="store_true", help="as fast as the reader takes them")
    parser.add_argument("--format", default="nut")
    parser.add_argument("--codec", default="rawvideo")
    parser.add_argument("--pix-fmt", default="rgb24")
    parser.add_argument("--audio", help="an encoder for the sound, such as pcm_s16le")
    parser.add_argument("--noise", type=float, default=0, help="levels of 255")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="-")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        record(parse())
    except (BrokenPipeError, av.FFmpegError, KeyboardInterrupt):
        sys.stdout = None  # nothing is left to be flushed to a reader that is gone
