"""The controls of `instantvir stream`: what holds at first, and what a prompt becomes."""

from functools import partial

from instantvir_models.checkpoints.prompt import read_prompt
from instantvir_models.live.controls import Controls, ControlSettings
from instantvir_models.run.opening import OpenedSolver


def new_controls(opened: OpenedSolver, prompt: str | None) -> Controls:
    """Everything on, and the prompt that the solver was opened with."""
    text = opened.solver.needs.text
    if text is None:
        return Controls()
    read = partial(read_prompt, text_dim=text.text_dim, text_len=text.text_len)
    return Controls(ControlSettings(prompt=prompt), read_prompt=read)
