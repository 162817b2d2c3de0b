"""How far a source may reach and what it may cost: a file opens only itself.

FFmpeg follows what containers name: playlists open files and addresses, lists open lists, and a name
such as `subfile:` opens another one. So it is told which containers and protocols a source may be
opened with, by the kind of source, and what would name others is refused in words before that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.outputs.names import scheme_of

MOST_PIXELS = 2**26
"""Of a picture, unless more are asked for: twice those of 8K."""

MOST_STREAMS = 256
"""Of a container: broadcasts of many programmes have about a hundred."""

BYTES_PER_PIXEL = 16
"""More than any picture of one packet takes, be it raw: four channels of 32 bits."""

PROBED_BYTES = 5_000_000
"""At the beginning of a source, in which its streams are looked for: FFmpeg's own number."""

HEAD_BYTES = 4096
"""Of a source that are looked at for what it is."""

_FOLLOW = "`--follow-references` opens what it names, if you trust it"


@dataclass(frozen=True, kw_only=True)
class InputRules:
    """What inputs may do; UsageError for a number of pixels that cannot be."""

    follow_references: bool = False
    """Whether what an input names is opened, too: other files where it is a file, other addresses
    where it is one or a file."""
    max_pixels: int = MOST_PIXELS
    """Of a picture that is decoded."""
    sandbox: bool = False
    """Whether a process of its own decodes it, behind walls."""

    def __post_init__(self) -> None:
        if self.sandbox and self.follow_references:
            raise UsageError(
                "`--follow-references` reaches out of what `--sandbox` walls in",
                hint="give one of the two",
            )
        if not 1 <= self.max_pixels <= 2**31 - 1:
            raise UsageError(
                f"`--max-pixels` is {self.max_pixels}; it is a whole number from 1 to {2**31 - 1}"
            )

    def check_size(self, name: str, width: int, height: int) -> None:
        """VideoOpenError if pictures of that size are not to be decoded."""
        if width * height > self.max_pixels:
            raise VideoOpenError(
                f"the picture of {name} has {width}x{height} pixels; "
                f"at most {self.max_pixels} in all are decoded",
                hint=f"`--max-pixels {width * height}` allows them, if the memory suffices",
            )

    @property
    def decoder_options(self) -> dict[str, str]:
        """FFmpeg's, for pictures whose size changes later; coded ones are larger by parts of blocks."""
        return {"max_pixels": str(min(2 * self.max_pixels, 2**31 - 1))}

    @property
    def largest_packet_bytes(self) -> int:
        """What one packet may hold."""
        return self.max_pixels * BYTES_PER_PIXEL


USUAL_RULES = InputRules()


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VIDEO_FORMATS = _names(
    "4xm alias_pix amv apng apv asf av1 avi avs avs2 avs3 bethsoftvid bfi bink bmv brender_pix c93 "
    "cavsvideo cdxl cine dfa dhav dirac dnxhd dsicin dv dxa ea evc film_cpk filmstrip flic flv gdv "
    "gif gxf h261 h263 h264 hevc hnm idcin iff ifv ingenient ipmovie ipu iv8 ivf ivr jpegxl_anim jv "
    "kux live_flv lmlm4 luodat lvf lxf m4v matroska mgsts mjpeg mjpeg_2000 mm moflex mov mpeg "
    "mpegts mpegtsraw mpegvideo mpjpeg msnwctcp mtv mv mvi mxf mxg nc nsv nut nuv obu ogg paf pmp "
    "pp_bnk pva r3d rawvideo rl2 rm roq rpl sdr2 ser sga siff smjpeg smk smush swf thp tiertexseq "
    "tmv ty v210 v210x vc1 vc1test vivo vividas vmd vvc wc3movie webp_anim wsvqa wtv xmv yop "
    "yuv4mpegpipe"
)
_PICTURE_FORMATS = _names(
    "bmp_pipe cri_pipe dds_pipe dpx_pipe exr_pipe gem_pipe gif_pipe hdr_pipe j2k_pipe jpeg_pipe "
    "jpegls_pipe jpegxl_pipe jpegxs_pipe pam_pipe pbm_pipe pcx_pipe pfm_pipe pgm_pipe pgmyuv_pipe "
    "pgx_pipe phm_pipe photocd_pipe pictor_pipe png_pipe ppm_pipe psd_pipe qdraw_pipe qoi_pipe "
    "sgi_pipe sunrast_pipe tiff_pipe vbn_pipe webp_pipe xwd_pipe jpegxl_anim"
)
_SOUND_FORMATS = _names(
    "aac ac3 ac4 aiff amr amrnb amrwb ape au caf dts dtshd eac3 flac loas mlp mp3 truehd tta w64 wav "
    "wv"
)
"""Of a file that holds nothing but sound a person is told so; network playlists have sound alone."""

FILE_FORMATS = _VIDEO_FORMATS | _PICTURE_FORMATS | _SOUND_FORMATS
"""FFmpeg's names of the containers that files and pipes are opened with: binary, and of those in
FFmpeg that open nothing besides themselves (Magic Lantern's, `mlv`, opens its further parts)."""

_POINTING_FORMATS = frozenset(
    {"concat", "dash", "hls", "image2", "imf", "sdp", "vobsub", "webm_dash_manifest"}
)
"""Those that a person may name and that open what a file names."""

NETWORK_FORMATS = FILE_FORMATS | {"dash", "hls", "rtp", "rtsp", "sap", "sdp", "webvtt"}

NETWORK_PROTOCOLS = _names(
    "crypto dtls ffrtmphttp ftp gopher gophers http httpproxy https ipfs ipns mmsh mmst rtmp rtmpe "
    "rtmps rtmpt rtmpte rtmpts rtp rtsp rtsps sap sctp srt srtp tcp tls udp udplite"
)
"""What leads to other machines; `crypto` decrypts what came from there."""

_WRAPPING_NAME = re.compile(r"(async|cache|concatf?|crypto|data|subfile)([:,+])", re.IGNORECASE)
"""Names that FFmpeg takes for a way to open others."""

_WRAPPING_PROTOCOLS = ("async", "cache", "concat", "crypto", "data", "subfile")


def whitelists(text: str | None, input_format: str | None, rules: InputRules) -> dict[str, str]:
    """FFmpeg's options that say with what a source may be opened.

    Args:
        text: a path or an address; None for what is read by us, such as a pipe.
        input_format: FFmpeg's name of the container or device, where a person gave it.
    """
    scheme = None if text is None else scheme_of(text)
    is_network = scheme is not None and scheme not in {"file", "pipe", "fd"}
    if is_network:
        protocols = sorted({*NETWORK_PROTOCOLS, str(scheme)})
        formats = NETWORK_FORMATS
    else:
        protocols = ["none"] if text is None else [scheme or "file"]
        formats = FILE_FORMATS
    if rules.follow_references:
        # enable_drefs: QuickTime films that keep their pictures in another file
        others = [*NETWORK_PROTOCOLS, *_WRAPPING_PROTOCOLS] if not is_network else ["data"]
        return {"protocol_whitelist": ",".join([*protocols, *others]), "enable_drefs": "1"}
    return {
        "protocol_whitelist": ",".join(protocols),
        "format_whitelist": ",".join(sorted(formats | ({input_format} if input_format else set()))),
    }


def refuse_names_that_reach(text: str, input_format: str | None, rules: InputRules) -> None:
    """VideoOpenError for a name that is a way to open others, and for a format that only names
    them; unless that is wanted."""
    scheme = scheme_of(text)
    if rules.follow_references:
        return
    is_network = scheme in NETWORK_PROTOCOLS
    wraps = _WRAPPING_NAME.match(text) and not Path(text).exists()
    if wraps or (scheme is not None and scheme not in {*NETWORK_PROTOCOLS, *_OWN_SCHEMES}):
        raise VideoOpenError(
            f"`{text}` is no file and no address: it is a way in which FFmpeg opens others",
            hint=f"name the file itself; {_FOLLOW}",
        )
    if input_format in _POINTING_FORMATS and not is_network:
        raise VideoOpenError(
            f"`{text}` as {input_format} would only name other files", hint=f"{_FOLLOW}"
        )


_OWN_SCHEMES = frozenset({"file", "pipe", "fd", "unix"})


def refuse_content_that_reaches(head: bytes, name: str, rules: InputRules) -> None:
    """VideoOpenError for a source that names others or is a text, by how it begins."""
    if rules.follow_references:
        return
    kind = pointing_kind(head)
    if kind is not None:
        raise VideoOpenError(
            f"{name} is {kind}: it holds no video, it names files or addresses that do",
            hint=f"name those; {_FOLLOW}",
        )
    if is_text(head):
        raise VideoOpenError(
            f"{name} is not a video that FFmpeg can read: it is a text",
            hint="check the name, or try `ffprobe` on it",
        )


_POINTERS: tuple[tuple[bytes, str], ...] = (
    (rb"#extm3u", "an HLS playlist"),
    (rb"ffconcat\b", "a list for FFmpeg's concat"),
    (rb"v=0\s", "a session description (SDP)"),
    (rb"rtsptext|rtsp://", "a redirection"),
    (rb"\[(reference|playlist)\]", "a playlist"),
    (rb"# vobsub index", "a VobSub index"),
    (rb"(file|stream|inpoint) +\S", "a list for FFmpeg's concat"),
    (rb"(https?|rtmpt?s?|mms|file)://\S+\s*$", "an address in a file"),
)
_XML_POINTERS: tuple[tuple[bytes, str], ...] = (
    (rb"<(\w+:)?mpd\b", "a DASH manifest"),
    (rb"<smoothstreamingmedia\b", "a streaming manifest"),
    (rb"<(\w+:)?(compositionplaylist|assetmap)\b", "an IMF playlist"),
    (rb"<(\w+:)?(asx|smil|playlist|rss)\b", "a playlist"),
    (rb"<(\w+:)?svg\b", "a drawing (SVG)"),
)
_SELF_CONTAINED_TEXT = re.compile(rb"YUV4MPEG2|P[1-7]\s|P[Ff]\s|#\?RADIANCE|#\?RGBE|--")
"""Beginnings of pictures and videos that are letters at first."""


def pointing_kind(head: bytes) -> str | None:
    """What it is, if how a source begins says that it only names others."""
    words = _without_mark(head).lstrip().lower()
    found = (kind for pattern, kind in _POINTERS if re.match(pattern, words))
    if words.startswith(b"<"):
        found = (kind for pattern, kind in _XML_POINTERS if re.search(pattern, words))
    return next(found, None)


def is_text(head: bytes) -> bool:
    """Whether what a source begins with is a text and nothing else."""
    words = _without_mark(head)
    if not words or _SELF_CONTAINED_TEXT.match(words):
        return False
    if len(head) >= HEAD_BYTES:  # a letter may be cut in two
        words = words[:-3]
    try:
        text = words.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)


def _without_mark(head: bytes) -> bytes:
    """The text in UTF-8, without the mark of its byte order."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if head.startswith(mark):
            return head[2:].decode(encoding, "ignore").encode()
    return head.removeprefix(b"\xef\xbb\xbf")


def head_of(source: str | BinaryIO) -> bytes:
    """The first bytes of a file or a pipe, which can still be read from the beginning; none of what
    cannot give them."""
    if isinstance(source, str):
        path = Path(source.removeprefix("file:"))
        if not path.is_file():
            return b""
        try:
            with path.open("rb") as file:
                return file.read(HEAD_BYTES)
        except OSError:
            return b""
    if hasattr(source, "peek"):
        return bytes(source.peek(HEAD_BYTES)[:HEAD_BYTES])
    if hasattr(source, "seekable") and source.seekable():
        position = source.tell()
        try:
            return source.read(HEAD_BYTES)
        finally:
            source.seek(position)
    return b""


_BOXES_OF_BOXES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"dinf"})
_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_MOST_BOXES = 10_000


def points_elsewhere(path: Path) -> bool:
    """Whether a QuickTime or MP4 file keeps what a track holds in another file.

    FFmpeg does not open that file, but reads this one at the places meant for the other.
    """
    try:
        with path.open("rb") as file:
            first = file.read(8)
            if first[4:8] not in _FIRST_BOXES:
                return False
            budget = [_MOST_BOXES]
            return _holds_reference(file, 0, path.stat().st_size, budget)
    except OSError:
        return False


def _holds_reference(file: BinaryIO, begin: int, end: int, budget: list[int]) -> bool:
    """Whether boxes between two places hold a reference that is not to the file itself."""
    while begin + 8 <= end and budget[0] > 0:
        budget[0] -= 1
        file.seek(begin)
        head = file.read(16)
        if len(head) < 8:
            return False
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        header_bytes = 8
        if size == 1 and len(head) == 16:
            size, header_bytes = int.from_bytes(head[8:16], "big"), 16
        if size == 0:
            size = end - begin
        if size < header_bytes:
            return False
        inside = (begin + header_bytes, min(begin + size, end))
        if kind in (b"rmra", b"rdrf"):
            return True
        if kind == b"dref" and _is_outside(file, *inside, budget):
            return True
        if kind in _BOXES_OF_BOXES and _holds_reference(file, *inside, budget):
            return True
        begin += size
    return False


def _is_outside(file: BinaryIO, begin: int, end: int, budget: list[int]) -> bool:
    """Whether an entry of a table of references lacks the flag that says: in this file."""
    begin += 8  # version, flags, number of entries
    while begin + 12 <= end and budget[0] > 0:
        budget[0] -= 1
        file.seek(begin)
        entry = file.read(12)
        size, flags = int.from_bytes(entry[:4], "big"), entry[11:12]
        if len(entry) < 12 or size < 12:
            return False
        if not flags[0] & 1:
            return True
        begin += size
    return False
