"""Where clips come from: folders, lists and shards."""

import io
import logging
import tarfile

import numpy as np
import pytest

from instantvir_distill.clips import load_clips
from instantvir_models.errors import VideoOpenError
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
    assert "left out 3 of 5 clips: `no.tar`, `gone.mp4`, `half.tar/broken.mp4`" in caplog.text


def test_a_list_of_nothing_holds_no_video(tmp_path):
    (tmp_path / "mine.txt").write_text("# nothing yet\n")
    with pytest.raises(VideoOpenError, match="no video in"):
        load_clips(tmp_path / "mine.txt", cache=tmp_path / "cache")
