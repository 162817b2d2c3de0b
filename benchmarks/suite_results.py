"""Keep the results of a suite, small: tables in the documentation, every row in `results/`.

    instantvir benchmark --suite paper -o DIR        # or real; goes on where it was; hours of two cores
    python benchmarks/suite_results.py DIR

Writes `results/suite_NAME.{json,csv}`, without films, and `docs/benchmarks/NAME.md`.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from receipts import RESULTS

from instantvir_models.suite.results import load_suite
from instantvir_models.suite.tables import csv_text, markdown, means

DOCS = RESULTS.parents[1] / "docs" / "benchmarks"

PREFACE = """\
Written by `benchmarks/suite_results.py` from a run of `instantvir benchmark --suite {name}`; do not edit.
How to read it: [Benchmarks](index.md).
"""


def main() -> None:
    """Read the folder, write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    suite = load_suite(parser.parse_args().folder)
    title, *rest = markdown(suite).split("\n")
    page = "\n".join([title, "", PREFACE.format(name=suite.name), *rest])
    (DOCS / f"{suite.name}.md").write_text(page, encoding="utf-8")
    (RESULTS / f"suite_{suite.name}.csv").write_text(csv_text(suite), encoding="utf-8")
    whole = {"suite": asdict(suite), "means": [asdict(mean) for mean in means(suite)]}
    text = json.dumps(whole, separators=(",", ":"), ensure_ascii=False)
    (RESULTS / f"suite_{suite.name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
