"""Walls around this process that cannot be taken down again: memory, time, files, network, programs.

What there is of them depends on the system: limits everywhere but on Windows; Landlock (files) and
seccomp (calls of the kernel) on Linux. Landlock is three calls of the kernel; seccomp is asked through
the package pyseccomp, where it is installed (`instantvir[sandbox]`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a walled process may take."""

    memory_bytes: int
    """Of addresses, whatever is in them."""
    open_files: int = 64


def raise_walls(limits: Limits, readable: Sequence[Path]) -> tuple[str, ...]:
    """The names of the walls that stand now.

    Args:
        readable: files that may be opened, besides those of this Python and of the system's libraries,
            for reading only. Where the kernel has no Landlock, all that the user may read can be.
    """
    walls = [*_limited(limits), *_without_new_rights()]
    if sys.platform == "linux":
        seccomp = (
            _seccomp()
        )  # looks for its library with programs, which are not run any more later
        walls += _landlocked([*readable, *_own_folders()])
        walls += [] if seccomp is None else _without_calls(seccomp)
    return tuple(walls)


def _limited(limits: Limits) -> list[str]:
    try:
        import resource
    except ImportError:
        return []
    most = {
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
    }
    set_now = []
    for name, value in most.items():
        with suppress(AttributeError, OSError, ValueError):  # macOS knows no RLIMIT_AS
            resource.setrlimit(getattr(resource, name), (value, value))
            set_now.append(name.removeprefix("RLIMIT_").lower())
    return [f"limits ({', '.join(set_now)})"] if set_now else []


_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38


def allow_cpu_seconds(seconds: int) -> None:
    """From now on so much time of processors may be used; then the process ends by SIGXCPU."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        until = int(used.ru_utime + used.ru_stime) + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (until, hard))


def _without_new_rights() -> list[str]:
    """No program started from here gains rights, and nobody looks into this one."""
    if sys.platform != "linux":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return ["no new rights"] if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 else []


_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_ALL_OF_FILES_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Rights over files that each version of the kernel's interface knows."""
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_ALL_OF_TCP, _ALL_OF_SCOPES = 0b11, 0b11


def _landlocked(readable: Iterable[Path]) -> list[str]:
    """Files: these may be read, nothing else may be opened, made or run; and no TCP."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if abi < 1:
        return []
    files = max(rights for since, rights in _ALL_OF_FILES_BY_ABI.items() if since <= abi)
    ruleset = struct.pack(
        "=QQQ", files, _ALL_OF_TCP if abi >= 4 else 0, _ALL_OF_SCOPES if abi >= 6 else 0
    )[: 8 if abi < 4 else 16 if abi < 6 else 24]
    made = libc.syscall(
        _CREATE_RULESET, ctypes.c_char_p(ruleset), ctypes.c_size_t(len(ruleset)), ctypes.c_uint32(0)
    )
    if made < 0:
        return []
    try:
        for path in readable:
            _allow_reading(libc, made, path)
        if libc.syscall(_RESTRICT_SELF, ctypes.c_int(made), ctypes.c_uint32(0)) != 0:
            return []
    finally:
        os.close(made)
    return ["files (Landlock)"] + (["TCP (Landlock)"] if abi >= 4 else [])


def _allow_reading(libc: ctypes.CDLL, ruleset: int, path: Path) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)  # type: ignore[attr-defined, unused-ignore]
    except OSError:
        return
    rights = _READ_FILE | (_READ_FOLDER if path.is_dir() else 0)
    rule = struct.pack("=Qi", rights, place)
    libc.syscall(
        _ADD_RULE,
        ctypes.c_int(ruleset),
        ctypes.c_int(_RULE_PATH_BENEATH),
        ctypes.c_char_p(rule),
        ctypes.c_uint32(0),
    )
    os.close(place)


def _own_folders() -> list[Path]:
    """Where this Python and the libraries of the system are, and what tells of the processors."""
    system = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null",
              "/dev/urandom", "/sys/devices/system/cpu")  # fmt: skip
    own = [sys.base_prefix, sys.prefix, *(path for path in sys.path if path)]
    return [Path(path) for path in (*system, *own)]


_CALLS_NOBODY_DECODES_WITH = (
    "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "sendto", "sendmsg",
    "execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "kill",
    "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "bpf", "perf_event_open",
    "userfaultfd", "io_uring_setup", "keyctl", "add_key", "request_key", "init_module",
    "finit_module", "delete_module", "kexec_load", "open_by_handle_at", "name_to_handle_at",
    "setuid", "setgid", "setreuid", "setregid", "chmod", "fchmod", "chown", "unlink", "unlinkat",
    "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mkdir", "mknod",
    "mkdirat", "mknodat", "rmdir", "creat", "truncate", "ftruncate", "fchmodat", "fchmodat2",
    "fchown", "fchownat", "lchown", "utime", "utimes", "futimesat", "utimensat", "setxattr",
    "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr", "sendmmsg", "tkill",
    "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open", "pidfd_send_signal",
    "pidfd_getfd", "io_uring_enter", "io_uring_register", "move_mount", "open_tree", "fsopen",
)  # fmt: skip
_CALLS_WITH_ANOTHER_WAY = ("clone3", "openat2")
"""Whose arguments cannot be looked at; who is told that there are none takes the older call."""
_CLONE_THREAD = 0x10000


def _seccomp() -> Any:
    """The package, or None."""
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError):  # no package, or no libseccomp
        return None
    return pyseccomp


def _without_calls(seccomp: Any) -> list[str]:
    """Calls of the kernel: no network, no programs, no other process, no change of any file."""
    calls = seccomp.SyscallFilter(seccomp.ALLOW)
    for name in _CALLS_NOBODY_DECODES_WITH:
        with suppress(RuntimeError, ValueError, OSError):  # of a call this machine does not have
            calls.add_rule(seccomp.ERRNO(errno.EPERM), name)
    for name in _CALLS_WITH_ANOTHER_WAY:
        with suppress(RuntimeError, ValueError, OSError):
            calls.add_rule(seccomp.ERRNO(errno.ENOSYS), name)
    _refuse_by_argument(seccomp, calls)
    try:
        calls.load()
    except (RuntimeError, OSError):
        return []
    return ["calls (seccomp)"]


def _refuse_by_argument(seccomp: Any, calls: Any) -> None:
    """Threads may be made and files read: no other process, and no file to be written."""

    def refuse(name: str, place: int, bits: int, value: int) -> None:
        with suppress(RuntimeError, ValueError, OSError):  # of a call this machine does not have
            argument = seccomp.Arg(place, seccomp.MASKED_EQ, bits, value)
            calls.add_rule(seccomp.ERRNO(errno.EPERM), name, argument)

    refuse("clone", 0, _CLONE_THREAD, 0)
    for name, place in (("open", 1), ("openat", 2)):
        for flag in (os.O_WRONLY, os.O_RDWR):
            refuse(name, place, os.O_ACCMODE, flag)
        for flag in (os.O_CREAT, os.O_TRUNC):
            refuse(name, place, flag, flag)
