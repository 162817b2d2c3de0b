"""Prints what an extra requires, one a line, or those of the project that are named.

python .ci/requirements.py pyproject.toml dev ruff mypy     # from the extra `dev`, these two
python .ci/requirements.py pyproject.toml docs              # all of the extra `docs`
python .ci/requirements.py pyproject.toml - typer           # from the dependencies of the project
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
extra, names = sys.argv[2], tuple(sys.argv[3:])
requirements = project["dependencies"] if extra == "-" else project["optional-dependencies"][extra]
for requirement in requirements:
    if not names or requirement.startswith(names):
        print(requirement)
