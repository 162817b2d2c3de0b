"""Whatever bytes come in: a result or a sentence, within its time and memory, and no half file."""

import sys
from pathlib import Path

import pytest

from tests.fuzz.campaign import SEED, Campaign
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, with limits")

FOUND = Path(__file__).with_name("found")
"""Inputs that once went wrong: TARGET/what.name-of-the-whole-input."""

IN_EVERY_RUN = {
    "media": 100,
    "walled": 8,
    "mask": 24,
    "note": 24,
    "configuration": 16,
    "control": 18,
    "request": 18,
}
THOUSANDS = 2000


@pytest.fixture(scope="module", params=TARGETS)
def campaign(request, tmp_path_factory):
    return Campaign(TARGETS[request.param], tmp_path_factory.mktemp("fuzz") / request.param)


def ends_well(campaign, mutants):
    for mutant in mutants:
        ending = campaign.run(mutant.data, mutant.name)
        again = f"python -m tests.fuzz.campaign {mutant.target} --first {mutant.number} --count 1"
        assert not ending.is_bad, f"{mutant.name}: {ending}\n{again} --keep found"


def test_mutants_end_in_a_result_or_a_sentence(campaign):
    ends_well(campaign, campaign.mutants(SEED, 0, IN_EVERY_RUN[campaign.target.name]))


@pytest.mark.slow
def test_thousands_of_mutants_do(campaign):
    ends_well(campaign, campaign.mutants(SEED + 1, 0, THOUSANDS))


def test_what_was_found_once_stays_mended(campaign):
    for path in sorted((FOUND / campaign.target.name).glob("*")):
        name = path.name.split("=", 1)[1]
        ending = campaign.run(path.read_bytes(), name)
        assert not ending.is_bad, f"{path.name}: {ending}"
