"""MLX's two 4-bit forms over rows of 32 weights: affine (scale, bias in bf16) and mxfp4 (a power of two, e2m1 numbers)."""
import torch

GROUP, LEVELS = 32, 15


def bf16(x):
    return x.to(torch.bfloat16).to(torch.float32)


def affine(w):
    """`w` of shape (groups, 32), as its affine form holds it; the rule by which mx.quantize finds scale and bias."""
    low, high = w.amin(-1, keepdim=True), w.amax(-1, keepdim=True)
    down = low.abs() > high.abs()
    scale = ((high - low) / LEVELS).clamp(min=1e-7)
    scale = torch.where(down, scale, -scale)
    edge = torch.where(down, low, high)
    zero = torch.round(edge / scale)
    some = zero != 0
    scale = torch.where(some, edge / torch.where(some, zero, torch.ones_like(zero)), scale)
    bias = torch.where(some, edge, torch.zeros_like(edge))
    q = torch.round((w - bias) / scale).clamp(0, LEVELS)
    return bf16(q * bf16(scale) + bf16(bias))


def mxfp4(w):
    """`w` of shape (groups, 32), as its mxfp4 form holds it."""
    most = w.abs().amax(-1, keepdim=True)
    scale = torch.exp2(torch.ceil(torch.log2((most / 6).clamp(min=2.0 ** -127))))
    x = (w / scale).clamp(-6, 6)
    size = x.abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return torch.ceil(size / step - 0.5) * step * x.sign() * scale          # halves towards zero
