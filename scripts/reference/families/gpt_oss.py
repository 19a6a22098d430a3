from draw import Case
from sizes import BASE, Q4

CONFIG = BASE | dict(
    model_type="gpt_oss", num_hidden_layers=4, head_dim=32, num_local_experts=8, num_experts_per_tok=3,
    intermediate_size=64, sliding_window=9, attention_bias=True, tie_word_embeddings=False, swiglu_limit=7.0,
    layer_types=["sliding_attention", "full_attention"] * 2, rope_theta=150000.0,
    rope_scaling=dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=64, beta_fast=32.0, beta_slow=1.0,
                      truncate=False),
)
# In its makers' files only experts are packed.
DENSE = ["model.embed_tokens", "lm_head"] + [
    f"model.layers.{i}.{name}" for i in range(4) for name in
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.router")
]


def rule(name: str, shape: tuple):
    """Gates and linear parts beyond their limit of 7 on both sides, and sinks that take a good part of the softmax."""
    if name.endswith(("gate_proj.bias", "up_proj.bias")):
        return 4.0, 0.0
    if name.endswith("experts.down_proj.weight"):
        return 0.2 / shape[-1] ** 0.5, 0.0
    if name.endswith("sinks"):
        return 0.7, 1.0
    return None


def as_published(tensors: list) -> list:
    """Gate and linear part in one tensor, row by row in turn, and sixteen bytes for each group of 32 numbers."""
    out = []
    for name, shape, kind, scale, offset in tensors:
        if "experts.up_proj" in name:
            continue
        if ".experts." in name:
            name = name.replace("gate_proj", "gate_up_proj")
            if "gate_up_proj" in name:
                shape = [shape[0], 2 * shape[1], *shape[2:]]
            if name.endswith(".weight"):
                shape, kind, scale = [*shape[:2], shape[2] // 4, 16], "u8", 256
            module, part = name.rsplit(".", 1)
            name = f"{module}_{dict(weight='blocks').get(part, part)}"
        out.append([name, shape, kind, scale, offset])
    return out


CASES = [
    Case("f32", CONFIG, rule=rule),
    Case("q4", {key: value for key, value in CONFIG.items() if key != "layer_types"}, rule=rule, quant=Q4),
    Case("mxfp4", CONFIG, rule=rule, quant=dict(mode="mxfp4")),
    # All experts for each token: rounding changes no choice, so that the reference's own bf16 can be compared.
    Case("makers", CONFIG | dict(sliding_window=30, num_experts_per_tok=8), rule=rule, dtype="bfloat16",
         stored=as_published, packed_as=dict(quant_method="mxfp4", modules_to_not_convert=["model.embed_tokens", "lm_head"]),
         quant=dict(mode="mxfp4", overrides=dict.fromkeys(DENSE, False))),
]
