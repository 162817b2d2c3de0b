"""Where a measurement shows guesses, such as the rows that a field lacks: how far a solver moves them."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_models.operators.mask import GuessedMask
from instantvir_models.operators.measurement import LEVEL
from instantvir_models.solvers.base import Restored, Window

GUESS_STD = 2 * LEVEL
"""Corrections of a guess that are smaller than this are rather the student's error than the guess's. Of a
still picture, which bwdif weaves exactly, the student's are about 0.1 levels."""

GUESS_WINDOW = 7
"""Side in pixels of the square over which corrections are judged."""


def corrected_guess(guess: Tensor, x: Tensor, guessed: Tensor) -> Tensor:
    """x, but where a pixel was guessed the guess, moved towards x as far as the corrections around it
    stand out, [B, T, 3, H, W].

    Args:
        guessed: [T, 1, H, W], 1 where a pixel was.
    """
    correction = x - guess
    squared = (correction.square().mean(2) * guessed[:, 0]).flatten(0, 1)[:, None]
    total, count = (
        F.avg_pool2d(values, GUESS_WINDOW, stride=1, padding=GUESS_WINDOW // 2)
        for values in (squared, guessed)
    )
    energy = total.unflatten(0, x.shape[:2]) / count.clamp_min(1e-6)
    return torch.where(guessed > 0, guess + energy / (energy + GUESS_STD**2) * correction, x)


def beside_guesses(restored: Restored, x_init: Tensor, window: Window) -> Restored:
    """`restored`, its guessed pixels as `corrected_guess` leaves them; others stay.

    Args:
        x_init: the initial estimate [B, T, 3, H, W], which shows the guesses.
    """
    operator = window.measurement.operator
    if not isinstance(operator, GuessedMask):
        return restored
    return replace(restored, x=corrected_guess(x_init, restored.x, operator.guessed.to(x_init)))
