"""Every method on the problem whose answer is known: x ~ N(0, 1), y = x + n, both of variance 1.

A student k y + l e. The posterior is k 0.5, l 0.707; its mean k 0.5, l 0. Noise levels are uniform
in flow time from 0.02 to 0.98, so the predictions of score methods are those of direct minimisation.
"""

from dataclasses import replace

import pytest
import torch

from instantvir_distill.critic import FeatureHeads
from instantvir_distill.levels import NoiseLaw, score_weight
from instantvir_distill.losses import denoising_error
from instantvir_distill.methods.adversarial import Adversarial
from instantvir_distill.methods.amortise import Amortise
from instantvir_distill.methods.base import CleanExample, Example, Networks, Reconstruction, noised
from instantvir_distill.methods.by_task import ByTask
from instantvir_distill.methods.posterior_teacher import PosteriorTeacher
from instantvir_distill.methods.regression import Regression
from instantvir_distill.methods.released import Released
from instantvir_distill.methods.self_supervised import SelfSupervised
from instantvir_distill.methods.summed import Summed
from instantvir_distill.methods.variational import Variational, red_diff
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation, Measurement
from instantvir_models.priors.posterior import annealed_estimate, posterior_mean
from tests.small_runs import small_prior

FLOW = NoiseLaw(law="flow", low=0.02, high=0.98)
SIZE = (24, 1, 3, 16, 16)
NOISY = Degradation(operator=Identity(), noise_std=1.0)


class Scalars:
    """The prior: every pixel by itself, variance 1."""

    accepts_maps, largest_std = True, 1e6

    def encode(self, x):
        return x

    def decode(self, z):
        return z

    def denoise(self, z, noise):
        return noise.apply(lambda std: 1 / (1 + std**2), z)

    def error_std(self, noise_std):
        return noise_std / (1 + noise_std**2) ** 0.5


class Linear(torch.nn.Module):
    """The student k y + l e; without a noise input l stays 0."""

    def __init__(self, k, spread):
        super().__init__()
        self.k, self.spread = (torch.nn.Parameter(torch.tensor(v)) for v in (k, spread))
        self.spread.requires_grad_(spread > 0)
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, examples):
        return [self.restored(example.measurement.y) for example in examples]

    def restored(self, y):
        e = torch.randn(y.shape, generator=self.generator) if self.spread.requires_grad else 0.0
        one = torch.ones(y.shape[1], 1, *y.shape[-2:])
        return Reconstruction(self.k * y + self.spread * e, one, one)


class Ideal:
    """The critic that has learned all there is, of a student as it is now."""

    def __init__(self, student, *, sees_y):
        self.student, self.sees_y = student, sees_y

    def __call__(self, z_r, noise_std, measurement):
        k, spread = self.student.k.detach(), self.student.spread.detach()
        r2 = noise_std.square().reshape(-1, 1, 1, 1, 1)
        mean = k * measurement.y if self.sees_y else 0.0
        variance = spread**2 if self.sees_y else 2 * k**2 + spread**2
        return mean + variance / (variance + r2) * (z_r - mean)


def drawn(generator):
    x = torch.randn(SIZE, generator=generator)
    y = x + torch.randn(SIZE, generator=generator)
    return CleanExample(Measurement(y, NOISY), slice(0, 1), "denoise", x)


def reached(method, *, spread=0.0, start=0.8, critic=None, steps=260):
    """(k, l) that the method leads to."""
    generator = torch.Generator().manual_seed(0)
    student = Linear(start, spread)
    networks = Networks(student, _prior=Scalars(), _critic=critic and critic(student))
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad])
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / steps)
        example = drawn(generator)
        if not method.reads_clean:
            example = Example(example.measurement, example.frames, example.task)
        optimizer.zero_grad()
        method.loss([example], networks, generator).total.backward()
        optimizer.step()
    return float(student.k.detach()), abs(float(student.spread.detach()))


@pytest.mark.parametrize(
    ("method", "k"),
    [
        (Regression(), 0.5),
        (Amortise(), 0.5),
        (SelfSupervised(noise="sure"), 0.5),
        (SelfSupervised(noise_gain=(0.5, 0.5)), 1 / (1 + 1.25)),  # of the noisier measurement
        (PosteriorTeacher(levels=FLOW, is_normalised=False), 0.5),
        (PosteriorTeacher(levels=FLOW, weight="uniform", is_normalised=False), 0.5),
        (PosteriorTeacher(levels=NoiseLaw(low=0.1, high=0.3), is_normalised=False), 0.5),
        (replace(red_diff(), levels=FLOW, fidelity="likelihood"), 2 / 3),
    ],
)
def test_a_student_without_noise_input_reaches_what_is_predicted(method, k):
    """The posterior teacher reaches the posterior mean for every weight and range of levels."""
    found, spread = reached(method)
    assert found == pytest.approx(k, abs=0.015)
    assert spread == 0


def test_a_critic_that_sees_the_measurement_leads_near_the_posterior():
    method = Variational(critic="conditioned", fidelity="likelihood", levels=FLOW)
    k, spread = reached(method, spread=0.5, critic=lambda s: Ideal(s, sees_y=True))
    assert (k, spread) == pytest.approx((0.667, 0.476), abs=0.03)


def test_a_blind_critic_rewards_copying_the_noise():
    method = Variational(critic="blind", fidelity="likelihood", levels=FLOW)
    k, spread = reached(method, spread=0.5, critic=lambda s: Ideal(s, sees_y=False), steps=400)
    assert k == pytest.approx(0.875, abs=0.03)
    assert spread < 0.1


def test_a_posterior_teacher_leads_to_the_posterior():
    method = PosteriorTeacher(critic="conditioned", levels=FLOW, is_normalised=False)
    k, spread = reached(method, spread=0.4, critic=lambda s: Ideal(s, sees_y=True))
    assert (k, spread) == pytest.approx((0.5, 0.707), abs=0.03)


def pull(method, k):
    """The slope of the loss of a student k y: negative where a larger k is wanted."""
    student = Linear(k, 0.0)
    generator = torch.Generator().manual_seed(0)
    networks = Networks(student, _prior=Scalars())
    method.loss([drawn(generator)], networks, generator).total.backward()
    return float(student.k.grad)


def test_discrepancy_stops_at_the_noise():
    """The residual (1 - k) y has variance 2 (1 - k)^2, which is that of the noise at k 0.293."""
    copies = Variational(critic="self", fidelity="likelihood", prior_weight=0.0)
    stops = replace(copies, fidelity="discrepancy")
    assert pull(copies, 0.9) < 0  # without anything against it, the likelihood copies
    assert pull(stops, 0.27) < 0
    assert pull(stops, 0.32) == 0


def test_the_written_loss_follows_its_closed_form():
    """Of a student k y with a blind critic at one level: half of the slope of E|f - p|^2 / r^2."""
    k, r = 0.8, 0.6
    law = NoiseLaw(low=r, high=r * (1 + 1e-6))
    method = Variational(
        divergence="fisher", fidelity_weight=0.0, fidelity="likelihood", levels=law
    )
    student = Linear(k, 0.0)
    generator = torch.Generator().manual_seed(0)
    critic = Ideal(student, sees_y=False)
    networks = Networks(student, _prior=Scalars(), _critic=critic)
    for _ in range(6):
        method.loss([drawn(generator)], networks, generator).total.backward()
    free = torch.tensor(k, dtype=torch.float64, requires_grad=True)
    variance = 2 * free**2
    gap = variance / (variance + r**2) - 1 / (1 + r**2)
    (gap**2 * (variance + r**2) / r**2).backward()
    assert float(student.k.grad) / 6 == pytest.approx(0.5 * float(free.grad), rel=0.1)


def test_the_published_objective_is_drawn_to_the_measurement():
    """Half of clean and half of measured, where nothing else speaks."""
    method = Released()
    k, _ = reached(method, critic=lambda s: Ideal(s, sees_y=False))
    assert 0.65 < k < 0.85  # (0.5 + 1) / 2, give or take its score term


class Power(torch.nn.Module):
    """Heads that know of a place how far it is from 0: a + b z^2."""

    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(2))

    def forward(self, z_r, noise_std, measurement):
        return (self.weights[0] + self.weights[1] * (z_r.square() - 1)).flatten()


@pytest.mark.parametrize("start", [0.4, 1.0])
def test_heads_lead_to_outputs_that_look_natural(start):
    """Without fidelity and anchor: of variance 1, at k = 1 / sqrt(2), where the posterior mean is 0.5."""
    generator = torch.Generator().manual_seed(0)
    student, heads = Linear(start, 0.0), Power()
    method = Adversarial(fidelity_weight=0.0, anchor_weight=0.0, is_normalised=False)
    networks = Networks(
        student,
        _prior=Scalars(),
        _critic=heads,
        _natural=lambda like: torch.randn(like.shape, generator=generator),
    )
    of_student = torch.optim.SGD([student.k], lr=0.02)
    of_heads = torch.optim.SGD(heads.parameters(), lr=0.1, weight_decay=0.3)  # or they circle
    for _ in range(400):
        for optimizer, loss in ((of_student, method.loss), (of_heads, method.critic_loss)):
            optimizer.zero_grad()
            loss([drawn(generator)], networks, generator).total.backward()
            optimizer.step()
    assert float(student.k.detach()) == pytest.approx(0.5**0.5, abs=0.02)


def test_heads_learn_without_the_teacher_and_the_student_without_the_heads():
    prior = small_prior()
    heads = FeatureHeads(prior)
    assert all(name.startswith("heads.") for name in heads.state_dict())
    student = Linear(0.5, 0.0)
    networks = Networks(
        student, _prior=prior, _critic=heads, _natural=lambda like: torch.randn_like(like)
    )
    generator = torch.Generator().manual_seed(0)
    method = Adversarial(anchor_weight=0.0)
    method.loss([drawn(generator)], networks, generator).total.backward()
    assert student.k.grad.abs() > 0
    assert all(weight.grad is None for weight in heads.parameters())
    student.k.grad = None
    method.critic_loss([drawn(generator)], networks, generator).total.backward()
    assert student.k.grad is None
    assert all(weight.grad.abs().sum() > 0 for weight in heads.parameters() if weight.ndim > 1)


def test_a_sum_has_the_gradient_of_its_terms():
    """On one reconstruction, whatever is drawn on the way."""
    terms = Regression(), red_diff()
    slopes = [pull(term, 0.9) for term in terms]
    assert pull(Summed(terms=terms, weights=(0.5, 0.0)), 0.9) == pytest.approx(0.5 * slopes[0])
    generator, student = torch.Generator().manual_seed(0), Linear(0.9, 0.0)
    example, networks = drawn(generator), Networks(student, _prior=Scalars())
    summed = Summed(terms=terms, weights=(2.0, 3.0))
    assert summed.reads_clean
    total = summed.loss([example], networks, torch.Generator().manual_seed(1)).total
    each = [
        term.loss([example], networks, torch.Generator().manual_seed(1)).total for term in terms
    ]
    torch.testing.assert_close(total, 2 * each[0] + 3 * each[1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"terms": (Regression(),), "weights": (1.0,)}, "two terms or more"),
        ({"weights": (1.0, 1.0, 1.0)}, "a weight for each"),
        ({"terms": (Variational(), Adversarial())}, "only one may learn a critic"),
    ],
)
def test_sums_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Summed(**wrong)


def test_each_task_has_its_method():
    """Examples come back in the order in which they were given, and weigh the same."""
    generator, student = torch.Generator().manual_seed(0), Linear(0.9, 0.0)
    networks = Networks(student, _prior=Scalars())
    examples = [
        replace(drawn(generator), task=task) for task in ("denoise", "sr", "denoise", "inpaint")
    ]
    split = ByTask(methods={"denoise": Regression()}, others=Amortise())
    found = split.loss(examples, networks, generator)
    for i, example in enumerate(examples):
        alone = split.of(example.task).loss([example], networks, generator)
        torch.testing.assert_close(found.by_example[i], alone.by_example[0])
    assert split.of("sr") == Amortise()
    whole = [
        method.loss(some, networks, generator).total
        for method, some in ((Regression(), examples[::2]), (Amortise(), examples[1::2]))
    ]
    torch.testing.assert_close(found.total, (whole[0] + whole[1]) / 2)
    assert split.reads_clean
    assert not ByTask().reads_clean
    assert ByTask().reach("deblur") == SelfSupervised().reach("deblur") > 1
    assert ByTask().reach("denoise") == 1


def test_a_task_among_several_learns_no_critic():
    with pytest.raises(ValueError, match="learns no critic"):
        ByTask(others=PosteriorTeacher(critic="conditioned"))


class Affine(torch.nn.Module):
    """A critic a z + b y at one noise level."""

    def __init__(self, *, sees_y):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(2))
        self.sees_y = sees_y

    def forward(self, z_r, noise_std, measurement):
        seen = self.weights[1] * measurement.y if self.sees_y else 0.0
        return self.weights[0] * z_r + seen


def learned_critic(sees_y, k, spread, r):
    """Weights of an affine critic of the student k y + l e, after learning at level r."""
    generator = torch.Generator().manual_seed(1)
    student, critic = Linear(k, spread), Affine(sees_y=sees_y)
    method = Variational(
        critic="conditioned" if sees_y else "blind", levels=NoiseLaw(low=r, high=r * (1 + 1e-6))
    )
    networks = Networks(student, _prior=Scalars(), _critic=critic)
    optimizer = torch.optim.Adam(critic.parameters())
    for step in range(250):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 250)
        optimizer.zero_grad()
        method.critic_loss([drawn(generator)], networks, generator).total.backward()
        optimizer.step()
    return critic.weights.tolist()


def test_the_optimum_of_a_critic_that_sees_y_is_the_output_itself():
    """Where the student is a function of y: such a critic has nothing to tell."""
    of_z, of_y = learned_critic(True, 0.7, 0.0, r=0.5)
    assert (of_z, of_y) == pytest.approx((0.0, 0.7), abs=0.01)


def test_a_critic_learns_the_score_of_the_outputs():
    r2, variance = 0.25, 2 * 0.7**2 + 0.4**2
    of_z, _ = learned_critic(False, 0.7, 0.4, r=0.5)
    assert of_z == pytest.approx(variance / (variance + r2), abs=0.01)
    of_z, of_y = learned_critic(True, 0.7, 0.4, r=0.5)
    share = 0.4**2 / (0.4**2 + r2)
    assert (of_z, of_y) == pytest.approx((share, (1 - share) * 0.7), abs=0.01)


class Learned(torch.nn.Module):
    """A critic a z + b y whose two numbers a small network tells from the noise level."""

    def __init__(self, *, sees_y):
        super().__init__()
        torch.manual_seed(0)
        self.told = torch.nn.Sequential(
            torch.nn.Linear(1, 24), torch.nn.Tanh(), torch.nn.Linear(24, 2)
        )
        self.sees_y = sees_y

    def forward(self, z_r, noise_std, measurement):
        a, b = self.told(noise_std.log()[:, None]).T.reshape(2, -1, 1, 1, 1, 1)
        return a * z_r + (b * measurement.y if self.sees_y else 0.0)


@pytest.mark.parametrize(
    ("method", "predicted"),
    [
        (Variational(critic="conditioned", fidelity="likelihood", levels=FLOW), (0.667, 0.476)),
        (Variational(critic="blind", fidelity="likelihood", levels=FLOW), (0.875, 0.0)),
        (
            PosteriorTeacher(critic="conditioned", levels=FLOW, is_normalised=False),
            (0.5, 0.707),
        ),
    ],
)
def test_critics_that_learn_beside_the_student_lead_to_the_same(method, predicted):
    """Five updates of the critic for each of the student, as in published code."""
    generator = torch.Generator().manual_seed(0)
    student, critic = Linear(0.7, 0.4), Learned(sees_y=method.critic_sees == "conditioned")
    networks = Networks(student, _prior=Scalars(), _critic=critic)
    optimizers = {
        name: torch.optim.Adam(net.parameters())
        for name, net in (("student", student), ("critic", critic))
    }

    def learn(name, loss, rate):
        optimizers[name].param_groups[0]["lr"] = rate
        optimizers[name].zero_grad()
        loss([drawn(generator)], networks, generator).total.backward()
        optimizers[name].step()

    for _ in range(100):  # a critic that knows nothing yet sends the student anywhere
        learn("critic", method.critic_loss, 0.02)
    steps = 240
    for step in range(steps):
        for _ in range(5):
            learn("critic", method.critic_loss, 0.01 * (1 - step / steps))
        learn("student", method.loss, 0.02 * (1 - step / steps))
    found = float(student.k.detach()), abs(float(student.spread.detach()))
    assert found == pytest.approx(predicted, abs=0.05)


def test_levels_are_drawn_from_their_law():
    generator = torch.Generator().manual_seed(0)
    flow = FLOW.drawn(4000, generator)
    s = flow / (1 + flow)
    assert (float(s.min()), float(s.max())) == pytest.approx((0.02, 0.98), abs=1e-3)
    assert float(s.mean()) == pytest.approx(0.5, abs=1e-3)
    shifted = NoiseLaw(law="shifted_flow", low=0.02, high=0.98).drawn(4000, generator)
    assert float((shifted / (1 + shifted)).median()) == pytest.approx(0.889, abs=2e-3)
    normal = NoiseLaw(law="log_normal", low=0.1, high=0.4).drawn(4000, generator).log()
    assert float(normal.mean().exp()) == pytest.approx(0.2, rel=0.01)
    assert float(normal.std()) == pytest.approx(torch.tensor(2.0).log().item(), rel=0.01)


@pytest.mark.parametrize(
    "wrong", [{"law": "cubic"}, {"low": 0.5, "high": 0.1}, {"law": "flow", "high": 1.0}]
)
def test_a_law_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="noise levels"):
        NoiseLaw(**wrong)


def test_weights_of_scores_are_those_of_the_literature():
    r = torch.tensor([0.25])
    s = r / (1 + r)
    assert score_weight("kl", r) == 1
    torch.testing.assert_close(score_weight("vsd", r) / r**2, s * (1 - s))
    torch.testing.assert_close(score_weight("uniform", r) / r**2, torch.ones(1))
    with pytest.raises(ValueError, match="one of kl, vsd, uniform"):
        score_weight("cubic", r)


def test_noise_is_added_at_the_level_that_is_told():
    z = torch.zeros(400, 1, 3, 16, 16)
    z_r, noise_std = noised(z, FLOW, torch.Generator().manual_seed(0))
    torch.testing.assert_close(z_r.flatten(1).std(1), noise_std, rtol=0.15, atol=0)
    assert denoising_error(z, z, noise_std, signal_std=0.5) == 0


def test_what_stands_for_clean_frames_behind_holes_is_a_solver_run_unless_one_look_is_asked_for():
    """One look is exact for a teacher that knows maps; the tiny one was 14 dB worse by it."""
    y = torch.randn(1, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    kept = (torch.arange(64) % 2).view(1, 1, 8, 8)
    holes = Measurement(y * kept, Degradation(operator=Mask(kept.float()), noise_std=0.1))
    run = annealed_estimate(Scalars(), holes, Amortise().levels)
    look = posterior_mean(Scalars(), holes)
    assert not torch.equal(run, look)
    assert torch.equal(Amortise().target(Scalars(), holes), run)
    assert torch.equal(Amortise(known_parts="one_look").target(Scalars(), holes), look)
    noisy = Measurement(y, NOISY)
    assert torch.equal(Amortise().target(Scalars(), noisy), posterior_mean(Scalars(), noisy))


@pytest.mark.parametrize(
    "settings", [{"known_parts": "both"}, {"levels": ()}, {"levels": (0.1, 0)}]
)
def test_settings_of_amortise_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValueError, match=r"`(known_parts|levels)`"):
        Amortise(**settings)
