"""Steps on a grid of tokens [T, H, W]: depthwise causal convolution, Haar bands to tokens and back."""

import triton
import triton.language as tl


@triton.jit
def depthwise_causal_conv(
    x_ptr, memory_ptr, weight_ptr, bias_ptr, out_ptr,
    num_frames, height, width, channels,
    RESIDUAL: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """3x3x3 over x [B, T, H, W, C], zeros around it in space, `memory` [B, 2, H, W, C] before it."""
    columns = tl.program_id(0) * BLOCK_W + tl.arange(0, BLOCK_W)
    channel_tiles = tl.cdiv(channels, BLOCK_C)
    batch = tl.cast(tl.program_id(2) // channel_tiles, tl.int64)
    channel = tl.program_id(2) % channel_tiles * BLOCK_C + tl.arange(0, BLOCK_C)
    frame = tl.program_id(1) // height
    line = tl.program_id(1) % height
    has_channel = channel < channels
    plane = height * width * channels
    acc = tl.zeros([BLOCK_W, BLOCK_C], tl.float32)
    acc += tl.load(bias_ptr + channel, mask=has_channel, other=0.0).to(tl.float32)[None, :]
    for dt in range(3):  # a real loop: 27 taps at once would not fit the registers
        source = frame + (dt - 2)
        if source < 0:
            frame_ptr = memory_ptr + (batch * 2 + (source + 2)) * plane
        else:
            frame_ptr = x_ptr + (batch * num_frames + source) * plane
        for dy in tl.static_range(3):
            row = line + (dy - 1)
            for dx in tl.static_range(3):
                column = columns + (dx - 1)
                # an empty range of columns for a line above or below the grid
                end = tl.where((row < 0) | (row >= height), 0, width)
                inside = ((column >= 0) & (column < end))[:, None] & has_channel[None, :]
                offsets = (row * width + column)[:, None] * channels + channel[None, :]
                tap = tl.load(frame_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
                taps = weight_ptr + channel * 27 + (dt * 9 + dy * 3 + dx)
                weight = tl.load(taps, mask=has_channel, other=0.0).to(tl.float32)
                acc += tap * weight[None, :]
    out = out_ptr + (batch * num_frames + frame) * plane
    offsets = (line * width + columns)[:, None] * channels + channel[None, :]
    inside = (columns < width)[:, None] & has_channel[None, :]
    if RESIDUAL:
        here = x_ptr + (batch * num_frames + frame) * plane + offsets
        acc += tl.load(here, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + offsets, acc.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def haar_patchify(
    pixels_ptr, low_ptr, high_ptr, num_tokens, num_frames, height, width,
    FRAMES: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_PLACES: tl.constexpr,
):  # fmt: skip
    """Haar bands of pixels [B, T, 3, H, W], gathered to patches of 4x4 bands: one row per token.

    FRAMES pixel frames make one token row: 4 with the Haar step in time, 1 without. `low` is band 0
    in order (c, pt, ph, pw), `high` the other bands in order (band, c, pt, ph, pw).
    """
    batch = tl.cast(tl.program_id(1), tl.int64)
    token = tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    columns = width // 8
    time = token // (columns * (height // 8))
    line = token // columns % (height // 8)
    column = token % columns
    PATCH_T: tl.constexpr = (FRAMES + 1) // 2
    PLACES: tl.constexpr = 3 * PATCH_T * 16
    place = tl.arange(0, BLOCK_PLACES)
    color = place // (PATCH_T * 16)
    patch_t = place // 16 % PATCH_T
    patch_h = place // 4 % 4
    patch_w = place % 4
    inside = (token < num_tokens)[:, None] & (place < PLACES)[None, :]
    plane = height * width
    STEP_T: tl.constexpr = 2 if FRAMES == 4 else 1
    frame = (time * FRAMES)[:, None] + (patch_t * STEP_T)[None, :]
    y = (line * 8)[:, None] + (patch_h * 2)[None, :]
    x = (column * 8)[:, None] + (patch_w * 2)[None, :]
    base = pixels_ptr + batch * num_frames * 3 * plane
    base += (frame * 3 + color[None, :]).to(tl.int64) * plane + y * width + x
    rows = (batch * num_tokens + token)[:, None]
    for time_band in tl.static_range(STEP_T):
        for y_band in tl.static_range(2):
            for x_band in tl.static_range(2):
                value = tl.zeros([BLOCK_TOKENS, BLOCK_PLACES], tl.float32)
                for dt in tl.static_range(STEP_T):
                    for dy in tl.static_range(2):
                        for dx in tl.static_range(2):
                            negative = (time_band & dt) ^ (y_band & dy) ^ (x_band & dx)
                            offset = (dt * 3) * plane + dy * width + dx
                            pixel = tl.load(base + offset, mask=inside, other=0.0).to(tl.float32)
                            if negative:
                                value -= pixel
                            else:
                                value += pixel
                # bands count (T, H, W) in binary in 3-D, (W, H) in 2-D: that is LeanVAE's order
                band = time_band * 4 + y_band * 2 + x_band if FRAMES == 4 else x_band * 2 + y_band
                if band == 0:
                    target = low_ptr + rows * PLACES + place[None, :]
                    tl.store(target, value.to(low_ptr.dtype.element_ty), mask=inside)
                else:
                    high_width = PLACES * (4 * STEP_T - 1)
                    target = high_ptr + rows * high_width + (band - 1) * PLACES + place[None, :]
                    tl.store(target, value.to(high_ptr.dtype.element_ty), mask=inside)


@triton.jit
def haar_unpatchify(
    low_ptr, high_ptr, pixels_ptr, num_tokens, num_frames, height, width,
    FRAMES: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_PLACES: tl.constexpr,
):  # fmt: skip
    """Inverse of `haar_patchify`: one row per token back to pixels [B, T, 3, H, W]."""
    batch = tl.cast(tl.program_id(1), tl.int64)
    token = tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    columns = width // 8
    time = token // (columns * (height // 8))
    line = token // columns % (height // 8)
    column = token % columns
    PATCH_T: tl.constexpr = (FRAMES + 1) // 2
    PLACES: tl.constexpr = 3 * PATCH_T * 16
    place = tl.arange(0, BLOCK_PLACES)
    color = place // (PATCH_T * 16)
    patch_t = place // 16 % PATCH_T
    patch_h = place // 4 % 4
    patch_w = place % 4
    inside = (token < num_tokens)[:, None] & (place < PLACES)[None, :]
    plane = height * width
    STEP_T: tl.constexpr = 2 if FRAMES == 4 else 1
    frame = (time * FRAMES)[:, None] + (patch_t * STEP_T)[None, :]
    y = (line * 8)[:, None] + (patch_h * 2)[None, :]
    x = (column * 8)[:, None] + (patch_w * 2)[None, :]
    base = pixels_ptr + batch * num_frames * 3 * plane
    base += (frame * 3 + color[None, :]).to(tl.int64) * plane + y * width + x
    rows = (batch * num_tokens + token)[:, None]
    high_width = PLACES * (4 * STEP_T - 1)
    for dt in tl.static_range(STEP_T):
        for dy in tl.static_range(2):
            for dx in tl.static_range(2):
                value = tl.load(low_ptr + rows * PLACES + place[None, :], mask=inside, other=0.0)
                value = value.to(tl.float32)
                for time_band in tl.static_range(STEP_T):
                    for y_band in tl.static_range(2):
                        for x_band in tl.static_range(2):
                            band = (
                                time_band * 4 + y_band * 2 + x_band
                                if FRAMES == 4
                                else x_band * 2 + y_band
                            )
                            if band > 0:
                                source = high_ptr + rows * high_width + (band - 1) * PLACES
                                part = tl.load(source + place[None, :], mask=inside, other=0.0)
                                negative = (time_band & dt) ^ (y_band & dy) ^ (x_band & dx)
                                if negative:
                                    value -= part.to(tl.float32)
                                else:
                                    value += part.to(tl.float32)
                value = value / (4 * STEP_T)
                target = base + (dt * 3) * plane + dy * width + dx
                tl.store(target, value.to(pixels_ptr.dtype.element_ty), mask=inside)
