from draw import Case, singled
from sizes import BASE, Q4

CONFIG = BASE | dict(
    model_type="kimi_linear", num_hidden_layers=4, head_dim=32, model_max_length=512, num_experts=8,
    moe_intermediate_size=32, kv_lora_rank=32, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=24,
    mla_use_nope=True, q_lora_rank=None, num_experts_per_token=3, num_shared_experts=2, routed_scaling_factor=2.446,
    moe_router_activation_func="sigmoid", moe_renormalize=True, first_k_dense_replace=1, moe_layer_freq=1,
    use_grouped_topk=True, num_expert_group=1, topk_group=1, tie_word_embeddings=False, rope_scaling=None,
    linear_attn_config=dict(kda_layers=[1, 2, 4], full_attn_layers=[3], num_heads=3, head_dim=32,
                            short_conv_kernel_size=4),
)
GROUPS = dict(num_expert_group=4, topk_group=2)
SINGLE = [["mlp.switch_mlp.", "mlp.experts.{}."]]
RENAMED = [
    ("mlp.e_score_correction_bias", "block_sparse_moe.gate.e_score_correction_bias"),
    ("mlp.gate.", "block_sparse_moe.gate."), ("mlp.shared_experts.", "block_sparse_moe.shared_experts."),
    ("mlp.experts.", "block_sparse_moe.experts."), ("q_conv.conv.", "q_conv1d."), ("k_conv.conv.", "k_conv1d."),
    ("v_conv.conv.", "v_conv1d."),
]


def rule(name: str, shape: tuple):
    """Its axes of one say nothing of how many numbers add up."""
    return (0.5, 0.0) if name.endswith("A_log") else None


def of_makers(entries: list) -> list:
    """Makers' names, filters with their last two axes exchanged, keys and values of the latents in one matrix."""
    out = [["model.mtp.layers.0.input_layernorm.weight", [64], "f32", 0.1, 0.0]]
    for name, shape, *how in singled(entries, "mlp.switch_mlp.", "mlp.experts.{}."):
        if name.endswith("unembed_out.weight"):
            continue
        if name.endswith("embed_q.weight"):
            heads, rank, nope = shape
            name, shape = name.replace("embed_q", "kv_b_proj"), [heads * (nope + CONFIG["v_head_dim"]), rank]
        for ours, theirs in RENAMED:
            name = name.replace(ours, theirs)
        if "block_sparse_moe.experts." in name:
            name = name.replace("gate_proj", "w1").replace("down_proj", "w2").replace("up_proj", "w3")
        if "conv1d" in name:
            shape = [shape[0], shape[2], shape[1]]
        out.append([name, shape, *how])
    return out


CASES = [
    Case("f32", CONFIG | GROUPS, rule=rule, unstack=SINGLE),
    Case("softmax", CONFIG | dict(moe_router_activation_func="softmax", moe_renormalize=False, num_shared_experts=0,
                                  qk_rope_head_dim=None, tie_word_embeddings=True), rule=rule),
    Case("bf16", CONFIG, rule=rule, dtype="bfloat16", native=False),
    Case("q4", CONFIG, rule=rule, quant=Q4),
    Case("makers", CONFIG, rule=rule, stored=of_makers),
]
