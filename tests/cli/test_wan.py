"""Stories of the full-size student on the command line, with a small checkpoint."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import instantvir_models.run.opening as opening_module
from instantvir_cli.app import app
from instantvir_cli.exit_status import ExitStatus
from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.wan import WanVAE, WanVaeConfig
from instantvir_models.checkpoints.config import WanCheckpoint
from instantvir_models.checkpoints.folder import save_folder
from instantvir_models.checkpoints.prompt import cache_path, read_prompt, save_rows, text_of
from instantvir_models.cpu import fastest_dtype
from instantvir_models.errors import UsageError
from instantvir_models.media import open_video
from instantvir_models.operators.spec import parse_degradation
from instantvir_models.run.opening import SessionLimits, open_student
from instantvir_models.speed import meters
from instantvir_models.students.fitting import FitRequest
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.plan import plan_memory
from instantvir_models.students.wan.student import Footprint, Resting, WanSettings, WanStudent
from instantvir_models.students.wan.transformer import WanConfig, WanTransformer
from tests.media_clips import make_clip
from tests.wan_small import LEAN, TRANSFORMER, small_autoencoder, small_student, small_text


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def said(result):
    """Standard error with its line breaks taken out."""
    return " ".join(result.stderr.split())


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    save_folder(small_student(), folder, WanCheckpoint(task="deblur"))
    return folder


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "in.mp4", width=40, height=24, num_frames=13)


def frames_of(path):
    with open_video(path) as reader:
        return [frame.pixels for frame in reader]


def restore(clip, checkpoint, *options, operator="blur:sigma=1"):
    # Losslessly: now and then x264 makes another file of the same pictures, if they are this tiny.
    return run(
        "restore", clip, "--operator", operator, "--model", checkpoint, "--threads", 1,
        "--crf", 0, "--overwrite", *options,
    )  # fmt: skip


def test_a_video_goes_through_the_whole_path(clip, checkpoint):
    result = restore(clip, checkpoint, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["frames"] == 13
    assert summary["model"] == str(checkpoint)
    assert "memory for 40x24: " in said(result)
    assert "no prompt: the student restores without words" in said(result)
    assert "trained for" not in said(result)
    assert len(frames_of(clip.with_name("in.restored.mp4"))) == 13


def test_super_resolution_through_the_latent(clip, checkpoint):
    result = restore(clip, checkpoint, operator="down:factor=4,kernel=area")
    assert result.exit_code == 0, result.stderr
    restored = frames_of(clip.with_name("in.restored.mp4"))
    assert restored[0].shape == (96, 160, 3)
    assert "was trained for deblur, this video needs sr; expect poor results" in said(result)


def test_precomputed_rows_need_no_text_encoder(clip, checkpoint, tmp_path, unguarded):
    rows = tmp_path / "rows.safetensors"
    save_rows(small_text(rows=4).rows, rows, text="a red square")
    plain = restore(clip, checkpoint)
    without = frames_of(clip.with_name("in.restored.mp4"))
    result = restore(clip, checkpoint, "--prompt", rows)
    assert plain.exit_code == result.exit_code == 0, result.stderr
    assert "no prompt" not in said(result)
    assert any(
        (a != b).any()
        for a, b in zip(without, frames_of(clip.with_name("in.restored.mp4")), strict=True)
    )


def test_a_prompt_without_text_encoder_says_how_to_install_it(
    clip, checkpoint, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    result = restore(clip, checkpoint, "--prompt", "a red square")
    assert result.exit_code == ExitStatus.USAGE
    assert "needs the text encoder, which is not installed" in said(result)
    assert "pip install 'instantvir[text]'" in said(result)


def test_a_prompt_in_words_is_encoded_once(clip, checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    kept = cache_path("a red square", text_dim=TRANSFORMER.text_dim, text_len=TRANSFORMER.text_len)
    save_rows(small_text(rows=4).rows, kept, text="a red square")
    result = restore(clip, checkpoint, "--prompt", "a  red &amp;#32;square\n")
    assert result.exit_code == 0, result.stderr


def test_a_checkpoint_brings_its_own_prompt(clip, checkpoint, tmp_path, unguarded):
    """Without `--prompt` its rows are read as if given; a file of no rows takes them away again."""
    rows, none = tmp_path / "rows.safetensors", tmp_path / "none.safetensors"
    save_rows(small_text(rows=4).rows, rows, text="a red\x1b[31m square")
    save_rows(small_text(rows=4).rows[:, :0], none, text="")
    plain = frames_of(restored(clip, checkpoint))
    told = frames_of(restored(clip, checkpoint, "--prompt", rows))
    assert json.loads(run("info", checkpoint, "--json").stdout)["prompt"] is None

    added = run("convert", "-o", checkpoint, "--prompt", rows)
    assert added.exit_code == 0, added.stderr
    assert "its prompt has 4 rows" in said(added)
    assert "is complete" in said(added)
    summary = json.loads(run("info", checkpoint, "--json").stdout)
    assert summary["prompt"] == "a red?[31m square (4 rows)"
    assert "prompt.safetensors" in summary["files"]
    assert "prompt.safetensors" in (checkpoint / "README.md").read_text()

    result = restore(clip, checkpoint)
    assert "the prompt is that of the checkpoint" in said(result)
    own = frames_of(clip.with_name("in.restored.mp4"))
    taken_away = frames_of(restored(clip, checkpoint, "--prompt", none))
    assert all((a == b).all() for a, b in zip(own, told, strict=True))
    assert all((a == b).all() for a, b in zip(taken_away, plain, strict=True))
    assert any((a != b).any() for a, b in zip(own, plain, strict=True))


def test_a_blank_prompt_is_no_words_and_needs_no_text_encoder(
    clip, checkpoint, monkeypatch, unguarded
):
    """It takes the checkpoint's own prompt away, for once or, converted, for good."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    plain = frames_of(restored(clip, checkpoint))
    save_rows(small_text(rows=4).rows, checkpoint / "prompt.safetensors", text="a red square")
    told = frames_of(restored(clip, checkpoint))
    once = frames_of(restored(clip, checkpoint, "--prompt", " "))
    assert run("convert", "-o", checkpoint, "--prompt", "", "--overwrite").exit_code == 0
    for_good = frames_of(restored(clip, checkpoint))
    for frames in (once, for_good):
        assert all((a == b).all() for a, b in zip(frames, plain, strict=True))
    assert any((a != b).any() for a, b in zip(told, plain, strict=True))


def test_a_checkpoint_that_lost_its_prompt_says_how_to_do_without(clip, checkpoint):
    assert run("convert", "-o", checkpoint, "--prompt", "").exit_code == 0
    (checkpoint / "prompt.safetensors").unlink()
    result = restore(clip, checkpoint)
    assert result.exit_code == ExitStatus.NO_CHECKPOINT
    assert "lacks its prompt.safetensors" in said(result)
    assert f"instantvir convert --prompt '' -o {checkpoint}" in said(result)
    assert run("convert", "-o", checkpoint, "--prompt", "").exit_code == 0
    restored(clip, checkpoint)


@pytest.mark.parametrize("name", ["transformer.safetensors", "text.safetensors"])
def test_a_prompt_takes_the_place_of_prompts_only(checkpoint, name):
    path = checkpoint / name
    if name.startswith("text"):
        path.write_text("mine")
    before = path.read_bytes()
    result = run("convert", "--prompt", "", "-o", path)
    assert result.exit_code == ExitStatus.NO_CHECKPOINT
    assert "is there, and it is no prompt that instantvir wrote" in said(result)
    assert path.read_bytes() == before
    for again in ([], ["--overwrite"]):
        made = run("convert", "--prompt", "", "-o", checkpoint / "new.safetensors", *again)
        assert made.exit_code == 0


@pytest.mark.parametrize(
    "options",
    [("--task", "sr"), ("--operators", "blur"), ("--dtype", "float16"), ("--average",)],
)
@pytest.mark.parametrize("output", ["", "rows.safetensors"])
def test_what_says_something_of_weights_is_refused_without_them(checkpoint, options, output):
    result = run("convert", "--prompt", "", "-o", checkpoint / output, *options)
    assert result.exit_code == ExitStatus.USAGE
    assert f"`{options[0]}` has no effect on a prompt" in said(result)
    assert not (checkpoint / "prompt.safetensors").exists()
    assert not (checkpoint / "rows.safetensors").exists()


def restored(clip, checkpoint, *options):
    result = restore(clip, checkpoint, *options)
    assert result.exit_code == 0, result.stderr
    return clip.with_name("in.restored.mp4")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (torch.zeros(1, 4, 99), "expected `rows` of shape (1, n, 16), found (1, 4, 99)"),
        (torch.zeros(4, 16), "expected `rows` of shape (1, n, 16), found (4, 16)"),
        (torch.zeros(1, 13, 16), "holds 13 rows of a prompt, the student reads 12"),
        (torch.zeros(1, 4, 16, dtype=torch.int32), "holds a prompt as torch.int32"),
        (torch.full((1, 4, 16), float("nan")), "holds a prompt with values that are not finite"),
        (None, "holds no prompt: expected `rows`, found other"),
    ],
)
def test_rows_that_do_not_fit_are_refused(clip, checkpoint, rows, sentence):
    """Beside the checkpoint or given, at load, by a sentence."""
    name = "other" if rows is None else "rows"
    save_file({name: torch.zeros(1) if rows is None else rows}, checkpoint / "prompt.safetensors")
    for result in (
        restore(clip, checkpoint),
        run("info", checkpoint),
        run(
            "convert",
            "-o",
            checkpoint,
            "--prompt",
            checkpoint / "prompt.safetensors",
            "--overwrite",
        ),
    ):
        assert result.exit_code == ExitStatus.NO_CHECKPOINT
        assert sentence in said(result)


def test_a_prompt_in_words_is_kept_in_a_file(clip, checkpoint, monkeypatch, tmp_path):
    """What the text encoder says once needs none afterwards, on any machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    encoded = torch.randn(1, 5, 4096).to(torch.bfloat16)
    monkeypatch.setattr(
        "instantvir_models.checkpoints.prompt.encode", lambda text, *, text_len: encoded
    )
    path = tmp_path / "rows.safetensors"
    result = run("convert", "--prompt", " a  red square", "-o", path)
    assert result.exit_code == 0, result.stderr
    assert torch.equal(load_file(path)["rows"], encoded)
    assert text_of(path) == "a red square"


def test_a_cache_that_cannot_be_written_does_not_stop_a_prompt(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    encoded = torch.randn(1, 5, 16)
    monkeypatch.setattr(
        "instantvir_models.checkpoints.prompt.encode", lambda text, *, text_len: encoded
    )
    rows = read_prompt("a red square", text_dim=16, text_len=12).rows
    assert torch.equal(rows, encoded.to(torch.bfloat16).float())


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("-o", "made"), "nothing to convert"),
        (("model.pt", "-o", "made.safetensors"), "only a prompt is kept in one"),
        (("-o", "made.safetensors"), "nothing to convert"),
    ],
)
def test_convert_wants_something_to_convert(args, sentence, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = run("convert", *args)
    assert result.exit_code == ExitStatus.USAGE
    assert sentence in said(result)
    assert not list(tmp_path.iterdir())


def test_the_tiny_student_reads_no_prompt(clip):
    result = run(
        "restore", clip, "--operator", "blur:sigma=1+noise:std=5", "--prompt", "x", "--vram", 4,
        "--threads", 1, "--duration", 0.1,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "`--prompt` has no effect" in said(result)
    assert "`--vram` has no effect" in said(result)


def planned(footprint, dtype=None):
    return plan_memory(
        TRANSFORMER, LEAN, WanSettings(), footprint, height=24, width=40,
        dtype=dtype or fastest_dtype(), text_rows=1,
    )  # fmt: skip


def test_little_memory_shortens_the_history_or_is_refused(clip, checkpoint, monkeypatch):
    monkeypatch.setattr(opening_module, "fastest_dtype", lambda: torch.bfloat16)
    full, short = (
        planned(Footprint(window, 1), torch.bfloat16).total * 1.0001e-9 for window in (21, 9)
    )
    enough = restore(clip, checkpoint, "--vram", full)
    assert "the history is" not in said(enough)
    result = restore(clip, checkpoint, "--vram", short)
    assert result.exit_code == 0, result.stderr
    assert "GB allowed; all of it would take 0.00 GB, so " in said(result)
    assert "the history is 9 latents, not 21 (restores from less)" in said(result)
    assert "CPU memory" not in said(result)  # it is the device
    refused = restore(clip, checkpoint, "--vram", short * 0.5)
    assert refused.exit_code == ExitStatus.USAGE
    assert "40x24 needs at least" in said(refused)


def test_rounder_weights_come_before_a_shorter_history(clip, checkpoint, monkeypatch):
    monkeypatch.setattr(opening_module, "fastest_dtype", lambda: torch.float32)
    budget = planned(Footprint(21, 1), torch.bfloat16).total * 1.0001e-9
    result = restore(clip, checkpoint, "--vram", budget)
    assert result.exit_code == 0, result.stderr
    assert "weights are bfloat16, not float32 (rounds more)" in said(result)
    assert "the history is" not in said(result)


@pytest.mark.parametrize(
    ("card_gb", "autoencoder", "footprint"),
    [
        (24, LeanConfig(), Footprint(21, 3)),
        (8, LeanConfig(), Footprint(21, 3, 0, Resting.WEIGHTS)),
        (8, WanVaeConfig(), Footprint(21, 1, 32, Resting.PAST_FRAMES)),
    ],
)
def test_on_a_card_what_is_free_is_the_budget(card_gb, autoencoder, footprint, monkeypatch):
    """Nobody types anything; what this process holds already counts as free."""
    total = card_gb * 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (total - 2**30, total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2**30)
    placed = []
    monkeypatch.setattr(WanStudent, "placed", lambda *args, **kwargs: placed.append((args, kwargs)))
    with torch.device("meta"):
        transformer = WanTransformer(WanConfig()).bfloat16()
        text = TextRows(torch.empty(1, 0, 4096), 512)
        network = (LeanVAE if isinstance(autoencoder, LeanConfig) else WanVAE)(autoencoder)
    student = WanStudent(transformer, network, WanSettings(), text)
    request = FitRequest(size=(480, 832), device=torch.device("cuda"))
    student.fitted(request)
    assert placed[0][0][1] == footprint
    student.fitted(replace(request, allowed_gigabytes=90))
    assert placed[1][0][1] == Footprint(21, 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**20, total))
    with pytest.raises(UsageError, match=r"more than the .* GB free"):
        student.fitted(request)


class CrowdedPlaces:
    """Memory runs out the first `times` times that weights go to their device."""

    def __init__(self, monkeypatch, times):
        original, self.calls = WanStudent.placed, 0

        def placed(*args, **kwargs):
            self.calls += 1
            if self.calls <= times:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
            return original(*args, **kwargs)

        monkeypatch.setattr(WanStudent, "placed", placed)


def test_memory_that_runs_out_on_the_way_to_the_card_is_planned_again(
    clip, checkpoint, monkeypatch
):
    """Another program may take it after it was measured."""
    places = CrowdedPlaces(monkeypatch, times=1)
    result = restore(clip, checkpoint)
    assert result.exit_code == 0, result.stderr
    assert "planning again" in said(result)
    assert said(result).count("memory for 40x24") == places.calls == 2


@pytest.mark.parametrize(("options", "calls"), [((), 2), (("--vram", 10), 1)])
def test_where_weights_do_not_reach_the_card_a_person_is_told(
    options, calls, clip, checkpoint, monkeypatch
):
    places = CrowdedPlaces(monkeypatch, times=9)
    result = restore(clip, checkpoint, *options)
    assert result.exit_code == ExitStatus.FAILURE
    assert "error: the device ran out of memory for 40x24 while weights went to it" in said(result)
    assert "hint: give a smaller `--vram`" in said(result)
    assert places.calls == calls


def test_a_size_that_needs_less_gets_its_type_back(checkpoint, monkeypatch):
    """The weights keep the rounding of the size before, and the user is told."""
    monkeypatch.setattr(opening_module, "fastest_dtype", lambda: torch.float32)
    opened = open_student(str(checkpoint), device="cpu", prompt=None)
    short = planned(Footprint(21, 1), torch.bfloat16).total * 1.0001e-9
    for gigabytes, dtype in ((short, torch.bfloat16), (10, torch.float32)):
        made = opened.new_session(
            parse_degradation("identity"), height=24, width=40,
            limits=SessionLimits(gigabytes=gigabytes),
        )  # fmt: skip
        assert opened.solver.needs.dtype == dtype
    assert "keep the rounding" in " ".join(notice.text for notice in made.notices)


def test_frames_that_an_operator_looks_at_beside_a_block_are_in_the_plan(clip, checkpoint):
    budget = planned(Footprint(3, 1), torch.bfloat16).total * 1.05e-9
    assert restore(clip, checkpoint, "--vram", budget).exit_code == 0
    result = restore(clip, checkpoint, "--vram", budget, operator="temporal:size=99")
    assert result.exit_code == ExitStatus.USAGE
    assert "40x24 needs at least" in said(result)


def test_the_bounds_of_the_memory_allowed_are_told(clip, checkpoint):
    result = restore(clip, checkpoint, "--vram", 1e9)
    assert result.exit_code == ExitStatus.USAGE
    assert "above 0 and at most 10000" in said(result)


def test_where_no_memory_is_left_a_person_is_told(clip, checkpoint, monkeypatch):
    def crowded(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(WanStudent, "restore_block", crowded)
    result = restore(clip, checkpoint)
    assert result.exit_code == ExitStatus.FAILURE
    assert "error: the device ran out of memory at 40x24" in said(result)
    assert "hint: restore smaller frames" in said(result)
    assert not clip.with_name("in.restored.mp4").exists()


def benchmark(checkpoint, *options):
    return run(
        "benchmark", "--model", checkpoint, "--size", "40x24", "--frames", 9, "--repeats", 1,
        "--warmup", 0, "--threads", 1, "--json", *options,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_benchmark_runs_the_student_in_the_type_asked_for_and_says_so(checkpoint, dtype):
    """It ran in what is fast here, whatever was asked for, and reported what was asked for."""
    result = benchmark(checkpoint, "--dtype", dtype)
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["dtype"], summary["device"]) == (dtype, "cpu")
    assert summary["peak_device_memory_mb"] is None


def test_a_type_the_user_fixed_is_not_given_up(checkpoint):
    budget = planned(Footprint(9, 1), torch.float32).total * 1.0001e-9
    result = benchmark(checkpoint, "--dtype", "float32", "--vram", budget)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["dtype"] == "float32"
    assert "bfloat16" not in said(result)
    assert "the history is 9 latents" in said(result)


def test_a_card_is_named_in_a_benchmark_with_the_memory_it_took(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some Card")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    card = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    assert meters.device_name(card) == "Some Card"
    assert meters.MemoryMeter(card).peak_device_mb == 3


def test_convert_info_restore(clip, tmp_path):
    student, folder = small_student(), tmp_path / "made"
    torch.save(
        {"generator": {f"model.{k}": v for k, v in student.transformer.state_dict().items()}},
        tmp_path / "model.pt",
    )
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": TRANSFORMER.num_heads}))
    torch.save({"state_dict": small_autoencoder("wan").state_dict()}, tmp_path / "vae.pth")

    first = run("convert", tmp_path / "model.pt", "-o", folder, "--task", "deblur")
    assert first.exit_code == 0, first.stderr
    assert "Wan transformer, official names" in said(first)
    assert "still needs an autoencoder" in said(first)
    early = restore(clip, folder)
    assert early.exit_code == ExitStatus.NO_CHECKPOINT
    assert "has no autoencoder" in said(early)

    second = run("convert", tmp_path / "vae.pth", "-o", folder)
    assert second.exit_code == 0, second.stderr
    assert "is complete" in said(second)

    info = run("info", folder, "--json")
    assert info.exit_code == 0, info.stderr
    summary = json.loads(info.stdout)
    assert (summary["task"], summary["autoencoder"]) == ("deblur", "Wan")
    assert summary["damaged"] == []
    stored = [tensor for name in summary["files"] for tensor in load_file(folder / name).values()]
    assert sum(tensor.numel() for tensor in stored) == summary["weights"]

    config = json.loads((folder / "config.json").read_text())
    config["transformer"]["text_len"] = TRANSFORMER.text_len
    (folder / "config.json").write_text(json.dumps(config))
    result = restore(clip, folder)
    assert result.exit_code == 0, result.stderr


def test_info_finds_a_flipped_byte(checkpoint):
    path = checkpoint / "transformer.safetensors"
    tensors = load_file(path)
    tensors["head.head.bias"] += 1
    save_file(tensors, path)
    result = run("info", checkpoint)
    assert result.exit_code == ExitStatus.NO_CHECKPOINT
    assert "transformer.safetensors differs from its sha256" in said(result)


def test_info_of_the_embedded_student():
    result = run("info", "tiny")
    assert result.exit_code == 0
    assert "tiny student" in result.stdout
    assert "frames_per_block" in result.stdout


def test_names_without_public_weights_say_so(clip):
    result = run("restore", clip, "--model", "wan-lean")
    assert result.exit_code == ExitStatus.NO_CHECKPOINT
    assert "has no public weights yet" in said(result)
    assert "instantvir convert LeanVAE-dim16.ckpt -o DIR" in said(result)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--task", "fly"), "there is no task called `fly`"),
        (("--dtype", "int4"), "`--dtype` is `int4`"),
    ],
)
def test_convert_refuses_what_it_does_not_know(tmp_path, args, sentence):
    result = run("convert", tmp_path / "model.pt", "-o", tmp_path, *args)
    assert result.exit_code == ExitStatus.USAGE
    assert sentence in said(result)
