"""Every package imports only the packages below it (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    "instantvir_kernels",
    "instantvir_models",
    "instantvir",
    "instantvir_distill",
    "instantvir_cli",
]
FOLDERS = {
    "instantvir_kernels": ROOT / "kernels" / "instantvir_kernels",
    "instantvir_models": ROOT / "models" / "instantvir_models",
    "instantvir": ROOT / "models" / "instantvir",
    "instantvir_distill": ROOT / "distill" / "instantvir_distill",
    "instantvir_cli": ROOT / "instantvir_cli",
}


def imported_layers(source: str) -> set[str]:
    """Names of our packages that `source` imports, however it spells the import."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[0] for name in names} & set(LAYERS)


@pytest.mark.parametrize("package", LAYERS)
def test_package_imports_only_lower_layers(package):
    allowed = set(LAYERS[: LAYERS.index(package) + 1])
    paths = list(FOLDERS[package].rglob("*.py"))
    assert paths
    for path in paths:
        above = imported_layers(path.read_text(encoding="utf-8")) - allowed
        assert not above, f"{path.relative_to(ROOT)} imports {sorted(above)} from a higher layer"


@pytest.mark.parametrize("folder", ["kernels", "models", "distill"])
def test_source_roots_are_not_packages(folder):
    """An `__init__.py` here would make `import models` collide with other people's packages."""
    assert not (ROOT / folder / "__init__.py").exists()


def test_pyav_stays_in_the_media_room():
    """Only media/ knows time bases, colour and containers."""
    media = FOLDERS["instantvir_models"] / "media"
    for folder in FOLDERS.values():
        for path in folder.rglob("*.py"):
            if media in path.parents:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    assert "av" not in {alias.name.split(".")[0] for alias in node.names}, path
                elif isinstance(node, ast.ImportFrom):
                    assert (node.module or "").split(".")[0] != "av", path
