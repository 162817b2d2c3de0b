"""A checkpoint of a run with nothing in it but names, numbers and tensors, or it is not read.

`torch.distributed.checkpoint` keeps its index and values that are no tensors as pickles and would make
whatever they name.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.planner import ReadItem

PARTS_OF_AN_INDEX = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta",
        "TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},
}  # fmt: skip
"""What an index may name, by module; types of numbers besides."""


def check_index(checkpoint: Path) -> None:
    """See that the index of `checkpoint` names nothing that does not belong into one.

    Raises:
        OSError, pickle.UnpicklingError: if it does, or is none; nothing of it was made.
    """
    for path in checkpoint.glob("*.metadata"):
        with path.open("rb") as file:
            try:
                _Index(file).load()
            except OSError:
                raise
            except Exception as error:  # a damaged pickle ends in anything
                raise pickle.UnpicklingError(str(error) or type(error).__name__) from error


class NumbersOnly(DefaultLoadPlanner):
    """Reads tensors, and of other values those that are made of numbers, strings and containers."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        torch.load(value, weights_only=True)
        value.seek(0)
        super().load_bytes(read_item, value)


class _Index(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_type = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not is_type and name not in PARTS_OF_AN_INDEX.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)
