"""A disk that is full after so many bytes of each file."""

from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(room_bytes):
    """Files of this process end there: pytest's own, too, so that this is no fixture."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
