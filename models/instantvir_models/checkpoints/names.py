"""The same networks under other names: diffusers' `WanTransformer3DModel` and `AutoencoderKLWan`."""

import re
from collections.abc import Callable

_TRANSFORMER_RULES = (
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"\.self_attn\.([qkv])\.", r".attn1.to_\1."),
    (r"\.self_attn\.o\.", ".attn1.to_out.0."),
    (r"\.self_attn\.norm_", ".attn1.norm_"),
    (r"\.cross_attn\.([qkv])\.", r".attn2.to_\1."),
    (r"\.cross_attn\.o\.", ".attn2.to_out.0."),
    (r"\.cross_attn\.norm_", ".attn2.norm_"),
    (r"\.norm3\.", ".norm2."),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
    (r"^(blocks\.\d+)\.modulation$", r"\1.scale_shift_table"),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"^head\.head\.", "proj_out."),
)

_RESIDUAL = {"0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"}


def transformer_to_diffusers(name: str) -> str:
    """diffusers' name of a tensor of the Wan transformer."""
    for pattern, replacement in _TRANSFORMER_RULES:
        name = re.sub(pattern, replacement, name)
    return name


def wan_vae_to_diffusers(name: str, *, residuals_per_level: int = 2) -> str:
    """diffusers' name of a tensor of the Wan autoencoder."""
    name = re.sub(r"\.residual\.(\d)\.", lambda m: f".{_RESIDUAL[m[1]]}.", name)
    name = name.replace(".shortcut.", ".conv_shortcut.")
    name = re.sub(r"^conv1\.", "quant_conv.", name)
    name = re.sub(r"^conv2\.", "post_quant_conv.", name)
    name = re.sub(r"^(encoder|decoder)\.conv1\.", r"\1.conv_in.", name)
    name = re.sub(r"^(encoder|decoder)\.head\.0\.", r"\1.norm_out.", name)
    name = re.sub(r"^(encoder|decoder)\.head\.2\.", r"\1.conv_out.", name)
    name = re.sub(r"\.middle\.1\.", ".mid_block.attentions.0.", name)
    name = re.sub(r"\.middle\.([02])\.", lambda m: f".mid_block.resnets.{int(m[1]) // 2}.", name)
    name = name.replace("encoder.downsamples.", "encoder.down_blocks.")
    return re.sub(r"^decoder\.upsamples\.(\d+)\.", _up_block(residuals_per_level + 2), name)


def _up_block(layers_per_level: int) -> Callable[[re.Match[str]], str]:
    """Numbers the flat list of decoder layers by level and layer."""

    def renamed(match: re.Match[str]) -> str:
        level, layer = divmod(int(match[1]), layers_per_level)
        kind = "upsamplers.0" if layer == layers_per_level - 1 else f"resnets.{layer}"
        return f"decoder.up_blocks.{level}.{kind}."

    return renamed
