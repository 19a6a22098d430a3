"""Random tensors that any language draws alike: a counter-based generator, exact in f32.

A tensor's n-th number comes from SplitMix64 at n, seeded by FNV-1a of its name. An entry of a plan says how:
  [name, shape, "f32" | "bf16", scale, offset]   u * scale + offset, u in [-1, 1) in steps of 2^-23; then rounded to bf16
  [name, shape, "u32", mask, 0]                  32 random bits & mask
  [name, shape, "u8", count, first]              first + (random bits mod count)

The scales make mistakes visible: norms and biases are far from 1 and 0 (a forgotten one shows), attention scores spread
over about two units (a wrong rotation shows), and logits over about five (the best token leads clearly).
"""
import math
from dataclasses import dataclass, field
from typing import Callable

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

LOGIT_SPREAD = 5.0
# Of a uniform number in [-1, 1), inverted.
ROOT3 = math.sqrt(3)
EMBED_SPREAD = 0.05


@dataclass
class Case:
    """One tiny model."""

    name: str
    config: dict
    # `group_size`, `bits`, `mode` (mlx-lm's defaults where silent) and `overrides` by module path.
    quant: dict = field(default_factory=dict)
    dtype: str = "float32"
    # Whether the reference computes it in its stored dtype too: on a CPU MLX multiplies by dense experts in f32 only.
    native: bool = True
    # The embeddings are the head, where the config does not say so.
    tied: bool = False
    # (name, shape) -> (standard deviation, mean) where the rules below do not fit; None: they do.
    rule: Callable | None = None
    # Norm weights are stored as their distance from 1.
    plus_one: bool = False
    # What the model's makers write in place of mlx-lm's `quantization` block.
    packed_as: dict = field(default_factory=dict)
    # Pairs: what the reader renames, cuts up or joins to test another form of a checkpoint, in this order: parts of names, as
    # ["model.", "language_model."]; with a number for each expert, as ["switch_mlp.", "experts.{}."]; two matrices' rows in
    # one tensor, as ["gate.weight|up.weight", "gate_up"].
    unstack: list = field(default_factory=list)
    # A plan of mlx-lm's own tensors -> one of those that the model's makers store, which mlx-lm then brings into its form.
    stored: Callable | None = None

    @property
    def text(self) -> dict:
        return self.config.get("text_config", self.config)

    @property
    def vocab(self) -> int:
        return self.config.get("vocab_size") or self.text["vocab_size"]


def plan(case: Case, model) -> list:
    """How each tensor of a checkpoint is drawn, from what the reference's model has."""
    shapes = {name: (value.shape, value.dtype) for name, value in tree_flatten(model.parameters())}
    packed = {name: module for name, module in model.named_modules() if hasattr(module, "bits")}
    if case.tied:
        shapes = {name: it for name, it in shapes.items() if not name.split(".")[-2] == "lm_head"}
    tied = not any("lm_head" in name for name in shapes)
    entries = [entry(case, name, shapes[name][0], packed.get(name.rsplit(".", 1)[0]), tied) for name in sorted(shapes)]
    return case.stored(entries) if case.stored else entries


def entry(case: Case, name: str, shape: tuple, packed, tied: bool) -> list:
    part = name.rsplit(".", 1)[-1]
    if packed and part == "weight":
        # Eight-bit floats have two codes that are no numbers; without their highest exponent bit they are not met.
        return [name, list(shape), "u32", 0xBFBFBFBF if packed.mode == "mxfp8" else 0xFFFFFFFF, 0]
    if packed and part in ("scales", "biases"):
        return packed_entry(case, name, shape, packed, tied)
    std, mean = spread(case, name, shape, tied)
    return [name, list(shape), "f32" if case.dtype == "float32" else "bf16", f32(std * ROOT3), f32(mean)]


def packed_entry(case: Case, name: str, shape: tuple, packed, tied: bool) -> list:
    """Scales and biases for which random codes spread as the matrix should."""
    module, part = name.rsplit(".", 1)
    mode, bits = packed.mode, packed.bits
    std, _ = spread(case, f"{module}.weight", (*shape[:-1], shape[-1] * packed.group_size), tied)
    if mode == "affine":
        step = std * math.sqrt(12) / 2**bits
        kind = "f32" if case.dtype == "float32" else "bf16"
        if part == "scales":
            return [name, list(shape), kind, f32(0.25 * step), f32(step)]
        return [name, list(shape), kind, f32(0.2 * step), f32(-step * (2**bits - 1) / 2)]
    if mode == "nvfp4":
        # Eight-bit floats: the wanted power of two, and a random fraction. Their codes' own spread is about 2.9.
        return [name, list(shape), "u8", 8, (7 + round(math.log2(std / 2.9))) * 8]
    # Powers of two. The codes' own spread is about 2.9 (mxfp4) or 0.6 (mxfp8 without its highest exponent bit).
    return [name, list(shape), "u8", 2, 127 + math.floor(math.log2(std / (2.9 if mode == "mxfp4" else 0.6)))]


def spread(case: Case, name: str, shape: tuple, tied: bool) -> tuple[float, float]:
    """Standard deviation and mean of a tensor, by the part that it plays."""
    if case.rule and (ruled := case.rule(name, shape)):
        return ruled
    module = name.split(".")[-2] if "." in name else ""
    if "norm" in module and name.endswith(".weight"):
        last = name.count(".") <= 3 and "layers" not in name
        gain = (LOGIT_SPREAD / (EMBED_SPREAD * math.sqrt(shape[0])) if tied else LOGIT_SPREAD) if last else 1.0
        return 0.2 * gain, gain - (1.0 if case.plus_one else 0.0)
    if len(shape) == 1:
        return 0.5, 0.0
    if module == "embed_tokens":
        return EMBED_SPREAD, 0.0
    gain = 1.6 if module in ("q_proj", "k_proj", "qkv_proj", "gate", "router") else 1.0
    return gain / math.sqrt(shape[-1] if module != "conv" else math.prod(shape[1:])), 0.0


def singled(entries: list, stacked: str, single: str) -> list:
    """With each expert's tensors by themselves: `stacked` in a name becomes `single`, its `{}` the expert's number."""
    out = []
    for name, shape, *how in entries:
        if stacked in name:
            out += [[name.replace(stacked, single.format(i)), shape[1:], *how] for i in range(shape[0])]
        else:
            out.append([name, shape, *how])
    return out


def f32(x: float) -> float:
    """A number that is written and read as the same f32."""
    return float(np.format_float_positional(np.float32(x), unique=True))


def bits_of(name: str, count: int) -> np.ndarray:
    """SplitMix64 at 1, 2, 3, …, seeded by FNV-1a of the name."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def draw(entry: list) -> mx.array:
    """One tensor."""
    name, shape, kind, scale, offset = entry
    bits = bits_of(name, math.prod(shape))
    if kind == "u32":
        values = (bits >> np.uint64(32)).astype(np.uint32) & np.uint32(scale)
    elif kind == "u8":
        values = (offset + (bits >> np.uint64(32)) % np.uint64(scale)).astype(np.uint8)
    else:
        unit = ((bits >> np.uint64(40)).astype(np.int32) - 2**23).astype(np.float32) / np.float32(2**23)
        values = unit * np.float32(scale) + np.float32(offset)
    array = mx.array(values.reshape(shape))
    return array.astype(mx.bfloat16) if kind == "bf16" else array
