"""Settings by name: typed, complete, and refused where they would have no effect."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from instantvir_distill.config import CriticConfig
from instantvir_distill.methods.amortise import Amortise
from instantvir_distill.methods.by_task import ByTask
from instantvir_distill.methods.posterior_teacher import PosteriorTeacher
from instantvir_distill.methods.regression import Regression
from instantvir_distill.methods.self_supervised import SelfSupervised
from instantvir_distill.methods.summed import Summed
from instantvir_distill.methods.variational import Variational
from instantvir_distill.recipes import RECIPES, tiny
from instantvir_distill.saved import described
from instantvir_distill.settings import with_settings
from instantvir_models.errors import UsageError


def test_settings_reach_every_depth_and_keep_their_types():
    config = with_settings(
        RECIPES["sharpen"](),
        [
            "muon_lr=0.5", "seed=7", "mix=denoise, sr", "phases.0.steps=3", "method.levels.high=0.3",
            "method.task_scale.sr=0.1", "critic.updates_per_step=5", "student.fine_channels=16",
            "teacher=other.safetensors",
        ],
    )  # fmt: skip
    assert (config.muon_lr, config.seed, config.mix) == (0.5, 7, ("denoise", "sr"))
    assert config.phases[0].steps == 3
    assert config.method.levels.high == 0.3
    assert config.method.task_scale == {"sr": 0.1}
    assert config.critic.updates_per_step == 5
    assert config.student.fine_channels == 16
    assert config.teacher == "other.safetensors"


def test_a_method_is_chosen_by_its_name_and_set_at_once():
    config = with_settings(tiny(), ["method=self_supervised", "method.hidden=0.1,0.2"])
    assert config.method == SelfSupervised(hidden=(0.1, 0.2))
    taught = with_settings(
        tiny(), ["method=variational", "teacher=t", "critic=default", "method.critic=blind"]
    )
    assert (taught.method, taught.critic) == (Variational(), CriticConfig())
    summed = with_settings(
        tiny(),
        ["method=sum", "method.terms=regression, variational", "method.terms.1.critic=self",
         "method.weights=1,0.1", "teacher=t"],
    )  # fmt: skip
    terms = (Regression(), Variational(critic="self"))
    assert summed.method == Summed(terms=terms, weights=(1.0, 0.1))
    split = with_settings(
        tiny(),
        ["method=by_task", "method.methods.sr=posterior_teacher", "method.methods.sr.maps=false",
         "method.others.hidden=0.1,0.2", "teacher=t"],
    )  # fmt: skip
    assert split.method.of("sr") == PosteriorTeacher(maps=False)
    assert split.method.of("denoise") == Amortise()
    assert split.method.of("inpaint") == SelfSupervised(hidden=(0.1, 0.2))


def test_methods_inside_a_method_are_written_with_their_names():
    """Or a run could not be told from one with another method that has the same settings."""
    config = replace(tiny(), method=Summed(terms=(Regression(), Amortise())), teacher="t")
    written = described(config)["method"]
    assert written["name"] == "sum"
    assert [term["name"] for term in written["terms"]] == ["regression", "amortise"]
    split = replace(config, method=ByTask())
    assert described(split)["method"]["methods"]["denoise"]["name"] == "amortise"
    assert described(split)["method"]["others"]["name"] == "self_supervised"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("muon_rate=1", "no setting `muon_rate`"),
        ("method.power=1", "`method` has no setting `power`"),
        ("phases.3.steps=1", "entries 0 to 1, not `3`"),
        ("seed=a", "`seed` is a whole number, got `a`"),
        ("layout=spread", "one of replicated, sharded"),
        ("method=magic", "one of regression, self_supervised"),
        ("critic.muon_lr=1", "has no `muon_lr`"),
        ("method.levels.high=1", "`method` has no setting `levels`"),
        ("muon_lr", "sets nothing"),
        ("phases.0.crop=30", "multiples of 8"),
        ("phases.0.steps=0", "`phases.steps` is from 1 to 99999999, got 0"),
        ("phases.0.steps=100000000", "`phases.steps` is from 1 to 99999999"),  # no such checkpoint
        ("phases.0.frames_learned=0", "`phases.frames_learned` is from 1"),
        ("phases..steps=3", "`phases..steps` has a part without a name"),  # was a traceback
        ("method.=3", "a part without a name"),
        ("student=default", "`student` is set by its parts"),  # was a traceback
        ("student.fine_channels=0", "`student.fine_channels` is from 1"),  # so was each of these
        ("student.frames_per_block=0", "`student.frames_per_block` is from 1"),
        ("student.traits=", "some of .*, got none"),
        ("student.traits.0=magic", "some of .*, got magic"),
        ("seed=99999999999999999999999", "`seed` is from 0"),
        ("max_gradient_norm=0", "`max_gradient_norm` is at least"),  # learned nothing
        ("method.calibration_weight=-1", "`method.calibration_weight` is at least 0, got -1"),
        ("method.powers.denoise=nan", "`method.powers.denoise` is a number, got `nan`"),
        ("method.powers.denoise=inf", "`method.powers.denoise` is at least 0, got inf"),
        ("constant_share=1", "`constant_share` is from 0 to 0.99, got 1"),
        ("accumulate=0", "`accumulate` is at least 1"),
        ("ema_decay=nan", "`ema_decay` is a number, got `nan`"),
        ("lossy_fraction=2", "`lossy_fraction` is from 0 to 1"),
        ("mix=denose", "no task called `denose`"),
        ("mix={}", "`mix` is a list without brackets, got `{}`"),
        ("method.powers.deblurr=1", "no task called `deblurr`"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting, message):
    with pytest.raises(UsageError, match=message):
        with_settings(tiny(), [setting])


def test_a_value_that_a_method_refuses_is_told():
    with pytest.raises(UsageError, match="do not fit together: noise levels run from low to high"):
        with_settings(RECIPES["sharpen"](), ["method.levels.high=0.01"])


def test_the_nearest_name_is_offered():
    with pytest.raises(UsageError) as refused:
        with_settings(tiny(), ["muon_rl=1"])
    assert refused.value.hint == "did you mean `muon_lr`?"
    with pytest.raises(UsageError) as refused:
        with_settings(tiny(), ["samples=1"])
    assert refused.value.hint == "did you mean `phases.0.samples`?"


@pytest.mark.parametrize(
    ("recipe", "setting"),
    [
        ("sharpen", "critic.updates_per_step=0"),
        ("sharpen", "method.anchor_weight=-1"),
        ("tiny-card", "stock.sequences=0"),
        ("tiny-teacher", "map_share=2"),
        ("tiny-teacher", "network.fine_channels=0"),
        ("tiny-posterior", "method.levels.high=inf"),
    ],
)
def test_numbers_of_every_part_are_checked(recipe, setting):
    with pytest.raises(UsageError, match=setting.partition("=")[0]):
        with_settings(RECIPES[recipe](), [setting])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": Variational()}, "learns from a teacher, and none was named"),
        ({"teacher": "t"}, "asks no teacher, so `teacher` would have no effect"),
        ({"critic": CriticConfig()}, "learns no critic, so `critic` would have no effect"),
        ({"method": Variational(), "teacher": "t"}, "say how in `critic`"),
        (
            {
                "method": Variational(critic="self", anchor_weight=0.1),
                "teacher": "t",
            },
            "an anchor is the student at the start",
        ),
    ],
)
def test_what_would_have_no_effect_or_is_missing_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        replace(tiny(), **settings)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_complete_frozen_and_can_be_written(name):
    config = RECIPES[name]()
    with pytest.raises(FrozenInstanceError):
        config.seed = 3
    again = json.loads(json.dumps(described(config)))
    assert again == described(config)
    assert "tiny" not in name or again["phases"]


def test_the_supervised_recipes_are_what_they_were():
    for name in ("tiny", "refine", "enlarge"):
        assert RECIPES[name]().method == Regression(powers={"denoise": 0.25})
    calibrating = Regression(powers={"denoise": 0.25}, calibration_weight=1.0)
    assert RECIPES["calibrate"]().method == calibrating
