from draw import Case
from sizes import BASE, Q4

CONFIG = BASE | dict(model_type="llama", tie_word_embeddings=False, attention_bias=False, mlp_bias=False)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
MISTRAL = CONFIG | dict(
    model_type="mistral", head_dim=24, num_hidden_layers=3, sliding_window=9,
    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
)
CASES = [
    Case("f32", CONFIG | dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    Case("bf16", CONFIG, dtype="bfloat16"),
    Case("q4", CONFIG, quant=Q4),
    Case("llama3-rope", CONFIG | dict(rope_scaling=LLAMA3)),
    Case("mistral", MISTRAL),
]
