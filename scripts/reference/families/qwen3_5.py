from draw import Case
from families.qwen3_next import of_makers as of_makers_next
from families.qwen3_next import rule
from sizes import BASE, Q4

TEXT = {name: value for name, value in BASE.items() if name != "rope_theta"} | dict(
    model_type="qwen3_5_text", num_hidden_layers=4, full_attention_interval=4, head_dim=32, attn_output_gate=True,
    linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=16, linear_value_head_dim=24,
    linear_conv_kernel_dim=4, tie_word_embeddings=False, mamba_ssm_dtype="float32",
    layer_types=["linear_attention"] * 3 + ["full_attention"],
    rope_parameters=dict(rope_type="default", mrope_section=[2, 1, 1], mrope_interleaved=True, rope_theta=1000.0,
                         partial_rotary_factor=0.25),
)


def whole(text: dict, model_type: str) -> dict:
    """With images, of which the engine sees none."""
    return dict(model_type=model_type, text_config=text, image_token_id=5, vision_config=dict(depth=1))


def of_makers(entries: list) -> list:
    """The language model one level deeper, its head beside it, and a tower that sees images."""
    def name(ours: str) -> str:
        return ours.replace("language_model.model.", "model.language_model.").replace("language_model.lm_head", "lm_head")
    tower = ["model.visual.blocks.0.attn.proj.weight", [8, 8], "f32", 0.1, 0.0]
    return [tower] + [[name(entry[0]), *entry[1:]] for entry in of_makers_next(entries)]


PLAIN = {name: value for name, value in TEXT.items() if name not in ("rope_parameters", "layer_types")} | dict(
    model_type="qwen3_5", full_attention_interval=2, tie_word_embeddings=True, attention_bias=True,
)
CASES = [
    Case("f32", whole(TEXT, "qwen3_5"), rule=rule),
    Case("plain", PLAIN, rule=rule),
    Case("bf16", whole(TEXT, "qwen3_5"), rule=rule, dtype="bfloat16"),
    Case("q4", whole(TEXT, "qwen3_5"), rule=rule, quant=Q4),
    Case("makers", whole(TEXT, "qwen3_5"), rule=rule, stored=of_makers),
]
