"""What may be asked of a running stream, and by whom."""

import pytest

from instantvir_models.errors import UsageError
from instantvir_models.live.controls import Controls, ControlSettings
from instantvir_models.live.serve.wishes import apply_wishes, told
from tests.live_tools import STATUS
from tests.wan_small import small_text

OTHER = small_text(seed=9, rows=5)

NONSENSE = [
    None, True, 3, "on", [], [{"is_on": True}], {"colour": "red"}, {"is_on": 1}, {"is_on": "true"},
    {"strength": "much"}, {"strength": True}, {"strength": [1]}, {"strength": {}},
    {"strength": float("nan")}, {"strength": float("inf")}, {"strength": -float("inf")},
    {"strength": 10**400}, {"strength": -(10**400)}, {"strength": 1.0000001},
    {"sharpness": "much"}, {"sharpness": True}, {"sharpness": float("nan")}, {"sharpness": 10**400},
    {"sharpness": -0.1}, {"sharpness": 1.51}, {"is_on": False, "sharpness": 2},
    {"snapshot": 1}, {"snapshot": "now"}, {"status": 0}, {"prompt": 1}, {"prompt": ["a"]},
    {"prompt": "nul\0"}, {"prompt": "half a \ud800 letter"}, {"prompt": "x" * 2001},
    {"is_on": False, "prompt": "\0"}, {"is_on": False, "strength": 7}, {"strength": 0.5, "other": 1},
    {"snapshot": True, "strength": 9},
]  # fmt: skip


@pytest.mark.parametrize("wishes", NONSENSE, ids=range(len(NONSENSE)))
def test_wishes_that_make_no_sense_change_nothing_and_say_why(wishes):
    controls = Controls(read_prompt=lambda prompt: OTHER, can_sharpen=True)
    with pytest.raises(UsageError, match=r"[a-z]{3,}") as caught:
        apply_wishes(controls, wishes, may_name_files=True)
    assert len(str(caught.value)) < 200
    assert controls.settings == ControlSettings()
    assert not controls.take_snapshot_wish()


def test_all_wishes_at_once():
    controls = Controls(read_prompt=lambda prompt: OTHER, can_sharpen=True)
    wishes = {
        "is_on": False, "strength": 0, "sharpness": 1, "prompt": "", "snapshot": True,
        "status": True,
    }  # fmt: skip
    apply_wishes(controls, wishes, may_name_files=False)
    assert controls.take_snapshot_wish()
    assert told(controls, STATUS)["controls"] == {
        "is_on": False, "strength": 0.0, "sharpness": 1.0, "can_sharpen": True, "prompt": "",
        "reads_text": True,
    }  # fmt: skip
    apply_wishes(controls, {"status": True}, may_name_files=False)
    apply_wishes(controls, {"is_on": None, "strength": None}, may_name_files=False)
    assert controls.settings.strength == 0


def test_a_method_that_cannot_be_sharpened_says_so_and_the_rest_of_the_wish_is_not_done():
    controls = Controls()
    with pytest.raises(UsageError, match="cannot be sharpened"):
        apply_wishes(controls, {"is_on": False, "sharpness": 1}, may_name_files=False)
    assert controls.settings == ControlSettings()


def test_only_who_may_read_files_names_one():
    read = []
    controls = Controls(read_prompt=lambda prompt: read.append(prompt) or OTHER)
    wishes = {"prompt": "prompts/rows.safetensors"}
    with pytest.raises(UsageError, match="is a text, not a file"):
        apply_wishes(controls, wishes, may_name_files=False)
    assert read == []
    apply_wishes(controls, wishes, may_name_files=True)
    assert read == ["prompts/rows.safetensors"]
