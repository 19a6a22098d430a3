"""The tiny models of the parity goldens: their shapes, their random weights, and how each variant is stored.

Everything is drawn with numpy from fixed seeds, so that weights do not depend on the device. The scales are chosen to
make mistakes visible: embeddings are small (a wrong RMSNorm epsilon shows), norms and biases are far from 1 and 0 (a
forgotten one shows), attention scores spread over about two units (a wrong RoPE shows), and logits spread over about
five (so that the best token leads clearly). The rows of BOS and EOS are zero: their logit is 0, so no greedy answer
ends.
"""
import copy
import json
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm import utils as lm

VOCAB = 128
BOS, EOS = 0, 1
LOGIT_SPREAD = 5.0
EMBED_SPREAD = 0.05

BASE = dict(
    hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=128,
    vocab_size=VOCAB, max_position_embeddings=512, hidden_act="silu", bos_token_id=BOS, eos_token_id=EOS,
    torch_dtype="float32",
)
FAMILIES = {
    "llama": BASE | dict(
        model_type="llama", architectures=["LlamaForCausalLM"], rms_norm_eps=1e-5, rope_theta=10000.0,
        tie_word_embeddings=False, attention_bias=False, mlp_bias=False,
    ),
    "qwen2": BASE | dict(
        model_type="qwen2", architectures=["Qwen2ForCausalLM"], rms_norm_eps=1e-6, rope_theta=1000000.0,
        tie_word_embeddings=True, use_sliding_window=False,
    ),
    "qwen3": BASE | dict(
        model_type="qwen3", architectures=["Qwen3ForCausalLM"], rms_norm_eps=1e-6, rope_theta=1000000.0,
        tie_word_embeddings=False, attention_bias=False, head_dim=32, use_sliding_window=False,
    ),
}
# With 8 frequencies of base 10000 this leaves one alone, blends two and slows five, well inside a hundred tokens.
FAMILIES["llama3-rope"] = FAMILIES["llama"] | dict(
    rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                      original_max_position_embeddings=64),
)

# Per-module overrides as mlx-lm writes them: the default, other widths, other groups, and `false` for "left alone".
MIXED = {
    "model.embed_tokens": dict(group_size=32, bits=8, mode="affine"),
    "model.layers.0.self_attn.v_proj": dict(group_size=32, bits=8, mode="affine"),
    "model.layers.0.mlp.down_proj": dict(group_size=64, bits=6, mode="affine"),
    "model.layers.1.self_attn.q_proj": dict(group_size=64, bits=3, mode="affine"),
    "model.layers.1.mlp.gate_proj": False,
    "lm_head": False,
}


@dataclass
class Case:
    """One stored model: a family, the dtype of its floating tensors, and how its matrices are quantised."""

    name: str
    family: str
    dtype: str = "float32"
    bits: int | None = None
    group: int = 64
    overrides: dict = field(default_factory=dict)
    shards: int = 1


CASES = [
    Case(f"{family}-{variant}", family, **how)
    for family in ("llama", "qwen2", "qwen3")
    for variant, how in {
        "f32": dict(),
        "bf16": dict(dtype="bfloat16"),
        "q4": dict(bits=4, group=32 if family == "qwen2" else 64),
        "q8": dict(bits=8, group=32 if family == "llama" else 64),
    }.items()
] + [
    Case("llama3-rope-q4", "llama3-rope", bits=4),
    Case("llama-q4-sharded", "llama", bits=4, shards=2),
    Case("qwen3-q4-bf16-scales", "qwen3", dtype="bfloat16", bits=4),
    Case("qwen3-mixed", "qwen3", bits=4, overrides=MIXED),
    Case("llama-q2", "llama", bits=2, group=32),
    Case("qwen2-q5", "qwen2", bits=5, group=64),
]


def draw(name: str, shape: tuple, tied: bool, rng: np.random.Generator) -> np.ndarray:
    """One random parameter, scaled by the part that it plays (see the head of this file)."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if name == "model.norm.weight":
        return (1 + 0.2 * noise) * (LOGIT_SPREAD / (EMBED_SPREAD * math.sqrt(shape[0])) if tied else LOGIT_SPREAD)
    if "norm" in name:
        return 1 + 0.2 * noise
    if name.endswith(".bias"):
        return 0.5 * noise
    if name in ("model.embed_tokens.weight", "lm_head.weight"):
        noise[[BOS, EOS]] = 0
    if "embed_tokens" in name:
        return EMBED_SPREAD * noise
    gain = 1.6 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1.0
    return noise * (gain / math.sqrt(shape[-1]))


def build(case: Case):
    """The model of one case with its config, as mlx-lm's own classes hold it."""
    config = copy.deepcopy(FAMILIES[case.family])
    config["torch_dtype"] = case.dtype
    model_class, args_class = lm._get_classes(config)
    model = model_class(args_class.from_dict(config))
    rng = np.random.default_rng(zlib.crc32(case.family.encode()))
    tied = config["tie_word_embeddings"]
    shapes = sorted((name, value.shape) for name, value in tree_flatten(model.parameters()))
    model.load_weights([(name, mx.array(draw(name, shape, tied, rng).astype(np.float32))) for name, shape in shapes])
    model.set_dtype(getattr(mx, case.dtype))
    if case.bits:
        choose = (lambda path, module: case.overrides.get(path, True)) if case.overrides else None
        model, config = lm.quantize_model(model, config, case.group, case.bits, quant_predicate=choose)
        skipped = {path: False for path, how in case.overrides.items() if how is False}
        config["quantization"].update(skipped)
        config["quantization_config"] = config["quantization"]
    return model, config


def save(case: Case, folder: Path) -> None:
    """Write the case the way mlx-lm saves models. (Its shard size is whole gigabytes, so shards are cut here.)"""
    model, config = build(case)
    lm.save_model(folder, model)
    if case.shards > 1:
        cut_shards(folder, case.shards)
    lm.save_config(config, folder / "config.json")


def cut_shards(folder: Path, count: int) -> None:
    """Split a one-file checkpoint into `count` files of about equal size, and rewrite its index."""
    whole = folder / "model.safetensors"
    weights = mx.load(str(whole))
    mx.eval(weights)
    total = sum(value.nbytes for value in weights.values())
    shards, filled = [{} for _ in range(count)], 0
    for name in sorted(weights):
        shards[min(filled * count // total, count - 1)][name] = weights[name]
        filled += weights[name].nbytes
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{count:05d}.safetensors"
        mx.save_safetensors(str(folder / file), shard, metadata={"format": "mlx"})
        weight_map |= dict.fromkeys(shard, file)
    whole.unlink()
    index = folder / "model.safetensors.index.json"
    written = json.loads(index.read_text()) | {"weight_map": dict(sorted(weight_map.items()))}
    index.write_text(json.dumps(written, indent=4))
