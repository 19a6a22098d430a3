from draw import Case
from sizes import BASE, Q4

MISTRAL = BASE | dict(model_type="mistral", head_dim=24)
WINDOWS = dict(
    num_hidden_layers=3, sliding_window=9, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
)
# Beyond 16 tokens queries grow.
MINISTRAL = BASE | WINDOWS | dict(
    model_type="ministral3", head_dim=32, tie_word_embeddings=True,
    rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0,
        mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3,
    ),
)


def whole(text: dict) -> dict:
    return dict(model_type="mistral3", vocab_size=text["vocab_size"], text_config=text)


# As their makers store them.
NESTED = [["language_model.model.", "model.language_model."], ["language_model.lm_head", "lm_head"]]
CASES = [
    Case("f32", whole(MISTRAL), unstack=NESTED),
    Case("ministral", whole(MINISTRAL), unstack=NESTED),
    Case("bf16", MINISTRAL, dtype="bfloat16"),
    Case("q4", whole(MINISTRAL | dict(tie_word_embeddings=False)), quant=Q4),
]
