"""`--threads`: torch, OpenCV and FFmpeg share the cores."""

from instantvir_models.cpu import use_threads

__all__ = ["use_threads"]
