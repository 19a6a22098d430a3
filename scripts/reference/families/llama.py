from draw import Case
from sizes import BASE, Q4

CONFIG = BASE | dict(model_type="llama", tie_word_embeddings=False, attention_bias=False, mlp_bias=False)
CASES = [
    Case("f32", CONFIG | dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    Case("bf16", CONFIG, dtype="bfloat16"),
    Case("q4", CONFIG, quant=Q4),
]
