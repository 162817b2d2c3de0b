"""A prompt as a student that reads text takes it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TextFormat:
    """The rows that a student attends to."""

    text_dim: int
    """Length of each."""
    text_len: int
    """How many; shorter prompts are padded with zeros."""


@dataclass(frozen=True)
class TextRows:
    """One prompt: its embedded rows, and how many rows it is padded to with zeros."""

    rows: Tensor
    """[1, n, text_dim], n from 0 to `length`."""
    length: int

    def __post_init__(self) -> None:
        if self.rows.ndim != 3 or self.rows.shape[1] > self.length:
            raise ValueError(
                f"a prompt is [1, n <= {self.length}, text_dim], got {tuple(self.rows.shape)}"
            )

    @property
    def attended_rows(self) -> int:
        """Rows that layers attend to: one stands for all the padding."""
        return min(self.rows.shape[1] + 1, self.length)
