"""What the system has too little of, in words."""

import errno

_OF_MEMORY = (
    "failed to map segment",
    "annot allocate memory",
    "can't allocate memory",
    "bad_alloc",
)
"""How the loader, the system, torch and C++ say that memory is used up."""

_OF_THREADS = ("can't start new thread", "esource temporarily unavailable")


def shortage_behind(error: BaseException) -> tuple[str, str] | None:
    """(what is short, what to do) where an error comes of a limit of the process; else None."""
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text for words in _OF_MEMORY):
        return "the memory that this process may have is used up", "see `ulimit -v`, or free some"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many files are open", "see `ulimit -n`, which limits them"
    if any(words in text for words in _OF_THREADS):
        return (
            "the system starts no more threads",
            "see `ulimit -u` and `ulimit -v`, or free some memory",
        )
    if "No usable temporary directory" in text:
        return "no temporary folder takes a file", "free some space there, or set `TMPDIR`"
    return None
