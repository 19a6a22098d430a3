from draw import Case
from sizes import BASE, Q4

CONFIG = BASE | dict(model_type="qwen3", tie_word_embeddings=False, head_dim=32)
CASES = [
    Case("f32", CONFIG),
    Case("q4", CONFIG, quant=Q4),
    Case("mxfp4", CONFIG, quant=dict(mode="mxfp4")),
    Case("mxfp8", CONFIG, quant=dict(mode="mxfp8")),
    Case("nvfp4", CONFIG, quant=dict(mode="nvfp4")),
    Case("mixed", CONFIG, quant=Q4 | dict(overrides={
        "model.embed_tokens": dict(group_size=64, bits=8),
        "model.layers.0.mlp.down_proj": dict(group_size=32, bits=4, mode="mxfp4"),
        "model.layers.1.self_attn.q_proj": dict(group_size=128, bits=3) | dict(group_size=64),
        "model.layers.1.mlp.gate_proj": False,
    })),
]
