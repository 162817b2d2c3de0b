"""Checkpoints from the Hugging Face Hub: downloaded once, pinned, verified by sha256.

Mirrors, caches, tokens and offline mode follow huggingface_hub's own environment variables
(HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE).
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instantvir_models.checkpoints.card import CARD_NAME
from instantvir_models.checkpoints.config import CONFIG_NAME
from instantvir_models.checkpoints.folder import damaged_files
from instantvir_models.checkpoints.small import read_any_config
from instantvir_models.checkpoints.tensors import sha256_of
from instantvir_models.errors import CheckpointError

logger = logging.getLogger(__name__)

MARKER_FOLDER = "instantvir-verified"
"""Beside the snapshots of a repository in the cache: an empty file for each verified commit."""


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint folder in the cache."""

    folder: Path
    commit: str
    """Full hash."""


def fetch(repo: str, revision: str | None = None, *, config_sha256: str | None = None) -> Snapshot:
    """The checkpoint `repo` at `revision` from the cache, else downloaded and verified.

    Without a revision the newest one is resolved at the first use and kept from then on.

    Raises:
        CheckpointError: if it cannot be reached, does not exist, is private, or stays damaged
            after a second download.
    """
    _check_name(repo)
    cached = _cached(repo, revision)
    if cached is not None and _is_verified(cached):
        return cached
    snapshot = cached or _download(repo, revision)
    damaged = damaged_files(snapshot.folder, read_any_config(snapshot.folder).sha256)
    if damaged:
        logger.warning("%s of %s is damaged; downloading it again", ", ".join(damaged), repo)
        for name in damaged:
            _forget(snapshot.folder / name)
        snapshot = _download(repo, snapshot.commit)
        damaged = damaged_files(snapshot.folder, read_any_config(snapshot.folder).sha256)
    if damaged:
        raise CheckpointError(
            f"`{repo}` is damaged: {', '.join(damaged)} differs from its sha256, twice",
            hint="the publisher or the mirror has a broken file; report it there",
        )
    found = sha256_of(snapshot.folder / CONFIG_NAME)
    if config_sha256 is not None and found != config_sha256:
        raise CheckpointError(
            f"`{repo}` is not what this version of instantvir was made for: its {CONFIG_NAME} has "
            f"sha256 {found}, expected {config_sha256}"
        )
    _mark_verified(snapshot)
    if revision != snapshot.commit:
        logger.info(
            "%s is at commit %s; `%s@%s` pins it", repo, snapshot.commit, repo, snapshot.commit
        )
    return snapshot


def upload(folder: Path, repo: str) -> str:
    """Publish the checkpoint in `folder` as `repo`; where it is then.

    Raises:
        CheckpointError: if the Hub refuses it, or does not answer.
    """
    from huggingface_hub import HfApi, errors

    _check_name(repo)
    try:
        api = HfApi()
        api.create_repo(repo, exist_ok=True)
        made = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="instantvir")
    except errors.OfflineModeIsEnabled as error:
        raise CheckpointError(
            f"`{repo}` cannot be uploaded: HF_HUB_OFFLINE forbids it",
            hint="run once without HF_HUB_OFFLINE",
        ) from error
    except errors.HfHubHTTPError as error:
        raise CheckpointError(
            f"`{repo}` cannot be uploaded: {_first_line(error)}",
            hint="log in with `hf auth login`, or set HF_TOKEN to one that may write there",
        ) from error
    except (errors.HTTPError, OSError, ValueError, RuntimeError) as error:  # type: ignore[attr-defined]
        raise _unreachable(repo, "", f"the connection failed ({_first_line(error)})") from error
    return str(made.commit_url)


def _check_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise CheckpointError(
            f"`{repo}` is no file or folder here, and no repository on the Hub is called so",
            hint="a repository is ORG/REPO: letters, digits, and single `-`, `_` and `.` inside",
        ) from error


def _cached(repo: str, revision: str | None) -> Snapshot | None:
    """The complete snapshot in the cache, found without a request."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=[CONFIG_NAME], local_files_only=True
        )
        snapshot = Snapshot(Path(folder), Path(folder).name)
        names = read_any_config(snapshot.folder).sha256
    except (LocalEntryNotFoundError, CheckpointError, OSError, ValueError):
        return None
    return snapshot if all((snapshot.folder / name).is_file() for name in names) else None


def _download(repo: str, revision: str | None) -> Snapshot:
    """The snapshot with its configuration, its card, and the weights that the configuration lists.

    A repository without a configuration of ours costs no download of whatever else it holds.
    """
    snapshot = _downloaded(repo, revision, [CONFIG_NAME])
    if not (snapshot.folder / CONFIG_NAME).is_file():
        raise CheckpointError(
            f"`{repo}` holds no checkpoint of instantvir: it has no {CONFIG_NAME}",
            hint="other people's weights: download them, then `instantvir convert SRC -o DIR`",
        )
    names = list(read_any_config(snapshot.folder).sha256)
    snapshot = _downloaded(repo, snapshot.commit, [CONFIG_NAME, CARD_NAME, *names])
    missing = [name for name in names if not (snapshot.folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"`{repo}` is not complete: its {CONFIG_NAME} lists {', '.join(missing)}, which it lacks",
            hint="its publisher has to upload the rest",
        )
    return snapshot


def _downloaded(repo: str, revision: str | None, files: list[str]) -> Snapshot:
    from huggingface_hub import errors, snapshot_download

    at = f" at revision `{revision}`" if revision else ""
    try:
        folder = snapshot_download(repo, revision=revision, allow_patterns=files)
    except errors.GatedRepoError as error:
        raise _refusal(repo, "its owner asks you to accept terms first", error) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"`{repo}` has no revision `{revision}`") from error
    except errors.RepositoryNotFoundError as error:
        raise _refusal(repo, "it does not exist or is private", error) from error
    except errors.OfflineModeIsEnabled as error:
        raise _offline(repo, at) from error
    except errors.LocalEntryNotFoundError as error:
        if _is_offline():
            raise _offline(repo, at) from error
        raise _unreachable(repo, at, "the Hub does not answer") from error
    except errors.HfHubHTTPError as error:
        raise CheckpointError(f"`{repo}`{at} cannot be downloaded: {_first_line(error)}") from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # of the client's own client
        raise _unreachable(repo, at, f"the connection failed ({_first_line(error)})") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"`{repo}`{at} cannot be downloaded: {_first_line(error)}") from error
    return Snapshot(Path(folder), Path(folder).name)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _unreachable(repo: str, at: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"`{repo}`{at} cannot be downloaded: {why}",
        hint="check the connection and try again, or set HF_ENDPOINT to a mirror; complete files "
        "are kept",
    )


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _offline(repo: str, at: str) -> CheckpointError:
    return CheckpointError(
        f"`{repo}`{at} is not in the cache, and HF_HUB_OFFLINE forbids to download it",
        hint="run once without HF_HUB_OFFLINE",
    )


def _refusal(repo: str, why: str, error: Any) -> CheckpointError:
    return CheckpointError(
        f"`{repo}` cannot be downloaded: {why}",
        hint="check the name; for a private or gated one, log in with `hf auth login` or set HF_TOKEN",
    )


def _marker(snapshot: Snapshot) -> Path:
    return snapshot.folder.parents[1] / MARKER_FOLDER / snapshot.commit


def _is_verified(snapshot: Snapshot) -> bool:
    return _marker(snapshot).is_file()


def _mark_verified(snapshot: Snapshot) -> None:
    marker = _marker(snapshot)
    with suppress(OSError):  # a cache shared read-only: verified anew each time
        marker.parent.mkdir(exist_ok=True)
        marker.touch()


def _forget(path: Path) -> None:
    """Remove a cached file and the blob it points to."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)
