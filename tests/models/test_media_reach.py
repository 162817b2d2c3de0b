"""A file opens only itself, an address only addresses, and nothing costs more than is allowed."""

import http.server
import io
import struct
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.media import InputRules, open_video
from tests.media_clips import make_clip
from tests.watched import Doorbell, Watched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are watched by inotify")

FOLLOW = InputRules(follow_references=True)


def box(kind: bytes, *inside: bytes) -> bytes:
    """One box of a QuickTime file."""
    content = b"".join(inside)
    return struct.pack(">I", 8 + len(content)) + kind + content


def quicktime_elsewhere(clip: Path, entry: bytes) -> bytes:
    """The clip, whose table of references has been exchanged for one with `entry`, not in the file."""
    data = clip.read_bytes()
    place = data.index(b"dref") - 4
    old = int.from_bytes(data[place : place + 4], "big")
    new = box(b"dref", struct.pack(">II", 0, 1), entry)
    grown = bytearray(data[:place] + new + data[place + old :])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):  # every box around it grows
        at = data.index(kind) - 4
        size = int.from_bytes(data[at : at + 4], "big")
        grown[at : at + 4] = struct.pack(">I", size + len(new) - old)
    return bytes(grown)


def alias(path: Path) -> bytes:
    """An alias record of the old Macintosh to a path."""
    name = str(path).encode()
    tail = (
        struct.pack(">HH", 18, len(name))
        + name
        + b"\0" * (len(name) % 2)
        + struct.pack(">hH", -1, 0)
    )
    return box(b"alis", struct.pack(">I", 0), b"\0" * 150, tail)


POINTERS = {
    # name of the file: what is in it; {secret} is a video beside it, {url} an address
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
    "hls_relative.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "hls_called_a_film.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
    "hls_with_a_mark.m3u8": "\ufeff#EXTM3U\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
    "hls_of_addresses.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}/a.ts\n#EXT-X-ENDLIST\n",
    "hls_master.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{secret}\n",
    "hls_master_of_addresses.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}/a.m3u8\n",
    "hls_key.m3u8": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{secret}"\n#EXTINF:9,\na.ts\n#EXT-X-ENDLIST\n',
    "hls_map.m3u8": '#EXTM3U\n#EXT-X-MAP:URI="{secret}"\n#EXTINF:9,\na.mp4\n#EXT-X-ENDLIST\n',
    "hls_concat.m3u8": "#EXTM3U\n#EXTINF:9,\nconcat:{secret}|{secret}\n#EXT-X-ENDLIST\n",
    "hls_subfile.m3u8": "#EXTM3U\n#EXTINF:9,\nsubfile,,start,0,end,99,,:{secret}\n#EXT-X-ENDLIST\n",
    "dash.mpd": '<?xml version="1.0"?><MPD type="static"><Period><AdaptationSet><Representation>'
    "<BaseURL>{secret}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "dash_of_addresses.mpd": "<MPD><BaseURL>{url}/</BaseURL></MPD>",
    "list.ffconcat": "ffconcat version 1.0\nfile '{secret}'\n",
    "list_called_a_film.mkv": "ffconcat version 1.0\nfile '{secret}'\n",
    "list_of_addresses.txt": "ffconcat version 1.0\nfile '{url}/a.mp4'\n",
    "list_without_a_head.txt": "file '{secret}'\n",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    "redirect.asx": '<asx version="3.0"><entry><ref href="{url}/a.asf"/></entry></asx>',
    "redirect.smil": '<smil><body><video src="{secret}"/></body></smil>',
    "redirect.wmv": "[Reference]\nRef1={url}/a.asf\n",
    "redirect.pls": "[playlist]\nFile1={secret}\n",
    "redirect.ram": "{url}/a.rm\n",
    "redirect.mov": "RTSPtext\nrtsp://127.0.0.1:{port}/a\n",
    "drawing.svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{secret}"/></svg>',
    "drawing.png": '<?xml version="1.0"?>\n<svg><image href="{url}/a.png"/></svg>',
    "imf.xml": "<CompositionPlaylist><Id>{secret}</Id></CompositionPlaylist>",
    "assetmap.xml": '<?xml version="1.0"?>\n<am:AssetMap><Path>{secret}</Path></am:AssetMap>',
    "words.idx": "# VobSub index file, v7\ntimestamp: 00:00:01:101, filepos: 000000000\n",
    "smooth.ism": "<SmoothStreamingMedia><Url>{url}</Url></SmoothStreamingMedia>",
    "subtitles.srt": "1\n00:00:00,000 --> 00:00:01,000\nNo video at all\n",
}

NAMES = [
    "subfile,,start,0,end,0,,:{secret}",
    "concat:{secret}|{secret}",
    "concatf:{list}",
    "async:{secret}",
    "cache:{secret}",
    "crypto:{secret}",
    "data:video/mp4;base64,AAAA",
    "async:{url}/a.mp4",
    "crypto+{url}/a.mp4",
    "ffrtmpcrypt://127.0.0.1:{port}/a",
]


@pytest.fixture
def outside(tmp_path):
    """A video that nobody named, and a port that nobody was told of."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    secret = make_clip(folder / "secret.ts", num_frames=40, codec="mpeg2video")
    (folder / "list").write_text(f"{secret}\n")
    watched, bell = Watched(secret, folder / "list"), Doorbell()
    yield secret, watched, bell
    watched.close()
    bell.close()


def told(words: str, secret: Path, bell: Doorbell) -> str:
    """The words with the places filled in."""
    places = {
        "{secret}": str(secret),
        "{list}": str(secret.with_name("list")),
        "{url}": f"http://127.0.0.1:{bell.port}",
        "{port}": str(bell.port),
    }
    for place, value in places.items():
        words = words.replace(place, value)
    return words


@pytest.mark.parametrize("way", ["by name", "as a file object", "on standard input"])
@pytest.mark.parametrize("name", POINTERS)
def test_a_file_that_points_elsewhere_opens_nothing(outside, name, way, monkeypatch):
    secret, watched, bell = outside
    path = secret.with_name(name)
    path.write_text(told(POINTERS[name], secret, bell), encoding="utf-8")
    source = path
    if way == "as a file object":
        source = io.BytesIO(path.read_bytes())
    if way == "on standard input":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(path.open("rb", 0))))
        source = "-"
    with pytest.raises(VideoOpenError, match=r"it names|it is a text"):
        open_video(source)
    assert not watched.opened()
    assert not bell.was_rung


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_wraps_another_opens_nothing(outside, name):
    secret, watched, bell = outside
    with pytest.raises(VideoOpenError):
        open_video(told(name, secret, bell))
    assert not watched.opened()
    assert not bell.was_rung


@pytest.mark.parametrize("kind", ["alis", "url ", "reference film"])
def test_a_quicktime_film_that_keeps_its_pictures_elsewhere_is_refused(tmp_path, outside, kind):
    secret, watched, bell = outside
    clip = make_clip(tmp_path / "clip.mov", num_frames=3)
    if kind == "reference film":
        where = f"http://127.0.0.1:{bell.port}/a.mov\0".encode()
        reference = box(
            b"rdrf", struct.pack(">I", 0), b"url ", struct.pack(">I", len(where)), where
        )
        data = box(b"moov", box(b"rmra", box(b"rmda", reference)))
    else:
        entry = (
            alias(secret) if kind == "alis" else box(b"url ", struct.pack(">I", 0), bytes(secret))
        )
        data = quicktime_elsewhere(clip, entry)
    film = tmp_path / "film.mov"
    film.write_bytes(data)
    with pytest.raises(VideoOpenError, match="keeps its pictures in another file"):
        open_video(film)
    assert not watched.opened()
    assert not bell.was_rung


def test_a_film_in_parts_opens_none_of_them(tmp_path):
    """Magic Lantern's: FFmpeg opened film.M00, film.M01 and so on beside film.MLV."""

    def head(number: int) -> bytes:
        numbers = struct.pack("<QHHIHHIIII", 7, number, 2, 0, 1, 0, 1, 0, 25000, 1000)
        return b"MLVI" + struct.pack("<I", 52) + b"v2.0\0\0\0\0" + numbers

    raw = b"RAWI" + struct.pack("<IQHH", 180, 0, 64, 48) + bytes(160)
    (tmp_path / "film.MLV").write_bytes(head(0) + raw)
    second = tmp_path / "film.M00"
    second.write_bytes(head(1))
    watched = Watched(second)
    with pytest.raises(VideoOpenError, match="is of a kind that is not opened"):
        open_video(tmp_path / "film.MLV")
    assert not watched.opened()
    watched.close()


@pytest.mark.parametrize("format_name", ["hls", "concat", "sdp", "image2", "dash"])
def test_a_format_that_only_names_others_is_refused_by_name(tmp_path, format_name):
    clip = make_clip(tmp_path / "clip.mp4", num_frames=1)
    with pytest.raises(VideoOpenError, match="would only name other files"):
        open_video(clip, input_format=format_name)


def test_a_number_in_the_name_of_a_file_is_no_pattern(tmp_path):
    """FFmpeg would open a0.png, a1.png, ... instead."""
    image = np.full((16, 16, 3), 200, np.uint8)
    assert cv2.imwrite(str(tmp_path / "a1.png"), image)
    (tmp_path / "a1.png").rename(tmp_path / "a%d.png")
    assert cv2.imwrite(str(tmp_path / "a1.png"), 0 * image)
    with open_video(tmp_path / "a%d.png") as reader:
        assert [frame.pixels.mean() for frame in reader] == [200]


def test_images_by_a_pattern_go_on_working(tmp_path):
    for index in range(3):
        assert cv2.imwrite(str(tmp_path / f"a{index}.png"), np.zeros((16, 16, 3), np.uint8))
    with open_video(str(tmp_path / "a%d.png")) as reader:
        assert len(list(reader)) == 3


def test_what_is_named_is_opened_where_that_is_wanted(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", num_frames=3)
    (tmp_path / "list.txt").write_text(
        f"ffconcat version 1.0\nfile '{clip.name}'\nfile '{clip.name}'\n"
    )
    with open_video(tmp_path / "list.txt", rules=FOLLOW) as reader:
        assert len(list(reader)) == 6


@contextmanager
def served(answers: dict[str, tuple[int, dict[str, str], bytes]]):
    """An address of this machine with these pages: status, headers and body by path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, headers, body = answers.get(self.path, (404, {}, b""))
            self.send_response(code)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def playlist(*segments: object) -> bytes:
    """An HLS playlist of these."""
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:9"]
    for segment in segments:
        lines += ["#EXTINF:9,", str(segment)]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()


def test_an_address_does_not_turn_into_a_file(outside):
    secret, watched, _ = outside
    film = secret.read_bytes()
    watched.opened()
    answers = {
        "/redirect": (302, {"Location": f"file://{secret}"}, b""),
        "/file.m3u8": (200, {}, playlist(f"file:{secret}")),
        "/bare.m3u8": (200, {}, playlist(secret)),
        "/concat.m3u8": (200, {}, playlist(f"concat:{secret}|{secret}")),
        "/list": (200, {}, f"ffconcat version 1.0\nfile 'file:{secret}'\n".encode()),
        "/good.m3u8": (200, {}, playlist("good.ts")),
        "/good.ts": (200, {}, film),
    }
    with served(answers) as url:
        for path in ("/redirect", "/file.m3u8", "/bare.m3u8", "/concat.m3u8", "/list"):
            with pytest.raises(VideoOpenError):
                open_video(url + path, timeout_seconds=5)
            assert not watched.opened(), path
        with open_video(url + "/good.m3u8", timeout_seconds=5) as reader:
            assert len(list(reader)) == 40


def test_pictures_that_are_too_large_are_not_decoded(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", width=64, height=48, num_frames=1)
    assert cv2.imwrite(str(tmp_path / "a1.png"), np.zeros((48, 64, 3), np.uint8))
    for source in (clip, str(tmp_path / "a%d.png")):
        with pytest.raises(VideoOpenError, match=r"64x48 pixels; at most 3071") as caught:
            open_video(source, rules=InputRules(max_pixels=64 * 48 - 1))
        assert "--max-pixels 3072" in caught.value.hint
        with open_video(source, rules=InputRules(max_pixels=64 * 48)) as reader:
            assert len(list(reader)) == 1


def test_a_number_of_pixels_that_cannot_be_is_a_sentence():
    with pytest.raises(UsageError, match="--max-pixels"):
        InputRules(max_pixels=0)


def test_a_container_of_hundreds_of_streams_is_refused(tmp_path):
    with av.open(str(tmp_path / "many.mkv"), "w") as container:
        for _ in range(260):
            stream = container.add_stream("mpeg4", rate=25)
            stream.width = stream.height = 16
        for packet in container.streams[0].encode(av.VideoFrame(16, 16, "yuv420p")):
            container.mux(packet)
    with pytest.raises(VideoOpenError, match="has 260 streams; at most 256"):
        open_video(tmp_path / "many.mkv")
