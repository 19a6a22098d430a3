from draw import Case
from latent import as_published
from sizes import BASE, Q4

CONFIG = BASE | dict(
    model_type="glm4_moe_lite", num_hidden_layers=3, num_key_value_heads=4, moe_intermediate_size=32, n_shared_experts=1,
    n_routed_experts=8, routed_scaling_factor=1.8, kv_lora_rank=32, q_lora_rank=32, qk_rope_head_dim=16, v_head_dim=40,
    qk_nope_head_dim=32, topk_method="noaux_tc", norm_topk_prob=True, n_group=4, topk_group=2, num_experts_per_tok=3,
    first_k_dense_replace=1, attention_bias=False, rms_norm_eps=1e-3, rope_theta=1000000.0, rope_scaling=None,
    partial_rotary_factor=1.0, tie_word_embeddings=False, num_nextn_predict_layers=1,
)
SINGLE = [["mlp.switch_mlp.", "mlp.experts.{}."]]
# What mlx-lm has of its own where `config.json` is silent.
SILENT = {key: value for key, value in CONFIG.items()
          if key not in ("n_group", "topk_group", "n_shared_experts", "rope_theta", "routed_scaling_factor", "topk_method",
                         "num_experts_per_tok")}


def with_further(tensors: list) -> list:
    """As its makers store it, with a layer behind the last one, which predicts further tokens."""
    return as_published(tensors) + [["model.layers.3.eh_proj.weight", [8, 16], "f32", 1.0, 0.0]]


CASES = [
    Case("f32", CONFIG, unstack=SINGLE, stored=with_further),
    Case("biased", SILENT | dict(q_lora_rank=None, attention_bias=True, moe_layer_freq=2,
                                 rope_scaling=dict(type="yarn", factor=8.0, original_max_position_embeddings=64,
                                                   mscale=1.0, mscale_all_dim=0.7))),
    Case("q4", CONFIG, quant=Q4),
]
