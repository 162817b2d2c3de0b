"""What is mutated, and what may come of it: a result or a sentence, never a traceback."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from instantvir_models.checkpoints.config import CONFIG_NAME, WanCheckpoint
from instantvir_models.checkpoints.folder import load_folder, save_folder
from instantvir_models.checkpoints.load import load_student, save_student
from instantvir_models.errors import InstantVIRError
from instantvir_models.live.controls import Controls
from instantvir_models.live.serve import preview
from instantvir_models.live.serve.bounded import parsed
from instantvir_models.live.serve.preview import LatestPair, PreviewServer
from instantvir_models.live.serve.wishes import apply_wishes
from instantvir_models.media import EncoderSettings, InputRules, create_video, open_video, walled
from instantvir_models.media.plain import to_plain
from instantvir_models.media.timeline import Trim
from instantvir_models.media.walled_child import Wanted
from instantvir_models.operators.sidecar import FORMAT, read_sidecar, sidecar_path
from instantvir_models.operators.spec import load_mask, save_mask
from tests import wan_small
from tests.live_tools import STATUS, frame, small_student
from tests.media_clips import make_clip

RULES = InputRules(max_pixels=2**22)
MOST_FRAMES = 40

preview.LONGEST_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Target:
    """A parser of ours, what it is given when all is well, and how to give it something."""

    name: str
    seeds: Callable[[Path], dict[str, bytes]]
    """Whole inputs by a name with the suffix that they need; made in a folder."""
    run: Callable[[bytes, str, Path], str]
    """What came of the bytes, called by that name, in an empty folder: a word, or raises."""


def _sentence(error: InstantVIRError) -> str:
    """A word for an expected failure; it has to be words that a person can be shown."""
    text = str(error)
    assert 0 < len(text) < 2000, text
    return f"sentence {type(error).__name__}"


def media_seeds(folder: Path) -> dict[str, bytes]:
    clips = {
        "h264.mp4": {"audio": True, "chapters": [(0, 0.1, "a")]},
        "ffv1.mkv": {"codec": "ffv1", "subtitles": [(0, 0.1, "words")], "audio": True},
        "mpeg2.ts": {"codec": "mpeg2video", "audio": True},
        "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
        "mpeg4.mov": {"codec": "mpeg4"},
        "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
        "ffv1.nut": {"codec": "ffv1"},
        "flv1.flv": {"codec": "flv1"},
        "picture.gif": {"codec": "gif", "pix_fmt": "rgb8"},
        "raw.y4m": {"codec": "wrapped_avframe", "pix_fmt": "yuv420p"},
        "raw.mxf": {"codec": "mpeg2video"},
        "theora.ogg": {"codec": "libtheora"},
        "moving.webp": {"codec": "libwebp_anim", "pix_fmt": "bgra"},
    }
    made = {}
    for name, options in clips.items():
        with suppress(av.FFmpegError, ValueError):  # of an encoder that this FFmpeg lacks
            made[name] = make_clip(folder / name, num_frames=4, **options).read_bytes()
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp"):
        encoded, data = cv2.imencode(suffix, pixels)
        assert encoded
        made[f"picture{suffix}"] = data.tobytes()
    made["list.m3u8"] = (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/hostname\n#EXT-X-ENDLIST\n"
    )
    made["list.ffconcat"] = b"ffconcat version 1.0\nfile /etc/hostname\n"
    return made


def run_media(data: bytes, name: str, folder: Path) -> str:
    """Read it as `restore` does, with all that comes along, and write what was read."""
    source, results = folder / name, folder / "results"
    source.write_bytes(data)
    results.mkdir()
    output = results / "out.mkv"
    digest, count = hashlib.sha256(), 0
    try:
        with open_video(source, rules=RULES, threads=1) as reader:
            info = reader.info
            settings = EncoderSettings(codec="ffv1")
            with create_video(
                output, info_of=reader, width=info.width, height=info.height, settings=settings
            ) as writer:
                for picture in reader:
                    digest.update(picture.pixels.tobytes())
                    writer.write(picture)
                    count += 1
                    if count == MOST_FRAMES:
                        break
        damage = reader.damage.message
    except InstantVIRError as error:
        assert not list(results.iterdir()), "half a file was left"
        return _sentence(error)
    assert [path.name for path in results.iterdir()] == ["out.mkv"]
    with av.open(str(output)) as written:
        assert written.streams.video
    return f"{'damaged' if damage else 'whole'} {digest.hexdigest()[:16]} {count}"


def walled_seeds(folder: Path) -> dict[str, bytes]:
    """What an honest child hands on of two videos, for which it takes two containers."""
    made = {}
    for name, options in {"nut": {}, "matroska": {"subtitles": [(0, 0.1, "words")]}}.items():
        clip = make_clip(folder / f"{name}.mkv", num_frames=3, audio=True, **options)
        for part, data in zip(("words", "pictures"), _handed_on(clip), strict=True):
            made[f"{name}.{part}"] = data
    return made


@cache
def _handed_on(clip: Path) -> tuple[bytes, bytes]:
    """The lines and the pictures of a child; a few."""
    pipes = [os.pipe(), os.pipe()]
    wanted = Wanted(
        source=(str(clip),), is_sequence=False, start_seconds=None, duration_seconds=None,
        frame_rate=None, threads=1, other_streams=True, fields=None, max_pixels=RULES.max_pixels,
        memory_bytes=walled.MEMORY_BYTES,
    )  # fmt: skip
    numbers = [str(write_end) for _, write_end in pipes]
    walled._widen(pipes[0][1])
    subprocess.run(
        [sys.executable, "-c", walled._PROGRAM, "\n".join(walled._import_folders()),
         json.dumps(to_plain(wanted)), *numbers],
        pass_fds=[write_end for _, write_end in pipes], check=True,
    )  # fmt: skip
    pictures, words = (_emptied(*pipe) for pipe in pipes)
    return words, pictures


def _emptied(read_end: int, write_end: int) -> bytes:
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        return pipe.read()


_REPLAY = (
    "import os, sys; from pathlib import Path\n"
    "for name, pipe in zip(('pictures', 'words'), sys.argv[-2:]):\n"
    "    with os.fdopen(int(pipe), 'wb') as file: file.write(Path({folder!r}, name).read_bytes())\n"
)


def run_walled(data: bytes, name: str, folder: Path) -> str:
    """A decoder that was taken over says what it likes; what comes is written, too."""
    container, wrong = name.split(".")
    whole = dict(
        zip(
            ("words", "pictures"),
            _handed_on(folder.parent / "seeds" / f"{container}.mkv"),
            strict=True,
        )
    )
    for part, content in (whole | {wrong: data}).items():
        (folder / part).write_bytes(content)
    (folder / "in.mkv").touch()
    try:
        with (
            closing(walled.WalledReader(
                folder / "in.mkv", trim=Trim(), frame_rate=None, threads=1, other_streams=True,
                fields=None, rules=InputRules(sandbox=True, max_pixels=RULES.max_pixels),
                program=_REPLAY.format(folder=str(folder)),
            )) as reader,
            create_video(
                folder / "out.mkv", info_of=reader, width=reader.info.width,
                height=reader.info.height, settings=EncoderSettings(codec="ffv1"),
            ) as writer,
        ):  # fmt: skip
            count = 0
            for picture in reader:
                writer.write(picture)
                count += 1
    except InstantVIRError as error:
        assert not (folder / "out.mkv").exists(), "half a file was left"
        return _sentence(error)
    return f"read {count}"


def mask_seeds(folder: Path) -> dict[str, bytes]:
    still, several = torch.ones(1, 1, 24, 32), (torch.rand(3, 1, 24, 32) < 0.5).float()
    still[..., :8, :8] = 0
    white = np.full((24, 32), 255, np.uint8)
    others = (".jpg", ".bmp", ".tif", ".webp")
    return {
        "mask.png": save_mask(still, folder / "still").read_bytes(),
        "masks.npz": save_mask(several, folder / "several").read_bytes(),
        **{f"mask{suffix}": cv2.imencode(suffix, white)[1].tobytes() for suffix in others},
    }


def run_mask(data: bytes, name: str, folder: Path) -> str:
    path = folder / name
    path.write_bytes(data)
    try:
        mask = load_mask(path)
    except InstantVIRError as error:
        return _sentence(error)
    assert mask.ndim == 4
    assert mask.shape[1] == 1
    assert bool(((mask == 0) | (mask == 1)).all())
    return f"mask {tuple(mask.shape)}"


def note_seeds(folder: Path) -> dict[str, bytes]:
    operators = (
        "blur:sigma=3+down:factor=2,kernel=area+noise:std=5",
        "motion:length=11,angle=30+noise:std=2",
        "blur:sigma=4,sigma_short=1,angle=30+temporal:kernel=gaussian,size=7,sigma=1",
        "mask:path=own.png+noise:std=3",
        "defocus:radius=3.5+psf:path=own.png",
        "sharpen:amount=1.2,sigma=1.2",
    )
    return {
        f"{index}.json": json.dumps(
            {"format": FORMAT, "operator": operator, "made_with": operator, "seed": 0}, indent=2
        ).encode()
        for index, operator in enumerate(operators)
    }


def run_note(data: bytes, name: str, folder: Path) -> str:
    video = folder / "y.mkv"
    sidecar_path(video).write_bytes(data)
    cv2.imwrite(str(folder / "own.png"), np.eye(9, dtype=np.uint8) * 255)
    try:
        found = read_sidecar(video)
    except InstantVIRError as error:
        return _sentence(error)
    assert found is not None
    return f"operator {found.operator.traits.known_fraction:.3f}"


def configuration_seeds(folder: Path) -> dict[str, bytes]:
    save_folder(wan_small.small_student(), folder / "wan", WanCheckpoint())
    save_student(small_student(), folder / "tiny.safetensors")
    return {
        "config.json": (folder / "wan" / CONFIG_NAME).read_bytes(),
        "transformer.safetensors": (folder / "wan" / "transformer.safetensors").read_bytes(),
        "tiny.safetensors": (folder / "tiny.safetensors").read_bytes(),
    }


@cache
def _whole_folder(folder: Path) -> dict[str, bytes]:
    """The files of a checkpoint, by name."""
    save_folder(wan_small.small_student(), folder / "whole", WanCheckpoint())
    return {path.name: path.read_bytes() for path in (folder / "whole").iterdir()}


def run_configuration(data: bytes, name: str, folder: Path) -> str:
    try:
        if name == "tiny.safetensors":
            (folder / name).write_bytes(data)
            load_student(str(folder / name))
        else:
            for other, content in _whole_folder(folder.parent).items():
                (folder / other).write_bytes(data if other == name else content)
            load_folder(folder)
    except InstantVIRError as error:
        return _sentence(error)
    return "loaded"


def control_seeds(folder: Path) -> dict[str, bytes]:
    wishes = (
        {"is_on": True, "strength": 0.5}, {"prompt": "a street at night"}, {"snapshot": True},
        {"status": True, "strength": 1}, {"is_on": False, "prompt": None},
    )  # fmt: skip
    return {f"{index}.line": json.dumps(wish).encode() for index, wish in enumerate(wishes)}


def run_control(data: bytes, name: str, folder: Path) -> str:
    controls = Controls()
    try:
        apply_wishes(controls, parsed(data), may_name_files=True)
    except InstantVIRError as error:
        return _sentence(error)
    return f"changed {controls.settings.strength}"


def request_seeds(folder: Path) -> dict[str, bytes]:
    body = b'{"is_on": false, "strength": 0.5}'
    post = (
        b"POST /controls HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    get = b"GET /%b HTTP/1.1\r\nHost: 127.0.0.1:80\r\nX-Token: a\r\nAccept: */*\r\n\r\n"
    return {
        "page": get % b"",
        "pair": get % b"pair.jpg?after=0&token=a",
        "status": get % b"status.json" * 3,
        "post": post + get % b"status.json",
    }


@cache
def _page() -> PreviewServer:
    pairs = LatestPair()
    pairs.put(frame(), frame())
    return PreviewServer(
        host="127.0.0.1", port=0, pairs=pairs, controls=Controls(), status=lambda: STATUS
    )


def run_request(data: bytes, name: str, folder: Path) -> str:
    """As the server's thread does it, with a browser that has sent all it will."""
    ours, theirs = socket.socketpair()
    server = _page()._server
    with ours, theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
        theirs.sendall(data[:100_000])
        theirs.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            server.finish_request(ours, ("127.0.0.1", 1))
        ours.shutdown(socket.SHUT_RDWR)
        answer = b"".join(iter(lambda: theirs.recv(65536), b""))
    assert b"Traceback" not in answer
    return f"answer {answer[9:12].decode('latin-1')}"


TARGETS = {
    target.name: target
    for target in (
        Target("media", media_seeds, run_media),
        Target("walled", walled_seeds, run_walled),
        Target("mask", mask_seeds, run_mask),
        Target("note", note_seeds, run_note),
        Target("configuration", configuration_seeds, run_configuration),
        Target("control", control_seeds, run_control),
        Target("request", request_seeds, run_request),
    )
}
