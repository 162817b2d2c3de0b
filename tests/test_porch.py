"""What strangers read first: one version everywhere, and forms that GitHub accepts."""

import re
import tomllib
from pathlib import Path

import pytest

from instantvir_cli import __version__

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    cited = re.search(r"^version: (\S+)$", citation, re.MULTILINE)
    assert project["version"] == __version__
    assert cited
    assert cited[1] == __version__


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_one(path):
    """GitHub drops a form that it cannot read, without a word."""
    yaml = pytest.importorskip("yaml")
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    questions = [part for part in form["body"] if part["type"] != "markdown"]
    names = [part["id"] for part in questions]
    assert len(names) == len(set(names))
    for part in questions:
        assert part["type"] in {"textarea", "input", "dropdown", "checkboxes"}
        assert part["attributes"]["label"]


def test_the_workflow_does_what_ci_does():
    yaml = pytest.importorskip("yaml")
    path = ROOT / ".github" / "workflows" / "ci.yml"
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["jobs"]["ci"]["steps"][-1] == {"run": ".ci/run"}
