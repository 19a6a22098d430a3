from draw import Case
from sizes import BASE, Q4

CONFIG = BASE | dict(
    model_type="glm4_moe", num_hidden_layers=3, head_dim=32, moe_intermediate_size=32, norm_topk_prob=True, n_group=4,
    topk_group=2, n_shared_experts=1, n_routed_experts=8, routed_scaling_factor=1.8, num_experts_per_tok=3,
    first_k_dense_replace=1, rope_scaling=None, use_qk_norm=True, tie_word_embeddings=False, attention_bias=True,
    partial_rotary_factor=0.5,
)
SINGLE = [["mlp.switch_mlp.", "mlp.experts.{}."]]
FLAT = dict(use_qk_norm=False, n_group=1, topk_group=1, attention_bias=False, n_shared_experts=2)


def with_further(tensors: list) -> list:
    """With a layer behind the last one, which predicts further tokens."""
    return tensors + [["model.layers.3.eh_proj.weight", [8, 16], "f32", 1.0, 0.0]]


CASES = [
    Case("f32", CONFIG, unstack=SINGLE, stored=with_further),
    Case("flat", CONFIG | FLAT | dict(norm_topk_prob=False)),
    Case("bf16", CONFIG | FLAT | dict(first_k_dense_replace=2), dtype="bfloat16", native=False),
    Case("q4", CONFIG | FLAT, quant=Q4, unstack=SINGLE),
]
