from draw import Case
from sizes import BASE, Q4

ROPE = dict(
    full_attention=dict(rope_type="proportional", rope_theta=1000000.0, partial_rotary_factor=0.25),
    sliding_attention=dict(rope_type="default", rope_theta=10000.0),
)
# As the small models are: per-layer embeddings, layers that use another's keys and values, wider blocks there.
SMALL = BASE | dict(
    model_type="gemma4_text", hidden_size=96, num_hidden_layers=6, num_key_value_heads=1, head_dim=32, global_head_dim=64,
    vocab_size_per_layer_input=BASE["vocab_size"], hidden_size_per_layer_input=32, num_kv_shared_layers=3,
    sliding_window=9, sliding_window_pattern=3, attention_k_eq_v=False, final_logit_softcapping=15.0,
    use_double_wide_mlp=True, enable_moe_block=False, tie_word_embeddings=True, rope_parameters=ROPE,
    hidden_activation="gelu_pytorch_tanh",
)
# As the large ones are: keys that are values too, experts beside the dense block.
LARGE = SMALL | dict(
    num_hidden_layers=3, num_key_value_heads=2, num_global_key_value_heads=1, hidden_size_per_layer_input=0,
    num_kv_shared_layers=0, attention_k_eq_v=True, use_double_wide_mlp=False, enable_moe_block=True, num_experts=8,
    top_k_experts=3, moe_intermediate_size=32,
    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
)


def whole(text: dict) -> dict:
    return dict(model_type="gemma4", vocab_size=text["vocab_size"], text_config=text)


def rule(name: str, shape: tuple):
    if name.endswith(("layer_scalar", "router.scale", "per_expert_scale", "per_layer_projection_norm.weight")):
        return 0.2, 1.0
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        # Scores are not divided by the root of the heads' size.
        return 0.1, 0.6
    return None


# As their makers store them.
NESTED = ["language_model.model.", "model.language_model."]
ONE_TENSOR = [
    ["experts.switch_glu.gate_proj.weight|experts.switch_glu.up_proj.weight", "experts.gate_up_proj"],
    ["experts.switch_glu.down_proj.weight", "experts.down_proj"],
]
ROUTER = dict(overrides={
    f"language_model.model.layers.{i}.router.proj": dict(group_size=32, bits=8) for i in range(3)
})
CASES = [
    Case("f32", SMALL, rule=rule),
    Case("bf16", SMALL | dict(sliding_window=30, num_kv_shared_layers=0, final_logit_softcapping=None), rule=rule,
         dtype="bfloat16"),
    Case("small-q4", whole(SMALL), rule=rule, quant=Q4),
    Case("large", whole(LARGE), rule=rule, unstack=ONE_TENSOR + [NESTED]),
    Case("large-q4", whole(LARGE), rule=rule, quant=Q4 | ROUTER),
]
