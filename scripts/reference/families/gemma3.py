from draw import Case
from sizes import BASE, Q4

TEXT = BASE | dict(
    model_type="gemma3_text", num_hidden_layers=4, head_dim=32, sliding_window=9, sliding_window_pattern=3,
    query_pre_attn_scalar=24, rope_theta=1000000.0, rope_local_base_freq=10000.0,
    rope_scaling=dict(factor=8.0, rope_type="linear"),
)
WHOLE = dict(model_type="gemma3", vocab_size=TEXT["vocab_size"], text_config=TEXT)
CASES = [
    Case("f32", TEXT, tied=True, plus_one=True),
    Case("q4", WHOLE, tied=True, plus_one=True, quant=Q4),
    Case("bf16", TEXT | dict(sliding_window=30), tied=True, plus_one=True, dtype="bfloat16"),
]
