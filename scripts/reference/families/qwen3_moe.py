from draw import Case
from sizes import BASE, Q4

CONFIG = BASE | dict(
    model_type="qwen3_moe", num_hidden_layers=3, tie_word_embeddings=False, head_dim=32, num_experts=8,
    num_experts_per_tok=3, moe_intermediate_size=32, decoder_sparse_step=1, mlp_only_layers=[1], norm_topk_prob=True,
)
SINGLE = [["mlp.switch_mlp.", "mlp.experts.{}."]]
CASES = [
    Case("f32", CONFIG, unstack=SINGLE),
    Case("bf16", CONFIG | dict(norm_topk_prob=False), dtype="bfloat16", native=False),
    Case("q4", CONFIG, quant=Q4, unstack=SINGLE),
    Case("mxfp4", CONFIG, quant=dict(mode="mxfp4")),
]
