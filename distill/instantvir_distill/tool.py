"""What modules that are commands themselves have in common."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from instantvir_models.errors import InstantVIRError


@contextmanager
def sentences() -> Iterator[None]:
    """What is wrong is a sentence, and the exit status 1; 130 after Ctrl-C."""
    try:
        yield
    except InstantVIRError as error:
        hint = f"; {error.hint}" if error.hint else ""
        sys.exit(f"error: {error}{hint}")
    except KeyboardInterrupt:
        sys.exit(130)
