"""Prints the requirements of ruff and mypy, one a line, as the `dev` extra names them."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
for requirement in project["optional-dependencies"]["dev"]:
    if requirement.startswith(("ruff", "mypy")):
        print(requirement)
