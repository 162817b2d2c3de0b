"""The networks run on the kernels: shapes, strides and slots as they really come."""

import pytest
import torch

from instantvir_kernels import triton_launch
from instantvir_models.autoencoders.base import CausalMemory
from instantvir_models.students.wan.transformer import WanMemory, WanTransformer
from tests.wan_small import TRANSFORMER, drawn, small_autoencoder, small_text

BACKENDS = "reference", "triton"


@pytest.fixture
def launched(monkeypatch):
    """Names of the steps that were launched."""
    names = set()

    def counted(name):
        step = getattr(triton_launch, name)

        def launch(*args, **kwargs):
            names.add(name)
            return step(*args, **kwargs)

        return launch

    for name in (
        "layer_norm_modulate", "gated_residual_norm", "norm_rope_write",
        "depthwise_causal_conv", "haar_patchify", "haar_unpatchify",
    ):  # fmt: skip
        monkeypatch.setattr(triton_launch, name, counted(name))
    return names


@torch.inference_mode()
def test_the_wan_student_runs_on_the_fused_steps(normal, monkeypatch, launched):
    """Three blocks: into the sink, across it, and around the end of the ring."""
    transformer, latents = drawn(WanTransformer(TRANSFORMER)), normal(1, 9, 16, 4, 4)
    results = []
    for backend in BACKENDS:
        monkeypatch.setenv("INSTANTVIR_KERNELS", backend)
        memory = WanMemory()
        velocities = [
            transformer.velocity_of_block(
                block, timestep=522, text=small_text(), memory=memory, window_latents=4,
                sink_latents=1,
            )
            for block in latents.split(3, 1)
        ]  # fmt: skip
        results.append(torch.cat(velocities, 1))
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)
    assert launched == {"layer_norm_modulate", "gated_residual_norm", "norm_rope_write"}


@torch.inference_mode()
def test_the_lean_autoencoder_runs_on_the_fused_steps(normal, monkeypatch, launched):
    autoencoder, frames = small_autoencoder("lean"), normal(1, 5, 3, 16, 24)
    results = []
    for backend in BACKENDS:
        monkeypatch.setenv("INSTANTVIR_KERNELS", backend)
        latents = autoencoder.encode(frames, CausalMemory())
        results.append((latents, autoencoder.decode(latents, CausalMemory())))
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)
    assert launched == {"depthwise_causal_conv", "haar_patchify", "haar_unpatchify"}
