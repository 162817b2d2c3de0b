"""The table of promises names tests that are there."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_promise_has_tests_that_are_there():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (HERE / "trust.md").read_text(encoding="utf-8"))
    assert len(named) > 50
    for path, test in named:
        text = (HERE / path).read_text(encoding="utf-8")
        assert f"def {test}(" in text, f"{path}::{test}"
