"""Small random Wan-shaped networks whose weights are the same on every machine."""

import numpy as np
import torch

from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.wan import WanVAE, WanVaeConfig
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.student import WanSettings, WanStudent
from instantvir_models.students.wan.transformer import WanConfig, WanTransformer

TRANSFORMER = WanConfig(
    dim=48, ffn_dim=64, num_heads=2, num_layers=2, text_dim=16, text_len=12, freq_dim=32
)
LEAN = LeanConfig(
    low_channels=8,
    high_channels=24,
    separate_layers=1,
    fusion_layers=1,
    ista_steps=1,
    ista_layers=1,
)
WAN_VAE = WanVaeConfig(base_channels=8)


def drawn_weights(module, *, seed):
    """Weights for `module` from numpy's frozen stream, scaled to keep signals of order one."""
    stream = np.random.RandomState(seed)
    drawn = {}
    for name, tensor in sorted(module.state_dict().items()):
        values = torch.from_numpy(stream.standard_normal(tensor.shape).astype(np.float32))
        is_gain = "gamma" in name or name.endswith(
            ("norm_q.weight", "norm_k.weight", "norm3.weight")
        )
        fan_in = tensor[0].numel() if tensor.ndim > 1 else 100
        drawn[name] = 1 + 0.1 * values if is_gain else values / max(fan_in, 1) ** 0.5
    return drawn


def drawn(module, *, seed=0):
    """`module` with drawn weights, ready for inference."""
    module.load_state_dict(drawn_weights(module, seed=seed))
    return module.eval().requires_grad_(False)


def small_autoencoder(kind):
    """A drawn autoencoder, `lean` or `wan`."""
    return drawn(LeanVAE(LEAN) if kind == "lean" else WanVAE(WAN_VAE), seed=1)


def small_student(kind="lean", **settings):
    """A drawn student with an autoencoder of `kind` and a prompt of three rows."""
    return WanStudent(
        drawn(WanTransformer(TRANSFORMER)),
        small_autoencoder(kind),
        WanSettings(**settings),
        small_text(),
    )


def small_text(seed=2, rows=3):
    """A prompt of `rows` rows."""
    values = np.random.RandomState(seed).standard_normal((1, rows, TRANSFORMER.text_dim))
    return TextRows(torch.from_numpy(values.astype(np.float32)), TRANSFORMER.text_len)
