"""The `instantvir` command."""

from instantvir_models import __version__

__all__ = ["__version__"]
