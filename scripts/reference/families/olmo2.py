from draw import Case
from sizes import BASE, Q4

CONFIG = BASE | dict(model_type="olmo2", tie_word_embeddings=False, rope_theta=500000.0)


def rule(name: str, shape: tuple):
    """No norm stands before the first layer, so embeddings are as large as what is added to them."""
    if name.startswith("model.embed_tokens"):
        return 1.0, 0.0
    return (0.1, 0.0) if name.endswith(".bias") else None


CASES = [
    Case("f32", CONFIG | dict(attention_bias=True, mlp_bias=True), rule=rule),
    Case("bf16", CONFIG | dict(num_key_value_heads=4), rule=rule, dtype="bfloat16"),
    Case("q4", CONFIG, rule=rule, quant=Q4),
]
