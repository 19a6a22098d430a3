from draw import Case
from latent import as_published
from sizes import BASE, Q4

CONFIG = BASE | dict(
    model_type="deepseek_v3", num_hidden_layers=3, num_key_value_heads=4, moe_intermediate_size=32, n_shared_experts=2,
    n_routed_experts=8, routed_scaling_factor=2.5, kv_lora_rank=32, q_lora_rank=32, qk_rope_head_dim=16, v_head_dim=24,
    qk_nope_head_dim=32, topk_method="noaux_tc", scoring_func="sigmoid", norm_topk_prob=True, n_group=4, topk_group=2,
    num_experts_per_tok=3, moe_layer_freq=1, first_k_dense_replace=1, attention_bias=False,
    rope_scaling=dict(type="yarn", factor=8.0, original_max_position_embeddings=64, beta_fast=32, beta_slow=1,
                      mscale=1.0, mscale_all_dim=0.7),
)
SINGLE = [["mlp.switch_mlp.", "mlp.experts.{}."]]
CASES = [
    Case("f32", CONFIG, unstack=SINGLE),
    Case("plain-q", CONFIG | dict(q_lora_rank=None, rope_scaling=None, n_group=1, topk_group=1, attention_bias=True)),
    Case("q4", CONFIG, quant=Q4),
    # One group, and few dense layers; its files have keys and values in one matrix.
    Case("kimi-k2", CONFIG | dict(model_type="kimi_k2", n_group=1, topk_group=1, n_shared_experts=1), unstack=SINGLE,
         stored=as_published),
]
