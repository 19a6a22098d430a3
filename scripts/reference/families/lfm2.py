from draw import Case
from sizes import BASE, Q4

CONFIG = {name: value for name, value in BASE.items() if name not in ("intermediate_size", "rms_norm_eps")} | dict(
    model_type="lfm2", num_hidden_layers=4, norm_eps=1e-5, conv_bias=False, conv_L_cache=3, block_dim=64,
    block_ff_dim=160, block_multiple_of=32, block_ffn_dim_multiplier=1.0, block_auto_adjust_ff_dim=True,
    full_attn_idxs=[1, 3],
)
CASES = [
    Case("f32", CONFIG | dict(conv_bias=True)),
    Case("bf16", CONFIG | dict(conv_L_cache=4), dtype="bfloat16"),
    Case("q4", CONFIG, quant=Q4),
]
