"""Fails unless a wheel holds every file of our packages, and no top-level name but theirs.

python .ci/wheel_contents.py WHEEL SOURCE_TREE
"""

import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

wheel, source = Path(sys.argv[1]), Path(sys.argv[2])
build = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
packages = [source / package for package in build["build"]["targets"]["wheel"]["packages"]]

inside = {PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()}
expected = {
    PurePosixPath(path.relative_to(package.parent).as_posix())
    for package in packages
    for path in package.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}
if missing := sorted(map(str, expected - inside)):
    sys.exit(f"{wheel.name} lacks {', '.join(missing)}")

names = {path.parts[0] for path in inside if not path.parts[0].endswith(".dist-info")}
if names != {package.name for package in packages}:
    sys.exit(f"{wheel.name} installs the top-level names {', '.join(sorted(names))}")

# what no test run from a source tree would miss
for suffix in (".safetensors", ".html", "registry.json", "tiles.json", "aot_baseline.json"):
    if not any(path.name.endswith(suffix) for path in inside):
        sys.exit(f"{wheel.name} holds no file named like {suffix}")
