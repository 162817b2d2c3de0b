"""The options of every verb: frozen, grouped, shown, and completed by a shell."""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from instantvir_cli import options
from instantvir_cli.app import app
from instantvir_cli.groups import Verb, takes_groups
from instantvir_distill.recipes import RECIPES
from instantvir_models.checkpoints.registry import registry
from instantvir_models.live.overload import Overload
from instantvir_models.media.fields import CHOICES
from instantvir_models.media.settings import EncoderSettings
from instantvir_models.run.comparison import STYLES
from instantvir_models.run.opening import DEVICES
from instantvir_models.tasks import TASKS

FROZEN = Path(__file__).parents[1] / "data" / "options.txt"
HEAVY = {"torch", "av", "cv2", "numpy", "triton", "huggingface_hub", "safetensors"}


def verbs():
    return typer.main.get_command(app).commands


def listed():
    """One line for each parameter: verb, section of the help, spellings, default."""
    for name, verb in verbs().items():
        for parameter in verb.params:
            panel = getattr(parameter, "rich_help_panel", None) or "-"
            spelling = "/".join(parameter.opts) if parameter.opts else parameter.name
            default = "required" if parameter.required else parameter.default
            yield f"{name} | {panel} | {spelling} | {default}"


def test_the_options_of_every_verb_are_those_people_know():
    """An option that is added, renamed or moved belongs into the list, and into the changelog."""
    assert list(listed()) == FROZEN.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", verbs())
def test_help_shows_every_option_in_its_section_and_examples(name):
    text = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).stdout
    sections = {part.split(":", 1)[0]: part for part in text.split("\n\n")}
    for parameter in verbs()[name].params:
        if parameter.param_type_name == "option":
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            assert parameter.opts[-1] in sections[panel]
    assert f"instantvir {name}" in sections["Examples"]


@pytest.mark.parametrize("name", verbs())
def test_every_example_of_the_help_is_understood(name, monkeypatch):
    """Up to where work begins: no option of an example is one that the verb does not have."""
    verb = verbs()[name]
    for line in verb.epilog.splitlines():
        (command,) = (part for part in line.split(" | ") if part.startswith("instantvir "))
        verb.make_context(name, shlex.split(command)[2:]).close()


@dataclass(frozen=True, kw_only=True)
class Colours:
    """A group."""

    PANEL: ClassVar = "Colours"

    red: Annotated[int, typer.Option(help="How red")] = 1
    is_bright: Annotated[bool, typer.Option("--bright", help="Whether it shines")] = False


def test_a_group_comes_to_the_command_built():
    seen = []
    program = typer.Typer()

    @program.command(cls=Verb)
    @takes_groups
    def paint(*, what: Annotated[str, typer.Argument()], colours: Colours, twice: bool = False):
        seen.append((what, colours, twice))

    result = CliRunner().invoke(program, ["wall", "--red", "3", "--bright"])
    assert result.exit_code == 0, result.output
    assert seen == [("wall", Colours(red=3, is_bright=True), False)]


def test_two_options_of_one_name_are_refused_when_the_verb_is_made():
    def paint(*, colours: Colours, red: str = "") -> None: ...

    with pytest.raises(ValueError, match=r"`paint` would have two options called \['red'\]"):
        takes_groups(paint)


def answer_to_a_shell(instruction, *words):
    """What the command prints for a shell that completes `instantvir WORDS`; loads nothing heavy."""
    code = (
        "import sys; sys.argv = ['instantvir']\n"
        "from instantvir_cli.app import app\n"
        "try: app(prog_name='instantvir')\n"
        f"finally: assert not {HEAVY!r} & set(sys.modules)"
    )
    environment = {
        "_INSTANTVIR_COMPLETE": f"{instruction}_bash",
        "COMP_WORDS": " ".join(["instantvir", *words]),
        "COMP_CWORD": str(len(words)),
        "PYTHONPATH": ":".join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "Error" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["restore", "--task", "de"], ["denoise", "deblur"]),
        (["restore", "--codec", "pro"], ["prores"]),
        (["stream", "--on-overload", "s"], ["skip"]),
        (["benchmark", "--task", "in"], ["inpaint"]),
        (["control", "live.sock", "st"], ["strength", "status"]),
        (["restore", "--blur"], ["--blur-sigma"]),
        (["deg"], ["degrade"]),
    ],
)
def test_a_shell_completes_values(words, offered):
    assert answer_to_a_shell("complete", *words).split() == offered


def test_what_is_completed_is_what_the_library_knows():
    """The command lists them itself, for the library is heavy."""
    assert options.DEVICES == DEVICES
    assert tuple(RECIPES) == options.RECIPES
    assert sorted(options.OVERLOADS) == sorted(Overload)
    assert ("tiny", *registry()) == options.MODELS
    assert options.STYLES == STYLES
    assert options.FIELDS == CHOICES
    for codec in options.CODECS:
        assert EncoderSettings(codec=codec)
    assert [name for name, _ in options.completed_tasks("")] == list(TASKS)


def test_the_script_for_a_shell_can_be_shown():
    assert "complete -o default" in answer_to_a_shell("source")
