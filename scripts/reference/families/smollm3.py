from draw import Case
from sizes import BASE, Q4

CONFIG = BASE | dict(
    model_type="smollm3", num_hidden_layers=4, tie_word_embeddings=True, no_rope_layer_interval=2, rope_theta=50000.0,
    use_sliding_window=False, sliding_window=None, max_window_layers=2,
)
CASES = [
    Case("f32", CONFIG | dict(tie_word_embeddings=False, attention_bias=True)),
    Case("bf16", CONFIG | dict(no_rope_layers=[0, 1, 1, 0]), dtype="bfloat16"),
    Case("q4", CONFIG, quant=Q4),
]
