"""The controls of `instantvir stream`: what holds at first, and what a prompt becomes."""

from collections.abc import Callable

import torch

from instantvir_cli.student import OpenedStudent
from instantvir_models.live.controls import Controls, ControlSettings
from instantvir_models.students.wan.student import WanStudent
from instantvir_models.students.wan.transformer import TextRows
from instantvir_models.text import read_prompt


def new_controls(opened: OpenedStudent, prompt: str | None) -> Controls:
    """Everything on, and the prompt that the student was opened with."""
    student = opened.loaded.student
    if not isinstance(student, WanStudent):
        return Controls()
    return Controls(ControlSettings(prompt=prompt), read_prompt=_prompt_reader(student))


def _prompt_reader(student: WanStudent) -> Callable[[str], TextRows]:
    """What makes rows of a prompt for `student`; a blank one is no words."""
    text_dim, text_len = student.transformer.config.text_dim, student.transformer.config.text_len

    def read(prompt: str) -> TextRows:
        if not prompt.strip():
            return TextRows(torch.empty(1, 0, text_dim), text_len)
        return read_prompt(prompt, text_dim=text_dim, text_len=text_len)

    return read
