"""Prints a bill of materials (CycloneDX 1.6) of the project and all that its lock names.

python .ci/sbom.py locks/test.txt > instantvir.cdx.json
"""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?: *; *(?P<where>[^\\]+?))? *\\?$"
)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> list[dict[str, Any]]:
    """What a lock names, each with the digests of its files and, where it is not for every system,
    the condition."""
    found: list[dict[str, Any]] = []
    for line in lock.splitlines():
        if named := LINE.fullmatch(line.strip()):
            name, version = named["name"].lower(), named["version"]
            reference = f"pkg:pypi/{name}@{version}"
            component = {"type": "library", "bom-ref": reference, "purl": reference}
            component |= {"name": name, "version": version, "hashes": []}
            if named["where"]:
                component["properties"] = [
                    {"name": "python:marker", "value": named["where"].strip()}
                ]
            found.append(component)
        elif digest := HASH.search(line):
            found[-1]["hashes"].append({"alg": "SHA-256", "content": digest[1]})
    return found


def bill(lock: str) -> dict[str, Any]:
    """The bill of materials; the same lock gives the same bill."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    reference = f"pkg:pypi/{project['name']}@{project['version']}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": reference,
                "purl": reference,
                "name": project["name"],
                "version": project["version"],
                "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": components(lock),
    }


if __name__ == "__main__":
    print(json.dumps(bill(Path(sys.argv[1]).read_text(encoding="utf-8")), indent=2))
