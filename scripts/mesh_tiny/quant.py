"""MLX's affine 4-bit form, group size 32: w = scale * q + bias, q in 0..15, scale and bias in bf16.

Scales and biases are kept in the range where a bf16 number is also an exact f16 number, so that the very same weights
can be written as llama.cpp's Q4_1 blocks, whose d and m are f16.
"""
import torch

GROUP, LEVELS, LEAST = 32, 15, 2.0 ** -13      # LEAST: above f16's smallest normal number, 2^-14


def bf16(x):
    return x.to(torch.bfloat16).to(torch.float32)


def affine(w):
    """(q, scale, bias) of a float matrix; q has the shape (rows, groups, 32)."""
    g = w.float().reshape(w.shape[0], -1, GROUP)
    low, high = g.amin(-1, keepdim=True), g.amax(-1, keepdim=True)
    scale = bf16(((high - low) / LEVELS).clamp(min=LEAST))
    bias = bf16(low)
    bias = torch.where(bias.abs() < LEAST, torch.zeros_like(bias), bias)
    q = torch.round((g - bias) / scale).clamp(0, LEVELS)
    return q, scale, bias


def snapped(w):
    """The matrix as its 4-bit form holds it, in f32."""
    q, scale, bias = affine(w)
    return (q * scale + bias).reshape(w.shape)


def fake(w, amount):
    """Straight-through: forward sees `amount` (0 to 1) of the way to the 4-bit matrix, backward sees the float one."""
    with torch.no_grad():
        step = (snapped(w) - w) * amount
    return w + step


def fake_bf16(w, amount):
    with torch.no_grad():
        step = (bf16(w) - w) * amount
    return w + step
