from draw import Case
from sizes import BASE, Q4

CONFIG = BASE | dict(
    model_type="mixtral", num_local_experts=8, num_experts_per_tok=2, tie_word_embeddings=False, sliding_window=None,
)
NAMES = dict(gate_proj="w1", down_proj="w2", up_proj="w3")
SINGLE = [[f"block_sparse_moe.switch_mlp.{ours}.", f"block_sparse_moe.experts.{{}}.{theirs}."]
          for ours, theirs in NAMES.items()]
CASES = [
    Case("f32", CONFIG | dict(num_hidden_layers=3), unstack=SINGLE),
    Case("bf16", CONFIG | dict(tie_word_embeddings=True), dtype="bfloat16", native=False),
    Case("q4", CONFIG, quant=Q4, unstack=SINGLE),
]
