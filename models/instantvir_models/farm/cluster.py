"""A Ray cluster as a pool of workers: one actor per card, or per few cores.

Ray starts processes, moves jobs to them and notices when one dies; who works on what is decided in `work`.
Ray is imported only here, and only when a cluster is asked for.
"""

import os
import platform
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instantvir_models.errors import InstantVIRError, UsageError
from instantvir_models.farm.work import Death, Ended
from instantvir_models.farm.worker import (
    Answer,
    Identity,
    RestoreOne,
    Setting,
    Worker,
    difference,
    restore_one,
)
from instantvir_models.run.jobs import Job
from instantvir_models.run.restore_report import Progress

CORES_PER_WORKER = 4
"""Where there is no card and `--threads` does not say; at most what the smallest machine has."""

CLIENT_PORT = 10001
"""Of Ray's client, where an address says none."""

SECONDS_TO_ANSWER = 10
"""For whoever listens at an address."""

SECONDS_TO_START = 600
"""In which some worker must have come up: a cloud first has to find a machine, and Ray's workers have a
niceness of 15, so beside other work they take minutes to begin."""

SECONDS_TO_WONDER = 60
"""After which a person is told that none has."""

SECONDS_BETWEEN_LOOKS = 0.5

_TOKENS = f".instantvir-token-{platform.node()}-"
"""How the files begin in which heads of this machine write what workers must see; their process follows."""

MOST_DEATHS_IN_A_ROW = 20
"""Of workers, with nothing done in between; then it is not the videos."""


class ClusterError(InstantVIRError):
    """A cluster that cannot be reached, or whose machines are not alike."""


@dataclass
class _Slot:
    """Room for one worker: the actor in it, and what it has been asked."""

    actor: Any
    name: str = "a worker that is starting"
    asked: Any = None
    """Reference to the answer to come: of its first question, or of the job; None if it is free."""
    job: Job | None = None
    question: Any = None
    """Reference to what it will say of how far it is."""
    said: Progress | None = None
    """What it said last of the job it is at."""


class RayPool:
    """Workers on a cluster, as a `Pool`.

    Args:
        ray: the module, connected.
        setting: of the run.
        size: how many workers.
        resources: of each, as Ray names them.
        head: what each must be like.
        folder: of the results, which each must see.
        restore: what is done with each job.
        say: told in a sentence what a person should know.

    Raises:
        ClusterError: if a worker is not like the head, or none comes up.
    """

    def __init__(
        self,
        ray: Any,
        setting: Setting,
        *,
        size: int,
        resources: dict[str, float],
        head: Identity,
        folder: Path,
        restore: RestoreOne = restore_one,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._ray, self._setting, self._resources = ray, setting, resources
        self._head, self._folder, self._restore, self._say = head, folder, restore, say
        self._token = secrets.token_hex(16)
        folder.mkdir(parents=True, exist_ok=True)
        _forget_lost_heads(folder)
        self._token_path = folder / f"{_TOKENS}{os.getpid()}"
        self._token_path.write_text(self._token, encoding="utf-8")
        self._slots = [self._started() for _ in range(size)]
        self._unanswered_seconds, self._deaths_in_a_row = 0.0, 0

    def close(self) -> None:
        """End all workers."""
        self._token_path.unlink(missing_ok=True)
        for slot in self._slots:
            self._ray.kill(slot.actor)

    def free(self) -> int:
        return sum(slot.asked is None for slot in self._slots)

    def start(self, job: Job) -> None:
        slot = next(slot for slot in self._slots if slot.asked is None)
        slot.job, slot.asked = job, slot.actor.work.remote(job)
        slot.question = slot.said = None

    def wait(self) -> list[Ended | Death]:
        by_reference = {slot.asked: slot for slot in self._slots if slot.asked is not None}
        ready, _ = self._ray.wait(list(by_reference), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
        if not ready:
            self._give_up_if_nobody_comes()
            return []
        event = self._answered(by_reference[ready[0]], ready[0])
        return [] if event is None else [event]

    def progress(self) -> dict[str, tuple[str, Progress | None]]:
        """By worker: the input that it works on, and how far it was when it last said so.

        Nobody is waited for: meanwhile a worker that is done would have nothing to do.
        """
        for slot in self._slots:
            if slot.job is not None:
                self._hear(slot)
        return {
            slot.name: (slot.job.source, slot.said) for slot in self._slots if slot.job is not None
        }

    def _hear(self, slot: _Slot) -> None:
        if slot.question is not None:
            if not self._ray.wait([slot.question], timeout=0)[0]:
                return
            with suppress(self._ray.exceptions.RayError):  # it has died: `wait` says so
                slot.said = self._ray.get(slot.question)
        slot.question = slot.actor.progress.options(concurrency_group="talk").remote()

    def _started(self) -> _Slot:
        remote = self._ray.remote(concurrency_groups={"talk": 1}, **self._resources)
        actor = remote(Worker).remote(self._setting, self._restore)
        return _Slot(actor, asked=actor.answer.remote(self._token_path))

    def _answered(self, slot: _Slot, reference: Any) -> Ended | Death | None:
        slot.asked = None
        job, slot.job = slot.job, None
        try:
            value = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return self._lost(slot, job, error)
        if isinstance(value, Answer):
            self._admit(slot, value)
            return None
        assert isinstance(value, Ended)
        self._deaths_in_a_row = 0
        return value

    def _admit(self, slot: _Slot, answer: Answer) -> None:
        problem = difference(self._head, self._token, self._folder, answer)
        if problem is not None:
            raise ClusterError(
                problem,
                hint="every machine needs the same instantvir, torch and weights, and the same "
                "folders under the same names",
            )
        slot.name, self._unanswered_seconds = answer.worker, 0.0

    def _lost(self, slot: _Slot, job: Job | None, error: Exception) -> Death | None:
        """Another worker in the place of a dead one; nobody can work where a worker cannot begin."""
        reason = _reason(error)
        if job is None and not _is_death(self._ray, error):
            raise ClusterError(
                f"a worker cannot begin: {reason}",
                hint="install the same instantvir on every machine of the cluster",
            )
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row > MOST_DEATHS_IN_A_ROW:
            raise ClusterError(
                f"{self._deaths_in_a_row} workers died one after the other, last: {reason}",
                hint="see Ray's logs, or its dashboard",
            )
        self._say(f"{slot.name} died: {reason}; another takes its place")
        fresh, name = self._started(), slot.name
        slot.actor, slot.asked, slot.name = fresh.actor, fresh.asked, fresh.name
        if job is None:
            return None
        return Death(job, name, reason)

    def _give_up_if_nobody_comes(self) -> None:
        if any(slot.asked is None or slot.job is not None for slot in self._slots):
            self._unanswered_seconds = 0.0
            return
        self._unanswered_seconds += SECONDS_BETWEEN_LOOKS
        if self._unanswered_seconds == SECONDS_TO_WONDER:
            self._say(f"no worker has started yet; each asks for {self._resources}")
        if self._unanswered_seconds > SECONDS_TO_START:
            raise ClusterError(
                f"no worker has started within {SECONDS_TO_START} s",
                hint=f"each asks for {self._resources}; see `ray status`",
            )


def _forget_lost_heads(folder: Path) -> None:
    """Remove what heads of this machine left there that were killed."""
    for path in folder.glob(f"{_TOKENS}*"):
        try:
            os.kill(int(path.name.removeprefix(_TOKENS)), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except (OSError, ValueError):
            continue


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The `ray` module, connected to a cluster.

    Args:
        address: `auto` for the one that runs on this machine, `HOST:PORT`, or `ray://HOST[:PORT]`.

    Raises:
        UsageError: without Ray.
        ClusterError: if nobody answers.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "`--cluster` needs Ray, which is not installed",
            hint="pip install 'instantvir[cluster]', or `--jobs N` on one machine, or `--shard i/n`",
        ) from error
    if ray.is_initialized():  # by the program that calls
        yield ray
        return
    try:
        _knock(_with_port(address))  # Ray itself would try for minutes
        ray.init(address=_with_port(address), log_to_driver=False, logging_level="error")
    except (
        Exception
    ) as error:  # what Ray raises here is anything from ConnectionError to RuntimeError
        raise ClusterError(
            f"no Ray cluster answers at `{address}`: {_reason(error)}",
            hint="`ray start --head` starts one on this machine, `ray status` shows it; then "
            "`--cluster auto` here, or `--cluster ray://HOST` from elsewhere; where the cluster wants a "
            "token, RAY_AUTH_MODE=token and the same ~/.ray/auth_token on every machine",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """OSError if nobody listens at HOST:PORT; whatever else an address may be is left to Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()


def _with_port(address: str) -> str:
    is_bare = address.startswith("ray://") and ":" not in address.removeprefix("ray://")
    return f"{address}:{CLIENT_PORT}" if is_bare else address


def workers_of(nodes: list[dict[str, Any]], threads: int | None) -> tuple[int, dict[str, float]]:
    """How many workers a cluster has room for, and the resources of each: a card, or a few cores.

    Args:
        nodes: as `ray.nodes()` lists them.
        threads: cores of each worker; None takes `CORES_PER_WORKER`, or all of a smaller machine.
    """
    found = [node["Resources"] for node in nodes if node.get("Alive")]
    cards = int(sum(resources.get("GPU", 0) for resources in found))
    if cards:
        return cards, {"num_gpus": 1.0, "num_cpus": 1.0}
    cores = [int(resources.get("CPU", 0)) for resources in found if resources.get("CPU", 0) >= 1]
    each = threads or min(CORES_PER_WORKER, *(cores or [1]))
    size = sum(count // each for count in cores)
    if not size:
        raise ClusterError(
            f"no machine of the cluster has {each} free cores, or a card",
            hint="see `ray status`, or give fewer `--threads`",
        )
    return size, {"num_cpus": float(each)}


def _is_death(ray: Any, error: Exception) -> bool:
    """Whether a process ended, rather than raised: a `raise` in its `__init__` is told apart."""
    is_dead = isinstance(error, ray.exceptions.RayActorError)
    return is_dead and not getattr(error, "actor_init_failed", False)


def _reason(error: Exception) -> str:
    """The last line that says something: Ray's errors are pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[-1].partition(" Some common causes")[0] if lines else type(error).__name__
    return said[:300]
