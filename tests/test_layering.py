"""Every package imports only the packages below it, and so does every room (docs/architecture.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {  # lowest floor first
    "instantvir_kernels": ROOT / "kernels" / "instantvir_kernels",
    "instantvir_models": ROOT / "models" / "instantvir_models",
    "instantvir": ROOT / "models" / "instantvir",
    "instantvir_distill": ROOT / "distill" / "instantvir_distill",
    "instantvir_cli": ROOT / "instantvir_cli",
}
LAYERS = list(FOLDERS)

ROOMS: dict[str, set[str]] = {
    # room of instantvir_models: the rooms it may import, all of them further up in this table
    "outputs": set(),
    "operators": {"outputs"},
    "tasks": {"operators"},
    "media": {"outputs"},
    "autoencoders": set(),
    "students": {"operators", "autoencoders"},
    "diagnosis": {"outputs", "media", "operators", "students"},
    "priors": {"operators", "autoencoders", "students"},
    "checkpoints": {"outputs", "students", "autoencoders", "priors"},
    "metrics": {"operators"},
    "report": {"outputs"},
    "solvers": {"media", "operators", "students", "priors"},
    "run": {
        "outputs",
        "media",
        "operators",
        "tasks",
        "diagnosis",
        "autoencoders",
        "students",
        "checkpoints",
        "metrics",
        "report",
        "solvers",
    },
    "speed": {
        "media",
        "operators",
        "tasks",
        "students",
        "checkpoints",
        "report",
        "solvers",
        "run",
    },
    "suite": {
        "outputs",
        "media",
        "operators",
        "tasks",
        "students",
        "checkpoints",
        "priors",
        "metrics",
        "report",
        "solvers",
        "run",
    },
    "live": {
        "outputs",
        "media",
        "operators",
        "tasks",
        "diagnosis",
        "students",
        "checkpoints",
        "solvers",
        "report",
        "run",
    },
    "farm": {"outputs", "media", "operators", "run"},
}
"""A room is a folder, or a module that has no folder and is named here. The other loose modules
(errors, tiles, ...) are the ground floor: every room may import them, and they import no room."""

GROUND_FLOOR = "the ground floor"


def imports_of(path: Path) -> Iterator[str]:
    """Dotted names of everything that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path.relative_to(ROOT)}: write imports in full"
            assert node.level == 0, f"{path.relative_to(ROOT)}: write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_of(package: str) -> list[Path]:
    """Every module of a package."""
    paths = list(FOLDERS[package].rglob("*.py"))
    assert paths
    return paths


@pytest.mark.parametrize("package", LAYERS)
def test_package_imports_only_lower_layers(package):
    above = set(LAYERS[LAYERS.index(package) + 1 :])
    for path in files_of(package):
        wrong = above & {name.split(".")[0] for name in imports_of(path)}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)} from a higher layer"


def room_of(parts: list[str]) -> str:
    """The room of a dotted name or path below instantvir_models."""
    is_room = bool(parts) and (
        parts[0] in ROOMS or (FOLDERS["instantvir_models"] / parts[0]).is_dir()
    )
    return parts[0] if is_room else GROUND_FLOOR


def imported_rooms(path: Path) -> set[str]:
    """Rooms of instantvir_models that a file imports; the package itself is on the ground floor."""
    names = [name.split(".") for name in imports_of(path)]
    return {room_of(parts[1:]) for parts in names if parts[0] == "instantvir_models"}


def test_every_room_is_in_the_table():
    folders = {p.parent for p in FOLDERS["instantvir_models"].glob("*/*.py")}
    missing = {folder.name for folder in folders} - set(ROOMS)
    assert not missing, f"say in ROOMS what these may import: {sorted(missing)}"


def test_the_table_has_no_circles():
    """Each room imports only rooms that come before it, so there is a floor for each."""
    above: set[str] = set()
    for room, allowed in ROOMS.items():
        assert allowed <= above, f"{room} may import {sorted(allowed - above)}, which come after it"
        above.add(room)


@pytest.mark.parametrize("room", [*ROOMS, GROUND_FLOOR])
def test_a_room_imports_only_what_the_table_allows(room):
    folder = FOLDERS["instantvir_models"]
    allowed = ROOMS.get(room, set()) | {room, GROUND_FLOOR}
    for path in files_of("instantvir_models"):
        if room_of(list(path.relative_to(folder).with_suffix("").parts)) == room:
            wrong = imported_rooms(path) - allowed
            assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}: not in ROOMS"


def test_tools_of_the_kernels_stay_out_of_what_runs():
    """Tuning, compiling ahead and counting are for people: only the command shows what they say."""
    tools = FOLDERS["instantvir_kernels"] / "tools"
    for package in LAYERS[:-1]:
        for path in files_of(package):
            if tools not in path.parents:
                names = set(imports_of(path))
                wrong = {name for name in names if name.startswith("instantvir_kernels.tools")}
                assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("folder", ["kernels", "models", "distill"])
def test_source_roots_are_not_packages(folder):
    """An `__init__.py` here would make `import models` collide with other people's packages."""
    assert not (ROOT / folder / "__init__.py").exists()


def test_pyav_stays_in_the_media_room():
    """Only media/ knows time bases, colour and containers."""
    media = FOLDERS["instantvir_models"] / "media"
    for package in LAYERS:
        for path in files_of(package):
            if media not in path.parents:
                assert "av" not in {name.split(".")[0] for name in imports_of(path)}, path


def test_a_stream_needs_nothing_that_listens():
    """live/serve asks streams; live/ itself runs without a page, a socket or metrics."""
    for path in (FOLDERS["instantvir_models"] / "live").glob("*.py"):
        assert "live.serve" not in path.read_text(encoding="utf-8"), path.name
