from draw import Case
from sizes import BASE, Q4

CONFIG = BASE | dict(
    model_type="glm4", head_dim=24, attention_bias=True, partial_rotary_factor=0.5, tie_word_embeddings=False,
)
CASES = [
    Case("f32", CONFIG),
    Case("bf16", CONFIG | dict(attention_bias=False, head_dim=16), dtype="bfloat16"),
    Case("halves", CONFIG | dict(rope_traditional=False, partial_rotary_factor=1.0)),
    Case("q4", CONFIG | dict(head_dim=32), quant=Q4),
]
