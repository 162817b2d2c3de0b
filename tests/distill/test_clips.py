"""Where clips come from: folders, lists and shards."""

import io
import logging
import os
import shutil
import tarfile

import numpy as np
import pytest

from instantvir_distill.clips import load_clips
from instantvir_models.errors import VideoOpenError, VideoWriteError
from instantvir_models.media import open_video
from tests.media_clips import make_clip


@pytest.fixture
def videos(tmp_path):
    """Two videos, in folders."""
    paths = [tmp_path / "videos" / "a.mp4", tmp_path / "videos" / "in" / "b.mkv"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        make_clip(path, num_frames=3)
    return paths


def shard(path, videos):
    """As WebDataset writes them: a video and what belongs to it by one key."""
    with tarfile.open(path, "w") as tar:
        for video in videos:
            tar.add(video, f"00/{video.name}")
            note = tarfile.TarInfo(f"00/{video.stem}.json")
            note.size = 2
            tar.addfile(note, io.BytesIO(b"{}"))
    return path


def test_a_shard_holds_the_same_clips_as_its_folder(videos, tmp_path):
    folder = load_clips(tmp_path / "videos", cache=tmp_path / "cache")
    stored = shard(tmp_path / "clips-0.tar", videos)
    inside = load_clips(stored, cache=tmp_path / "cache2")
    assert [clip.name for clip in folder] == [clip.name for clip in inside] == ["a", "b"]
    for one, other in zip(folder, inside, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
    assert sorted(path.suffix for path in (tmp_path / "cache2").iterdir()) == [".npy", ".npy"]
    stored.write_bytes(stored.read_bytes())  # newer: read again
    assert len(load_clips(stored, cache=tmp_path / "cache2")) == 2


def test_a_list_names_videos_and_shards_seen_from_where_it_is(videos, tmp_path):
    shard(tmp_path / "videos" / "more.tar", videos[1:])
    lists = tmp_path / "videos" / "mine.txt"
    lists.write_text("# the good ones\n\na.mp4\n more.tar \n")
    found = load_clips(lists, cache=tmp_path / "cache")
    assert [clip.name for clip in found] == ["a", "b"]


def test_what_cannot_be_read_is_named(videos, tmp_path, caplog):
    bad = tmp_path / "broken.mp4"
    bad.write_bytes(b"no video")
    shard(tmp_path / "videos" / "half.tar", [videos[0], bad])
    (tmp_path / "videos" / "no.tar").write_bytes(b"no shard" * 200)
    (tmp_path / "videos" / "mine.txt").write_text("a.mp4\ngone.mp4\nhalf.tar\nno.tar\n")
    with caplog.at_level(logging.WARNING):
        found = load_clips(tmp_path / "videos" / "mine.txt", cache=tmp_path / "cache")
    assert [clip.name for clip in found] == ["a", "a"]
    assert "left out 3 of 5 clips: `gone.mp4`, `no.tar`, `half.tar/broken.mp4`" in caplog.text


def test_a_list_of_nothing_holds_no_video(tmp_path):
    (tmp_path / "mine.txt").write_text("# nothing yet\n")
    with pytest.raises(VideoOpenError, match="no video in"):
        load_clips(tmp_path / "mine.txt", cache=tmp_path / "cache")


def test_a_list_says_of_each_line_that_is_no_video(videos, tmp_path, caplog):
    (tmp_path / "videos" / "mine.txt").write_text("a.mp4\nin\nnotes.doc\n")
    (tmp_path / "videos" / "notes.doc").write_text("no video")
    with caplog.at_level(logging.WARNING):
        load_clips(tmp_path / "videos" / "mine.txt", cache=tmp_path / "cache")
    assert "left out 2 of 3 clips: `in`, `notes.doc`" in caplog.text


def test_what_a_phone_keeps_in_10_bits_is_learned_from_in_8(tmp_path):
    """It was taken for pictures 257 times as bright."""
    make_clip(tmp_path / "deep.mkv", num_frames=2, codec="ffv1", pix_fmt="gbrp16le")
    (clip,) = load_clips(tmp_path, cache=tmp_path / "cache")
    with open_video(tmp_path / "deep.mkv") as video:
        deep = np.stack([frame.pixels for frame in video])
    assert (deep.dtype, clip.frames.dtype) == (np.uint16, np.uint8)
    np.testing.assert_allclose(clip.frames, deep / 257, atol=0.501)

    (kept,) = (tmp_path / "cache").iterdir()
    np.save(kept, deep)  # as it was kept then
    (clip,) = load_clips(tmp_path, cache=tmp_path / "cache")
    assert clip.frames.dtype == np.uint8


def test_a_damaged_file_of_the_cache_is_decoded_again(videos, tmp_path):
    before = load_clips(videos[0], cache=tmp_path / "cache")[0].frames.copy()
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:200])
    (clip,) = load_clips(videos[0], cache=tmp_path / "cache")
    np.testing.assert_array_equal(clip.frames, before)


def test_the_cache_is_what_numpy_writes(videos, tmp_path):
    """It is written frame by frame, for a tape of an hour fits into no memory."""
    (clip,) = load_clips(videos[0], cache=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    np.save(tmp_path / "whole.npy", clip.frames)
    assert kept.read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_more_than_the_disk_holds_is_told_before_it_is_filled(videos, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(VideoWriteError, match="2 videos take about"):
        load_clips(tmp_path / "videos", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_may_hold_anything(videos, tmp_path, caplog):
    """Circles of links, pipes (which were waited for), folders called like videos, any name."""
    folder = videos[0].parent
    (folder / "round.mp4").symlink_to("round.mp4")
    (folder / "up").symlink_to("..")
    (folder / "a.folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    shutil.copy(videos[0], folder / f"{'long' * 60}.mp4")
    shutil.copy(videos[0], folder / f"{chr(0x6F22) * 80}.mp4")  # 244 bytes
    shutil.copy(videos[0], folder / "two\nlines.mp4")
    shutil.copy(videos[0], os.fsencode(folder) + b"/\xff.mp4")
    make_clip(folder / "tape.VOB", num_frames=3, codec="mpeg2video")
    with caplog.at_level(logging.WARNING):
        clips = load_clips(folder, cache=tmp_path / "cache")
    assert {len(clip.frames) for clip in clips} == {3}
    assert len(clips) == 7
    assert "left out 2 of 9 clips: `pipe.mp4`, `round.mp4`" in caplog.text
