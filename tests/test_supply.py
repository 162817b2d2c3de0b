"""What is installed: named to the byte, from no place in particular, and within the bounds."""

import importlib.util
import json
import re
import stat
import tomllib
from pathlib import Path

import pytest

packaging = pytest.importorskip("packaging.requirements")

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sbom():
    spec = importlib.util.spec_from_file_location("sbom", ROOT / ".ci" / "sbom.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked(path):
    return {c["name"]: c for c in sbom().components(path.read_text(encoding="utf-8"))}


def required(extra):
    """The requirements of the project and of an extra, with those of extras that it names."""
    found = list(PROJECT["project"]["dependencies"])
    for text in PROJECT["project"]["optional-dependencies"][extra]:
        inner = re.fullmatch(r"instantvir\[([\w,]+)\]", text)
        found += (
            [each for name in inner[1].split(",") for each in required(name)] if inner else [text]
        )
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_digests_and_says_no_place(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"://|--index|--extra-index|--find-links|@ ", text)
    for name, component in locked(path).items():
        assert component["hashes"], name


def test_the_lock_of_the_tests_is_within_the_bounds():
    found = locked(ROOT / "locks" / "test.txt")
    for text in required("test"):
        requirement = packaging.Requirement(text)
        name = requirement.name.lower().replace("_", "-")
        assert name in found, "renew it: .ci/renew_locks"
        assert requirement.specifier.contains(found[name]["version"]), text


def test_no_pyav_is_taken_that_was_never_tried():
    """On Python 3.12 and later pip took 19, with which no video could be opened."""
    asked = next(r for r in map(packaging.Requirement, required("test")) if r.name == "av")
    tried = locked(ROOT / "locks" / "test.txt")["av"]["version"]
    assert not asked.specifier.contains(f"{int(tried.split('.')[0]) + 1}.0")


def test_what_builds_the_wheel_is_locked():
    found = locked(ROOT / "locks" / "build.txt")
    for text in PROJECT["build-system"]["requires"]:
        assert packaging.Requirement(text).name in found


def test_the_bill_of_materials_names_all_that_is_locked():
    text = (ROOT / "locks" / "test.txt").read_text(encoding="utf-8")
    bill = json.loads(json.dumps(sbom().bill(text)))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert len(bill["components"]) == len(re.findall(r"^[A-Za-z0-9]\S*==", text, re.MULTILINE))
    references = [component["bom-ref"] for component in bill["components"]]
    assert len(set(references)) == len(references)
    assert bill["metadata"]["component"]["version"] == PROJECT["project"]["version"]


@pytest.mark.parametrize("name", ["run", "wheel", "renew_locks", "lower_bounds"])
def test_scripts_of_ci_can_be_run(name):
    path = ROOT / ".ci" / name
    assert path.stat().st_mode & stat.S_IXUSR
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.name
)
def test_workflows_name_what_they_run_by_commit(path):
    """A tag can be moved by whoever takes over an action, and with it what signs a release."""
    used = re.findall(r"uses: (\S+)@(\S+)(?: # (\S+))?", path.read_text(encoding="utf-8"))
    assert used
    for name, commit, version in used:
        if name != "pypa/gh-action-pypi-publish":
            assert re.fullmatch("[0-9a-f]{40}", commit), name
            assert re.fullmatch(r"v[\d.]+", version), name
