"""The same methods with a small Wan-shaped student, and a teacher in another latent space."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.multiprocessing as mp

from instantvir_distill import config as settings
from instantvir_distill import distillation, measure
from instantvir_distill.config import CriticConfig, DistillConfig, Phase, WanSize
from instantvir_distill.levels import NoiseLaw
from instantvir_distill.methods.base import Example, Networks
from instantvir_distill.methods.posterior_teacher import PosteriorTeacher
from instantvir_distill.methods.self_supervised import SelfSupervised
from instantvir_distill.methods.variational import red_diff
from instantvir_distill.parallel import leave, whole
from instantvir_distill.plan import WanTeacherSize, planned
from instantvir_distill.pupils import first_pupil
from instantvir_distill.recipes import RECIPES
from instantvir_distill.restorers import SequenceRestorer
from instantvir_distill.teachers import wan_teacher
from instantvir_distill.teaching import MEASURED_LEVELS
from instantvir_models.checkpoints.config import WanCheckpoint
from instantvir_models.checkpoints.folder import save_folder, save_prompt
from instantvir_models.checkpoints.load import load_student
from instantvir_models.checkpoints.prompt import text_of
from instantvir_models.errors import CheckpointError, UsageError
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.measurement import Degradation, Measurement
from instantvir_models.priors.base import ErrorTable
from instantvir_models.priors.noise import white
from instantvir_models.priors.wan import WanPrior
from instantvir_models.students.wan.transformer import WanConfig, WanTransformer
from tests.distill.test_ground_truth_free import guard, learns_to_the_end_without_a_look
from tests.media_clips import make_clip
from tests.small_runs import clip, trainer
from tests.wan_small import TRANSFORMER, drawn, small_autoencoder, small_student, small_text

LAW = NoiseLaw(low=0.1, high=1.0)


@pytest.mark.parametrize(
    "method", [PosteriorTeacher(levels=LAW), red_diff(), SelfSupervised()],
    ids=lambda method: method.name,
)  # fmt: skip
def test_a_method_knows_no_network(method):
    """Student's latent by LeanVAE, teacher's by Wan's: the gradient goes through both."""
    student = small_student("lean")
    student.transformer.requires_grad_(True)
    teacher = WanPrior(
        drawn(WanTransformer(TRANSFORMER), seed=7), small_autoencoder("wan"), small_text(),
        small_text(seed=5, rows=0), ErrorTable((0.1, 1.0), (0.05, 0.3)), guidance=2.0,
    )  # fmt: skip
    y = 0.3 * torch.randn(1, 9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    given = Degradation(operator=GaussianBlur(1.0), noise_std=0.1)
    example = Example(Measurement(y, given), slice(0, 9), "deblur")
    networks = Networks(SequenceRestorer(student), _prior=teacher)
    loss = method.loss([example], networks, torch.Generator().manual_seed(0))
    loss.total.backward()
    gradients = [weight.grad for weight in student.transformer.parameters()]
    assert loss.total.isfinite()
    assert sum(g is not None and bool(g.abs().sum() > 0) for g in gradients) > len(gradients) / 2
    assert all(weight.grad is None for weight in teacher.transformer.parameters())


PHASE = Phase(steps=2, crop=32, frames=9, samples=2, frames_learned=9)


@pytest.fixture
def folders(tmp_path):
    """A student with LeanVAE and a prompt, and a teacher with the autoencoder of Wan."""
    for name, kind in (("student", "lean"), ("teacher", "wan")):
        student = small_student(kind, estimate_std=0.1)
        made = save_folder(student, tmp_path / name, WanCheckpoint(task="deblur", source="a test"))
        save_prompt(tmp_path / name, made, student.text.rows, text="a street")
    return tmp_path / "student", tmp_path / "teacher"


def small(folders, *, recipe="wan-1.3b-lean", **changes):
    student, teacher = folders
    config = replace(
        RECIPES[recipe](), initial_weights=str(student), teacher=str(teacher), device="cpu",
        layout="replicated", workers=1, phases=(PHASE,), mix=("deblur",), adam_lr=1e-3, warmup_steps=1,
        compute="float32",
    )  # fmt: skip
    return replace(config, critic=CriticConfig(muon_lr=0.0, adam_lr=1e-3), **changes)


def test_a_full_size_student_is_distilled_and_is_a_model(folders, tmp_path, monkeypatch):
    """Student in one latent space, teacher and critic in another, text in all of them."""
    monkeypatch.setattr("instantvir_distill.trainer.LOG_EVERY_STEPS", 2)
    config = small(folders)
    run = trainer(config, [clip("a_1")], tmp_path / "run")
    before = {k: v.clone() for k, v in run.objective.student.state_dict().items()}
    run.run()
    after = run.objective.student.state_dict()
    assert sum(not torch.equal(after[k], v) for k, v in before.items()) > len(before) / 2
    (row,) = [
        json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    ]
    assert {"critic", "deblur"} <= row.keys()
    made = load_student(str(tmp_path / "run" / "student"))
    assert made.checkpoint.task == "deblur"
    assert torch.equal(made.student.text.rows, load_student(str(folders[0])).student.text.rows)
    assert text_of(tmp_path / "run" / "student" / "prompt.safetensors") == "a street"
    average = run.objective.learners["student"].average
    for name, weight in made.student.transformer.state_dict().items():
        torch.testing.assert_close(weight, average[name], rtol=0, atol=0)


@pytest.mark.parametrize("recipe", ["wan-1.3b-lean", "wan-1.3b"])
def test_a_full_size_recipe_never_looks_at_a_clean_frame(recipe, folders, tmp_path, monkeypatch):
    """As it is, but for its length, its size and where it runs."""
    guard(monkeypatch)
    config = replace(small(folders, recipe=recipe), mix=RECIPES[recipe]().mix)
    learns_to_the_end_without_a_look(config, tmp_path / "run", size=(64, 80))


def test_layers_computed_again_have_the_same_gradient(folders, tmp_path):
    gradients = []
    for recompute in (False, True):
        run = trainer(small(folders, recompute=recompute), [clip("a_1")], tmp_path / str(recompute))
        run.objective.prepare(0)
        run.objective.ask("student", 0, 0, 0)[0].backward()
        gradients.append({k: w.grad for k, w in run.objective.student.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-8)


def join(number, world, folder):
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(folder / "store"), world)
    torch.distributed.init_process_group("gloo", store=store, rank=number, world_size=world)


def shards(number, world, folders, folder):
    join(number, world, folder)
    config = small(folders, layout="sharded", workers=world, recompute=True)
    trainer(config, [clip("a_1")], folder).run()
    leave()


def asked_once(objective):
    """Every network's gradient of the first step, whole."""
    objective.prepare(0)
    found = {}
    for name, learner in objective.learners.items():
        learner._asked(partial(objective.ask, name, 0, 0, 0))[0].backward()
        for key, weight in learner.network.named_parameters():
            found[f"{name}.{key}"] = whole(weight.grad)
    return found


def gradients(number, world, folders, folder):
    join(number, world, folder)
    config = small(folders, layout="sharded", workers=world, recompute=True)
    objective = trainer(config, [clip("a_1")], folder).objective
    for learner in objective.learners.values():
        weights = list(learner.network.parameters())
        held = sum(weight.to_local().numel() for weight in weights)
        assert held < 0.6 * sum(weight.numel() for weight in weights)
    found = asked_once(objective)
    if number == 0:
        torch.save(found, folder / "gradients.pt")
    del objective, learner, weights
    leave()


def test_two_workers_hold_half_of_what_learns_and_have_the_gradient_of_one(
    folders, tmp_path, monkeypatch
):
    """Of the student and of its critic, which every worker held whole."""
    mp.spawn(gradients, (2, folders, tmp_path), nprocs=2)
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    monkeypatch.setattr(distillation, "world_size", lambda: 2)
    parts = []
    for number in (0, 1):
        monkeypatch.setattr(distillation, "rank", lambda number=number: number)
        config = small(folders, workers=2)
        parts.append(asked_once(trainer(config, [clip("a_1")], tmp_path / "one").objective))
    assert found.keys() == parts[0].keys()
    expected = {name: (one + parts[1][name]) / 2 for name, one in parts[0].items()}
    for network in ("student", "critic"):
        one, two = (
            torch.cat([g.flatten() for name, g in each.items() if name.startswith(network)])
            for each in (expected, found)
        )
        assert (one - two).norm() < 1e-5 * one.norm(), network


def halves(number, world, folders, folder):
    join(number, world, folder)
    settings.fastest_dtype = lambda device: torch.bfloat16
    config = small(folders, layout="sharded", compute="fastest", recompute=True)
    objective = trainer(config, [clip("a_1")], folder).objective
    seen = []
    for network in (objective.student, objective.networks.critic.transformer):
        for part in (network.patch_embedding, network.blocks[0].self_attn.q, network.head):
            part.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    found = asked_once(objective)
    around, inside = seen[0::3], seen[1::3]  # and once more where layers are computed again
    assert set(around) | set(inside) == {torch.float32, torch.bfloat16}
    assert seen[:3] == [torch.float32, torch.bfloat16, torch.float32]
    teacher = objective.networks.prior.transformer
    assert teacher.blocks[0].norm3.weight.dtype == torch.bfloat16
    assert teacher.head.head.weight.dtype == torch.float32
    torch.save(found, folder / "gradients.pt")
    del objective, network, part
    leave()


def test_layers_multiply_in_half_precision_and_weights_stay_whole(folders, tmp_path):
    """Embeddings, head and velocity are float32, and so are what learns and its gradient."""
    mp.spawn(halves, (1, folders, tmp_path), nprocs=1)
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    exact = asked_once(trainer(small(folders), [clip("a_1")], tmp_path / "one").objective)
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        if exact[name].norm() > 1e-3 * max(one.norm() for one in exact.values()):
            alike = torch.cosine_similarity(gradient.flatten(), exact[name].flatten(), 0)
            assert alike > 0.97, name


def test_two_workers_that_hold_half_the_weights_each_equal_two_that_hold_all(folders, tmp_path):
    """FSDP2 with the critic sharded, too: what is asked of a layer before its turn is gathered."""
    for layout in ("sharded", "replicated"):
        (tmp_path / layout).mkdir()
    mp.spawn(shards, (2, folders, tmp_path / "sharded"), nprocs=2)
    mp.spawn(replicas, (2, folders, tmp_path / "replicated"), nprocs=2)
    made = [load_student(str(tmp_path / n / "student")) for n in ("sharded", "replicated")]
    for name, weight in made[0].student.transformer.state_dict().items():
        other = made[1].student.transformer.state_dict()[name]
        apart = (weight - other).abs()  # after steps of 1e-3
        # a gradient that is nearly nothing may turn its sign by rounding, and AdamW takes a whole step
        assert float((apart > 2e-4).float().mean()) < 1e-3, name
        assert float(apart.max()) < 1e-3, name


def replicas(number, world, folders, folder):
    join(number, world, folder)
    trainer(small(folders, workers=world), [clip("a_1")], folder).run()
    leave()


def test_guidance_leads_away_from_no_words(folders):
    _, teacher = folders
    z = torch.randn(1, 3, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    plain, guided = (wan_teacher(teacher, guidance=g).denoise(z, white(0.5)) for g in (1.0, 3.0))
    without = replace(wan_teacher(teacher), text=wan_teacher(teacher).without)
    expected = without.denoise(z, white(0.5)).lerp(plain, 3.0)
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-5)


def test_how_far_a_teacher_is_off_is_measured_once(folders, tmp_path):
    _, teacher = folders
    with pytest.raises(UsageError, match="nobody measured"):
        wan_teacher(teacher).error_std(0.5)
    clips = tmp_path / "clips"
    clips.mkdir()
    make_clip(clips / "a.mp4", num_frames=9)
    assert measure.main([str(teacher), "--clips", str(clips), "--frames", "9"]) is None
    table = wan_teacher(teacher).errors
    assert table.noise_std == MEASURED_LEVELS
    assert all(e > 0 for e in table.error_std)


@pytest.mark.parametrize(
    ("teacher", "size", "said"),
    [
        ("nothing", (64, 48), "holds no checkpoint"),
        ("clips", (64, 48), "holds no checkpoint"),
        ("teacher", None, "no video in"),
        ("teacher", (12, 12), "has 16x16 pixels"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(folders, tmp_path, teacher, size, said):
    clips = tmp_path / "clips"
    clips.mkdir()
    if size is not None:
        make_clip(clips / "a.mp4", num_frames=3, width=size[0], height=size[1])
    asked = folders[1] if teacher == "teacher" else tmp_path / teacher
    with pytest.raises(SystemExit, match=said):
        measure.main([str(asked), "--clips", str(clips)])


def test_the_plan_of_the_papers_student_counts_the_real_networks(monkeypatch):
    """30 layers on the meta device take half a minute here; two show the same law."""
    size = WanSize(transformer=WanConfig(num_layers=2))
    recipe = replace(RECIPES["wan-1.3b-lean"](), student=size, phases=(PHASE,), workers=2)
    teacher = WanTeacherSize(transformer=WanConfig(num_layers=2))
    student, prior, critic = planned(recipe, teacher=teacher).networks
    assert student.parameters == prior.parameters == critic.parameters
    assert prior.learned == 0
    assert critic.flop_per_step > 5 * 2 * prior.parameters  # five updates, each more than a look
    more = replace(recipe, workers=4, phases=(replace(PHASE, samples=4),))
    four = planned(more, teacher=teacher).networks
    learned = 4 * student.parameters * 5  # weight, gradient, two moments, average
    assert student.state_bytes - four[0].state_bytes == learned // 4
    assert critic.state_bytes - four[2].state_bytes == learned // 5  # no average
    assert prior.state_bytes == four[1].state_bytes > 4 * prior.parameters  # and its autoencoder
    once, taught, _ = planned(replace(recipe, recompute=False), teacher=teacher).networks
    assert student.saved_bytes < once.saved_bytes
    assert prior.saved_bytes < 0.5 * taught.saved_bytes  # of its autoencoder's residuals
    assert student.flop_per_step > once.flop_per_step
    assert "A100" in " ".join(planned(recipe, teacher=teacher).lines())


def test_a_full_size_recipe_without_its_weights_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"no model called `wan-1.3b-lean`"):
        first_pupil(RECIPES["wan-1.3b-lean"](), torch.float32)
    with pytest.raises(UsageError, match="is for full-size students"):
        DistillConfig(phases=(PHASE,), recompute=True)
    with pytest.raises(UsageError, match="which this recipe trains"):
        first_pupil(replace(RECIPES["wan-1.3b-lean"](), initial_weights="tiny"), torch.float32)
