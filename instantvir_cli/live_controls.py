"""The controls of `instantvir stream`: what holds at first, and what a prompt becomes."""

from functools import partial

from instantvir_models.checkpoints.prompt import read_prompt
from instantvir_models.live.controls import Controls, ControlSettings
from instantvir_models.run.opening import OpenedStudent
from instantvir_models.students.wan.student import WanStudent


def new_controls(opened: OpenedStudent, prompt: str | None) -> Controls:
    """Everything on, and the prompt that the student was opened with."""
    student = opened.loaded.student
    if not isinstance(student, WanStudent):
        return Controls()
    config = student.transformer.config
    read = partial(read_prompt, text_dim=config.text_dim, text_len=config.text_len)
    return Controls(ControlSettings(prompt=prompt), read_prompt=read)
