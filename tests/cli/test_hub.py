"""Stories of a checkpoint on the Hub, against a server on this machine and the real client."""

import json
import os
import subprocess
import sys
import time

import pytest

from instantvir_models.checkpoints.config import WanCheckpoint
from instantvir_models.checkpoints.folder import save_folder
from instantvir_models.media import VideoReader
from tests.fake_hub import LARGE_BYTES, Repo, running_hub
from tests.media_clips import make_clip
from tests.wan_small import small_student

COMMAND = [sys.executable, "-c", "from instantvir_cli.app import app; app()"]
FETCH = """
import json, sys
from instantvir_models.checkpoints.hub import fetch
from instantvir_models.errors import CheckpointError
answers = []
for name in sys.argv[1:]:
    repo, _, revision = name.partition("@")
    try:
        answers.append(str(fetch(repo, revision or None).folder))
    except CheckpointError as error:
        answers.append(f"{error} | {error.hint}")
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a small checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_folder(small_student(), folder, WanCheckpoint(task="denoise"))
    (folder / "README.md").write_text("A small one.")
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(found["transformer.safetensors"]) > LARGE_BYTES
    return found


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def environment(hub, tmp_path):
    """Of a process that knows only this Hub; the Hub's settings are read when it starts."""
    known = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([*sys.path]),
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "TOKEN" not in k}
    return kept | known


def run(args, environment):
    return subprocess.run(
        [*COMMAND, *map(str, args)], env=environment, capture_output=True, text=True, timeout=120
    )


def fetched(names, environment):
    """Folder, or sentence and hint, for each name, all by one process."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *names],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_restore_downloads_once_then_asks_nothing_and_works_offline(
    hub, files, environment, tmp_path
):
    hub.repos["org/small"] = repo = Repo(files)
    clip = make_clip(tmp_path / "in.mp4", width=32, height=16, num_frames=10)

    def restore(environment):
        return run(
            [
                "restore",
                clip,
                "--operator",
                "noise:std=5",
                "--model",
                "org/small",
                "--overwrite",
                "--threads",
                "1",
            ],
            environment,
        )

    first = restore(environment)
    assert first.returncode == 0, first.stderr
    assert f"org/small is at commit {repo.commit}" in " ".join(first.stderr.split())
    assert hub.requests
    with VideoReader(tmp_path / "in.restored.mp4") as reader:
        assert len(list(reader)) == 10

    hub.requests.clear()
    second = restore(environment)
    assert second.returncode == 0, second.stderr
    assert hub.requests == []

    offline = restore(environment | {"HF_HUB_OFFLINE": "1"})
    assert offline.returncode == 0, offline.stderr
    assert hub.requests == []


def test_damage_is_found_and_mended_once(hub, files, environment, tmp_path):
    """The client compares sizes alone, so a flipped byte passes it."""
    hub.repos["org/once"] = once = Repo(files, flips=1)
    hub.repos["org/always"] = Repo(files, flips=1000)
    mended, broken = fetched(["org/once", "org/always"], environment)
    assert mended.endswith(once.commit)
    assert "`org/always` is damaged: " in broken
    assert "differs from its sha256, twice" in broken


def test_what_cannot_be_had_is_said_in_a_sentence(hub, files, environment):
    hub.repos["org/private"] = Repo(files, is_private=True)
    hub.repos["org/small"] = Repo(files)
    hub.repos["org/other"] = Repo({"README.md": b"nothing here"})
    answers = fetched(["org/private", "org/missing", "org/small@v9", "org/other"], environment)
    for name, answer in zip(("private", "missing"), answers, strict=False):
        assert f"`org/{name}` cannot be downloaded: it does not exist or is private" in answer
        assert "set HF_TOKEN" in answer
    assert "`org/small` has no revision `v9`" in answers[2]
    assert "holds no checkpoint" in answers[3]
    (offline,) = fetched(["org/small"], environment | {"HF_HUB_OFFLINE": "1"})
    assert "`org/small` is not in the cache, and HF_HUB_OFFLINE forbids" in offline


def test_a_killed_download_leaves_a_usable_cache(hub, files, environment, tmp_path):
    hub.repos["org/small"] = repo = Repo(files, stalls=True)
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, "org/small"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    blobs = tmp_path / "hub" / "hub" / "models--org--small" / "blobs"
    deadline = time.monotonic() + 60
    while not list(blobs.glob("*.incomplete")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert list(blobs.glob("*.incomplete"))
    repo.stalls = False
    (folder,) = fetched([f"org/small@{repo.commit}"], environment)
    assert folder.endswith(repo.commit)
