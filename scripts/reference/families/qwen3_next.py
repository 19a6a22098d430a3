import math

from draw import Case, f32, singled
from sizes import BASE, Q4

CONFIG = BASE | dict(
    model_type="qwen3_next", num_hidden_layers=4, full_attention_interval=4, head_dim=32, partial_rotary_factor=0.25,
    linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=16, linear_value_head_dim=24,
    linear_conv_kernel_dim=4, num_experts=8, num_experts_per_tok=3, decoder_sparse_step=1, mlp_only_layers=[1],
    shared_expert_intermediate_size=64, moe_intermediate_size=32, norm_topk_prob=True, tie_word_embeddings=False,
)
# Norms whose makers store the distance from 1.
FROM_ONE = (".input_layernorm.weight", ".post_attention_layernorm.weight", "model.norm.weight", ".q_norm.weight",
            ".k_norm.weight")


def rule(name: str, shape: tuple):
    """A filter's taps add up; its last axis is of one."""
    return (1 / math.sqrt(shape[1]), 0.0) if name.endswith("conv1d.weight") else None


def of_makers(entries: list) -> list:
    """Norms from 1, filters with their last two axes exchanged, and a layer that predicts a further token."""
    out = [["mtp.fc.weight", [64, 128], "f32", 0.1, 0.0], ["mtp.layers.0.input_layernorm.weight", [64], "f32", 0.1, 0.0]]
    for name, shape, kind, scale, offset in entries:
        if name.endswith(FROM_ONE):
            offset = f32(offset - 1)
        if name.endswith("conv1d.weight"):
            shape = [shape[0], shape[2], shape[1]]
        out.append([name, shape, kind, scale, offset])
    return out


CASES = [
    Case("f32", CONFIG, rule=rule),
    Case("bf16", CONFIG | dict(norm_topk_prob=False, full_attention_interval=2), rule=rule, dtype="bfloat16",
         native=False),
    Case("q4", CONFIG | dict(attention_bias=True, tie_word_embeddings=True), rule=rule, quant=Q4),
    Case("makers", CONFIG | dict(decoder_sparse_step=2, full_attention_interval=2), rule=rule,
         stored=lambda entries: of_makers(singled(entries, "switch_mlp.", "experts.{}."))),
]
