"""A plan counts what there is: parameters, arithmetic and memory of the modules themselves."""

from dataclasses import replace

import pytest
import torch

from instantvir_distill.config import CriticConfig, TeacherConfig
from instantvir_distill.methods.adversarial import Adversarial
from instantvir_distill.plan import planned
from instantvir_models.priors.flow import FlowNetwork
from instantvir_models.students.fused import FusedStudent
from tests.small_runs import SMALL, SMALL_PRIOR

TEACHING = TeacherConfig(phases=SMALL.phases, workers=1, network=SMALL_PRIOR)


def test_parameters_are_those_of_the_networks():
    (student,) = planned(SMALL).networks
    assert student.parameters == sum(w.numel() for w in FusedStudent(SMALL.student).parameters())
    assert student.learned == student.parameters
    (teacher,) = planned(TEACHING).networks
    assert teacher.parameters == sum(w.numel() for w in FlowNetwork(SMALL_PRIOR).parameters())


def test_arithmetic_grows_with_samples_and_pixels_and_is_shared_by_workers():
    one = planned(TEACHING)
    phases = tuple(replace(phase, samples=2 * phase.samples) for phase in TEACHING.phases)
    assert planned(replace(TEACHING, phases=phases)).flop == pytest.approx(2 * one.flop)
    two = planned(replace(TEACHING, workers=2))
    assert two.flop == one.flop
    assert two.networks[0].saved_bytes == one.networks[0].saved_bytes / 2


def test_a_convolution_counts_what_it_multiplies():
    """The whole is at least three times (forward, to inputs, to weights) the largest layer alone."""
    (teacher,) = planned(TEACHING).networks
    frames = sum(p.steps * p.samples * p.frames * p.crop**2 / 4 for p in TEACHING.phases)
    channels = SMALL_PRIOR.fine_channels
    fine = 3 * 2 * frames * 9 * channels * channels * 4 / TEACHING.steps
    assert teacher.flop_per_step > fine


def test_what_stands_still_needs_neither_gradient_nor_average():
    learned = planned(replace(SMALL, learned="head_error")).networks[0]
    assert 0 < learned.learned < learned.parameters / 40
    assert learned.state_bytes < 1.1 * 4 * learned.parameters
    both = planned(replace(SMALL, learned="head_error,head_mean")).networks[0].learned
    assert (
        both == learned.learned + planned(replace(SMALL, learned="head_mean")).networks[0].learned
    )


def test_heads_are_planned_beside_a_teacher_that_stands_still():
    config = replace(
        SMALL, method=Adversarial(anchor_weight=0.0), teacher="any", critic=CriticConfig()
    )
    _, teacher, heads = planned(config, teacher=SMALL_PRIOR).networks
    assert teacher.learned == 0
    assert heads.parameters == heads.learned
    assert heads.flop_per_step > 3 * teacher.flop_per_step  # the teacher looks thrice, and more


def test_nothing_is_allocated():
    assert torch.empty(1).device.type == "cpu"
    lines = planned(SMALL).lines()
    assert lines[0] == "6 steps, 1 worker"
    assert any("parameters (all learned)" in line for line in lines)
