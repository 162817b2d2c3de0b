"""A video decoded behind walls: the same to the bit, and what goes wrong there costs one video."""

import json
import os
import socket
import subprocess
import sys
from contextlib import closing

import cv2
import numpy as np
import pytest

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.media import EncoderSettings, InputRules, create_video, open_video, walled
from instantvir_models.media.plain import from_plain, to_plain
from instantvir_models.media.timeline import Trim
from instantvir_models.run import going_on
from instantvir_models.run.restore import restore
from tests.media_clips import make_clip, packets_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes with limits")

SANDBOX = InputRules(sandbox=True)
HEAD = (
    "import sys; sys.path[:0] = sys.argv.pop(1).split('\\n')\n"
    "from instantvir_models.media import walled_child\n"
    "hand_on = walled_child._hand_on\n"
)
RUN = "\nwalled_child._hand_on = instead\nwalled_child.run(*sys.argv[1:])\n"


def walled_by(program, source):
    """The reader of a source whose decoder is that program instead."""
    return walled.WalledReader(
        source, trim=Trim(), frame_rate=None, threads=1, other_streams=True, fields=None,
        rules=SANDBOX, program=HEAD + program + RUN,
    )  # fmt: skip


@pytest.fixture
def clip(tmp_path):
    return make_clip(
        tmp_path / "clip.mkv", num_frames=6, audio=True, subtitles=[(0, 0.1, "words")],
        chapters=[(0, 0.1, "one")],
    )  # fmt: skip


def of_several_kinds(folder):
    """Sources, and how they are opened."""
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 2**16, (24, 32, 4), np.uint16)
        assert cv2.imwrite(str(folder / f"deep{index}.png"), pixels)
    yield str(folder / "deep%d.png"), {"frame_rate": 7}
    yield make_clip(folder / "ten.mkv", codec="ffv1", pix_fmt="yuv420p10le", num_frames=3), {}
    yield (
        make_clip(folder / "b.mp4", num_frames=30, audio=True, pts=[*range(15), *range(20, 35)]),
        {"start_seconds": 0.4, "duration_seconds": 0.5, "threads": 1},
    )


def test_it_is_the_same_to_the_bit(tmp_path):
    for source, options in of_several_kinds(tmp_path):
        with (
            open_video(source, **options) as plain,
            open_video(source, rules=SANDBOX, **options) as walled_in,
        ):
            frames, others = list(plain), list(walled_in)
            assert walled_in.info == plain.info
            assert walled_in.damage == plain.damage
            assert len(others) == len(frames) > 0
            for one, other in zip(frames, others, strict=True):
                np.testing.assert_array_equal(one.pixels, other.pixels)
                assert (one.alpha is None) == (other.alpha is None)
                assert one.alpha is None or (one.alpha == other.alpha).all()
                assert one.duration * one.time_base == other.duration * other.time_base
                assert (one.coding.codec_name, one.coding.num_bytes, one.coding.step) == (
                    other.coding.codec_name, other.coding.num_bytes, other.coding.step,
                )  # fmt: skip


def test_what_comes_along_comes_along(tmp_path, clip):
    with open_video(clip, rules=SANDBOX) as reader:
        settings = EncoderSettings(codec="ffv1")
        info = reader.info
        with create_video(
            tmp_path / "out.mkv", info_of=reader, width=info.width, height=info.height,
            settings=settings,
        ) as writer:  # fmt: skip
            for frame in reader:
                writer.write(frame)
        assert writer.losses == ()
    with open_video(tmp_path / "out.mkv") as written, open_video(clip) as plain:
        assert [s.codec_name for s in written.info.audio_streams] == ["aac"]
        assert len(written.info.subtitle_streams) == 1
        for one, other in zip(plain, written, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "bgra", "yuva444p10le"])
def test_pictures_beside_subtitles_are_the_same_to_the_bit(tmp_path, pix_fmt):
    """They go through another container."""
    clip = make_clip(
        tmp_path / "clip.mkv",
        num_frames=2,
        codec="ffv1",
        pix_fmt=pix_fmt,
        subtitles=[(0, 0.1, "a")],
    )
    with open_video(clip) as plain, open_video(clip, rules=SANDBOX) as walled_in:
        for one, other in zip(plain, walled_in, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)
            assert one.alpha is None or (one.alpha == other.alpha).all()


def test_a_sentence_stays_a_sentence(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(VideoOpenError, match=r"bad.mp4` is not a video"):
        open_video(tmp_path / "bad.mp4", rules=SANDBOX)


def test_damage_is_told(tmp_path):
    clip = make_clip(tmp_path / "clip.ts", codec="mpeg2video", num_frames=40)
    data = bytearray(clip.read_bytes())
    data[4 * 188 : 9 * 188] = b""
    clip.write_bytes(data)
    with open_video(clip) as plain, open_video(clip, rules=SANDBOX) as walled_in:
        assert len(list(plain)) == len(list(walled_in))
        assert walled_in.damage == plain.damage


HOSTILE = {
    "crash": ("import ctypes\ndef instead(*_): ctypes.string_at(0)", r"crash \(SIGSEGV\)"),
    "eat memory": (
        "def instead(*_): kept = [bytearray(2**28) for _ in range(100)]",
        "needs more memory than the 3072 MiB",
    ),
    "loop": ("def instead(*_):\n    while True: pass", "busy for 2 s without a picture"),
    "give up": ("import os\ndef instead(*_): os._exit(0)", "say nonsense"),
    "lie": (
        "def instead(wanted, pictures, tell): tell(info={'width': 'a'}, fields=None)",
        "say nonsense",
    ),
    "shout": ("def instead(wanted, pictures, tell): tell(info=[0] * 10, frame=1)", "nonsense"),
    "name a number that is never written out": (
        "def instead(wanted, pictures, tell): tell(info=dict(frame_rate='1e999999999'), fields=None)",
        "say nonsense",
    ),
    "use up its time": (
        "import os, signal\ndef instead(*_): os.kill(os.getpid(), signal.SIGXCPU)",
        "busy for 120 s of processor time without a picture",
    ),
    "drip": (
        "import os, time\n"
        "def instead(wanted, pictures, tell):\n"
        "    def only(**what):\n"
        "        tell(**what)\n"
        "        os.write(pictures, bytes.fromhex('1a45dfa3801853806701ffffffffffffffec1f000000'))\n"
        "        while os.write(pictures, bytes(1)): time.sleep(0.1)\n"
        "    hand_on(wanted, pictures, only)",
        "busy for 2 s without a picture",
    ),
    "name walls that are none": ("def instead(_, __, tell): tell(walls=[2])", "say nonsense"),
    "lose what is no loss": (
        "def instead(wanted, pictures, tell): hand_on(\n"
        "    wanted, pictures, lambda **what: tell(**what | (dict(losses=5) if 'damage' in what else {})))",
        "say nonsense",
    ),
    "come at no time": (
        "def instead(wanted, pictures, tell):\n"
        "    def late(**what):\n"
        "        what.get('frame', {})['pts'] = 10**30\n"
        "        tell(**what)\n"
        "    hand_on(wanted, pictures, late)",
        "say nonsense",
    ),
    "hand on what another decoder would have to read": (
        "walled_child.ENCODERS = {'matroska': walled_child.EncoderSettings(codec='libx264')}\n"
        "walled_child.PIX_FMTS = {('matroska', 8, False): 'yuv420p'}\ninstead = hand_on",
        "is not the ffv1 that was to come",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_decoder_does_wrong_is_one_sentence(clip, kind, monkeypatch):
    if kind in ("loop", "drip"):
        monkeypatch.setattr(walled, "LONGEST_SECONDS", 2.0)
        monkeypatch.setattr(walled, "LONGEST_PICTURE_SECONDS", 2.0)
    program, sentence = HOSTILE[kind]
    with pytest.raises(VideoOpenError, match=sentence), closing(walled_by(program, clip)) as reader:
        list(reader)


TRIES = """
import os, socket, subprocess, sys
def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"
def instead(wanted, pictures, tell):
    folder = os.path.dirname(wanted.source[0])
    tell(error=__import__("json").dumps({
        "own": tried(lambda: open(wanted.source[0]).close()),
        "read": tried(lambda: open(folder + "/secret").close()),
        "list": tried(lambda: os.listdir(folder)),
        "make": tried(lambda: open(folder + "/new", "w").close()),
        "write": tried(lambda: open(wanted.source[0], "r+b").close()),
        "remove": tried(lambda: os.unlink(wanted.source[0])),
        "connect": tried(lambda: socket.create_connection(("127.0.0.1", PORT), 5).close()),
        "run": tried(lambda: subprocess.run(["/bin/true"], check=False)),
        "tell tokens": "done" if "A_TOKEN" in os.environ else "PermissionError",
        "memory": tried(lambda: open("/proc/1/mem").close()),
    }), hint=None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock")
def test_the_child_reads_its_file_and_can_do_nothing_else(clip, caplog, monkeypatch):
    monkeypatch.setenv("A_TOKEN", "secret")
    walled._say_walls.cache_clear()
    (clip.parent / "secret").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = TRIES.replace("PORT", str(server.getsockname()[1]))
        caplog.set_level("INFO")
        with pytest.raises(VideoOpenError) as caught:
            walled_by(program, clip)
    done = json.loads(str(caught.value))
    assert done.pop("own") == "done"
    if "Landlock" not in caplog.text:
        pytest.skip("this kernel has no Landlock")
    assert set(done.values()) == {"PermissionError"}, done
    assert clip.exists()


BY_CALLS = """
import os, threading
from pathlib import Path
from instantvir_models.media import walls
walls._landlocked = lambda readable: []
walls.raise_walls(walls.Limits(memory_bytes=2**32), [])
def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"
thread = threading.Thread(target=lambda: None)
print(tried(thread.start), tried(lambda: open(os.__file__)))
folder = os.open(".", os.O_RDONLY)
print(*(tried(what) for what in (
    lambda: os.open("victim", os.O_WRONLY),
    lambda: os.open("victim", os.O_RDONLY | os.O_TRUNC),
    lambda: os.open("new", os.O_CREAT),
    lambda: os.truncate("victim", 0),
    lambda: os.utime("victim"),
    lambda: os.mkdir("new", dir_fd=folder),
    lambda: os.chmod("victim", 0),
    lambda: os.fork() or os._exit(0),
    lambda: os.kill(os.getppid(), 0),
    lambda: os.pidfd_open(os.getppid()),
)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp")
def test_calls_of_the_kernel_change_nothing_where_files_have_no_wall(tmp_path):
    """Without Landlock files could be emptied, folders made, other processes begun and signalled."""
    pytest.importorskip("pyseccomp")
    (tmp_path / "victim").write_text("precious")
    done = subprocess.run(
        [sys.executable, "-c", BY_CALLS], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    able, unable = done.stdout.splitlines()
    assert able == "done done"
    assert set(unable.split()) == {"PermissionError"}
    assert (tmp_path / "victim").read_text() == "precious"


def test_what_comes_along_is_read_again_behind_walls(tmp_path, monkeypatch):
    """A run in pieces ended with an error when they were all there, if there was sound."""
    clip = make_clip(tmp_path / "clip.mp4", width=32, height=24, num_frames=40, audio=True)
    made = []
    for name in ("pieces.mp4", "whole.mp4"):
        out = tmp_path / name
        restore(clip, out, operator="noise:std=3", solver="as_measured", sandbox=True)
        made.append([packets_of(out, kind) for kind in ("audio", "video")])
        monkeypatch.setattr(going_on, "why_in_one_piece", lambda restoration: "it is compared")
    assert len(made[0][0]) > 50
    assert made[0] == made[1]


def test_what_is_found_and_restored_is_the_same(tmp_path):
    """Told nothing: how the codec stored each frame comes through the walls, too."""
    clip = make_clip(tmp_path / "clip.mp4", width=64, height=48, num_frames=8, audio=True)
    reports = {}
    for name, sandbox in (("plain", False), ("walled", True)):
        out = tmp_path / f"{name}.mkv"
        report = restore(clip, out, task="denoise", sandbox=sandbox, codec="ffv1")
        reports[name] = (report.operator, report.estimates, report.frames, report.is_silent)
    assert reports["walled"] == reports["plain"]
    with (
        open_video(tmp_path / "plain.mkv") as plain,
        open_video(tmp_path / "walled.mkv") as walled_in,
    ):
        assert walled_in.info == plain.info
        for one, other in zip(plain, walled_in, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)
            assert one.pts == other.pts


def test_only_files_are_decoded_in_the_sandbox():
    with pytest.raises(UsageError, match="decodes files"):
        open_video("http://127.0.0.1:9/a.mp4", rules=SANDBOX)
    with pytest.raises(UsageError, match="reaches out of what"):
        InputRules(sandbox=True, follow_references=True)


def test_what_is_plain_comes_back_and_what_is_not_is_refused(clip):
    with open_video(clip) as reader:
        info = reader.info
    assert from_plain(type(info), json.loads(json.dumps(to_plain(info)))) == info
    for name, wrong in [("width", "8"), ("frame_rate", "1/0"), ("color", [1]), ("bit_depth", True)]:
        with pytest.raises(ValueError, match=r"."):
            from_plain(type(info), {**to_plain(info), name: wrong})
    with pytest.raises(ValueError, match="other fields"):
        from_plain(type(info), {})
