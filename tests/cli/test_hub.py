"""Stories of a checkpoint on the Hub, against a server on this machine and the real client."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from instantvir_cli.exit_status import ExitStatus
from instantvir_distill.saved import claim
from instantvir_models.checkpoints.config import FORMAT, WanCheckpoint
from instantvir_models.checkpoints.folder import save_folder
from instantvir_models.checkpoints.hub import MARKER_FOLDER
from instantvir_models.checkpoints.load import load_student, locate
from instantvir_models.errors import CheckpointError
from instantvir_models.media import open_video
from tests.fake_hub import LARGE_BYTES, TOKEN, Repo, running_hub
from tests.media_clips import make_clip
from tests.small_runs import SMALL, clip, trainer
from tests.wan_small import small_student

COMMAND = [sys.executable, "-c", "from instantvir_cli.app import app; app()"]
TRANSFORMER = "transformer.safetensors"
CLIENT_CHUNK_BYTES = 10 * 2**20
"""What huggingface_hub writes at once; what is less is lost when the connection breaks off."""

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
    more = {"unlisted.safetensors": bytes(LARGE_BYTES), "video.mp4": bytes(LARGE_BYTES)}
    hub.repos["org/small"] = repo = Repo(files | more)
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
    assert hub.served.keys() == {"autoencoder.safetensors", TRANSFORMER}
    with open_video(tmp_path / "in.restored.mp4") as reader:
        assert len(list(reader)) == 10

    hub.requests.clear()
    second = restore(environment)
    assert second.returncode == 0, second.stderr
    assert hub.requests == []

    offline = restore(environment | {"HF_HUB_OFFLINE": "1"})
    assert offline.returncode == 0, offline.stderr
    assert hub.requests == []


def test_a_cache_that_cannot_be_written_still_gives_what_it_holds(
    hub, files, environment, tmp_path
):
    """A file stands where the mark of a verified snapshot would: root may write anywhere."""
    hub.repos["org/small"] = repo = Repo(files)
    (folder,) = fetched(["org/small"], environment)
    mark = Path(folder).parents[1] / MARKER_FOLDER
    shutil.rmtree(mark)
    mark.write_text("")
    (again,) = fetched(["org/small"], environment | {"HF_HUB_OFFLINE": "1"})
    assert again == folder
    assert again.endswith(repo.commit)


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
    assert "`org/other` holds no checkpoint of instantvir" in answers[3]
    (offline,) = fetched(["org/small"], environment | {"HF_HUB_OFFLINE": "1"})
    assert "`org/small` is not in the cache, and HF_HUB_OFFLINE forbids" in offline


def test_names_that_no_repository_can_have(hub, environment):
    names = ["a/b/c", "../x", "a/..", "a/b--c", "a b/c", ".a/b", "a/" + "b" * 200, "org/x.git"]
    answers = fetched(names, environment)
    for name, answer in zip(names, answers, strict=True):
        assert f"`{name}` is no file or folder here, and no repository" in answer
        with pytest.raises(CheckpointError, match=r"no model called|is no file or folder here"):
            locate(name)
    assert hub.requests == []


def test_a_foreign_repository_costs_no_download(hub, environment):
    """Its weights may be a hundred gigabytes, and none of them are of use."""
    hub.repos["org/wan"] = Repo({"model.safetensors": bytes(LARGE_BYTES), "README.md": b""})
    hub.repos["org/diffusers"] = Repo(
        {"model.safetensors": bytes(LARGE_BYTES), "config.json": b'{"_class_name": "Wan"}'}
    )
    answers = fetched(["org/wan", "org/diffusers"], environment)
    assert "`org/wan` holds no checkpoint of instantvir: it has no config.json" in answers[0]
    assert "instantvir convert SRC -o DIR" in answers[0]
    assert "does not say `format`" in answers[1]
    assert not hub.served


def test_a_repository_that_lacks_a_file_is_not_called_damaged(hub, files, environment):
    some = {name: data for name, data in files.items() if name != "autoencoder.safetensors"}
    hub.repos["org/some"] = Repo(some)
    (answer,) = fetched(["org/some"], environment)
    assert "`org/some` is not complete: its config.json lists autoencoder.safetensors" in answer


def test_a_hub_that_fails_is_said_in_a_sentence(hub, files, environment):
    hub.repos["org/small"] = Repo(files, status=500)
    (answer,) = fetched(["org/small"], environment)
    assert "`org/small` cannot be downloaded: the Hub does not answer" in answer
    nobody = environment | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    (answer,) = fetched(["org/small"], nobody)
    assert "`org/small` cannot be downloaded: " in answer
    assert "set HF_ENDPOINT to a mirror" in answer


BROKEN = {"HF_HUB_DOWNLOAD_TIMEOUT": "1"}


@pytest.mark.parametrize("fault", [{"drops": 1000}, {"stalls": frozenset({TRANSFORMER})}])
def test_a_connection_that_breaks_off_or_stalls_is_said_in_a_sentence(
    hub, files, environment, fault
):
    hub.repos["org/small"] = repo = Repo(files, **fault)
    loaded = run(["info", "org/small"], environment | BROKEN)
    assert loaded.returncode == ExitStatus.NO_CHECKPOINT, loaded.stderr
    said = " ".join(loaded.stderr.split())
    assert f"`org/small` at revision `{repo.commit}` cannot be downloaded: the connection" in said
    assert "complete files are kept" in said
    assert "Traceback" not in said


def test_a_dropped_connection_is_resumed_where_it_broke_off(hub, environment):
    large = random.Random(0).randbytes(3 * CLIENT_CHUNK_BYTES)
    digests = {"large.safetensors": hashlib.sha256(large).hexdigest()}
    config = json.dumps({"format": FORMAT, "sha256": digests}).encode()
    hub.repos["org/large"] = repo = Repo(
        {"config.json": config, "large.safetensors": large}, drops=1
    )
    (folder,) = fetched(["org/large"], environment)
    assert Path(folder, "large.safetensors").read_bytes() == large
    assert repo.drops == 0
    assert f"RANGE large.safetensors {CLIENT_CHUNK_BYTES}" in hub.requests
    assert hub.served["large.safetensors"] < 1.5 * len(large)


def test_a_killed_download_goes_on_with_what_is_missing(hub, files, environment, tmp_path):
    """The client starts a half file anew in a new process, but keeps every whole one."""
    hub.repos["org/small"] = repo = Repo(files, stalls=frozenset({TRANSFORMER}))
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, "org/small"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    snapshot = tmp_path / "hub" / "hub" / "models--org--small" / "snapshots" / repo.commit
    deadline = time.monotonic() + 60
    while not (snapshot / "autoencoder.safetensors").exists() or not hub.served[TRANSFORMER]:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert not (snapshot / TRANSFORMER).exists()

    offline = run(["info", "org/small"], environment | {"HF_HUB_OFFLINE": "1"})
    assert offline.returncode == ExitStatus.NO_CHECKPOINT
    assert "is not in the cache" in " ".join(offline.stderr.split())

    repo.stalls = frozenset()
    hub.served.clear()
    (folder,) = fetched(["org/small"], environment)
    assert folder == str(snapshot)
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == files
    assert hub.served == {TRANSFORMER: len(files[TRANSFORMER])}


def test_what_a_run_made_is_pushed_and_anybody_may_take_it(hub, environment, tmp_path):
    run_of = trainer(SMALL, [clip("a_1")], tmp_path / "run")
    claim(SMALL, tmp_path / "run")
    run_of.save()
    mine = environment | {"HF_TOKEN": TOKEN}
    push = ["export", tmp_path / "run", "-o", tmp_path / "out", "--push", "me/mine"]

    refused = run(push, environment | {"HF_TOKEN": "hf_of_nobody"})
    assert refused.returncode == ExitStatus.NO_CHECKPOINT
    assert "`me/mine` cannot be uploaded" in refused.stderr
    assert hub.repos == {}

    pushed = run([*push, "--overwrite"], mine)
    assert pushed.returncode == 0, pushed.stderr
    assert "`--model me/mine` takes it from there" in " ".join(pushed.stderr.split())
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert hub.repos["me/mine"].files == made
    assert "`regression`" in made["README.md"].decode()

    (folder,) = fetched(["me/mine"], environment)
    weights = load_student(folder).student.state_dict()
    for name, weight in load_student(str(tmp_path / "out")).student.state_dict().items():
        assert torch.equal(weights[name], weight)
