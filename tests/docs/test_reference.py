"""Everything that people can name is in the documentation."""

import ast
import re
import runpy
from pathlib import Path

import pytest
import typer

import instantvir
from instantvir_cli.app import app
from instantvir_cli.exit_status import ExitStatus

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
SOURCES = [
    path
    for folder in ("instantvir_cli", "kernels", "models", "distill")
    for path in (ROOT / folder).rglob("*.py")
]
PROMISED_ELSEWHERE = {"HF_ENDPOINT", "HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE"}
"""Read by huggingface_hub; our docstrings and hints name them."""


def read(name):
    return (REFERENCE / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def commands():
    """The page of commands as the site has it, by verb."""
    page = runpy.run_path(str(REFERENCE / "commands.py"))["on_page_markdown"](
        read("commands.md"), None, None, None
    )
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    return {section.split("\n", 1)[0]: section for section in sections}


@pytest.mark.parametrize("verb", typer.main.get_command(app).commands)
def test_every_option_is_documented_with_its_help(verb, commands):
    command = typer.main.get_command(app).commands[verb]
    assert command.help in commands[verb]
    for parameter in command.params:
        spelling = parameter.metavar if parameter.param_type_name == "argument" else None
        names = [spelling or parameter.name.upper()]
        names = parameter.opts if parameter.param_type_name == "option" else names
        (row,) = [
            line
            for line in commands[verb].splitlines()
            if re.match(rf"\| `{re.escape(', '.join(names))}` \|", line)
        ]
        assert parameter.help
        assert parameter.help.replace("|", "\\|").replace("<", "&lt;") in row


def test_every_public_name_is_documented_once():
    entries = re.findall(r"^::: instantvir\.(\w+)$", read("python.md"), re.MULTILINE)
    assert sorted(entries) == instantvir.__all__


def test_every_room_entry_is_there():
    for name in re.findall(r"^::: (\S+)$", read("rooms.md"), re.MULTILINE):
        parts = name.split(".")
        files = [ROOT / "models" / Path(*parts[:n]) for n in range(1, len(parts) + 1)]
        module = next(path for path in files if path.with_suffix(".py").is_file())
        rest = parts[len(module.relative_to(ROOT / "models").parts) :]
        tree = ast.parse(module.with_suffix(".py").read_text(encoding="utf-8"))
        assert not rest or rest[0] in names_in(tree), name


def names_in(tree):
    """What a module defines at its top."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def variables_read(tree):
    """Names of the environment variables that a module reads; constants are looked up."""
    constants = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.Call) and re.search(
            r"(\bgetenv|environ\.(get|pop|setdefault))$", ast.unparse(node.func)
        ):
            name = node.args[0]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
            name = node.slice
        if name is not None:
            yield name.value if isinstance(name, ast.Constant) else constants[ast.unparse(name)]


def test_every_environment_variable_is_documented():
    documented = set(re.findall(r"^\| `(\w+)` \|", read("environment.md"), re.MULTILINE))
    found = set(PROMISED_ELSEWHERE)
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        found |= set(variables_read(ast.parse(text)))
        found |= set(re.findall(r"\bINSTANTVIR_[A-Z_]+\b", text))
    assert documented == found


def test_every_exit_status_is_documented():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", read("environment.md"), re.MULTILINE)
    assert [(int(value), name) for value, name in rows] == [(s.value, s.name) for s in ExitStatus]


def test_every_page_is_in_the_menu():
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "properdocs.yml").read_text(encoding="utf-8")
    pages = []

    def collect(entry):
        if isinstance(entry, str):
            pages.append(entry)
        else:
            for inner in entry.values() if isinstance(entry, dict) else entry:
                collect(inner)

    collect(yaml.safe_load(text)["nav"])
    assert sorted(pages) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
