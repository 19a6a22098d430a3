from draw import Case
from families.qwen3_5 import TEXT, of_makers, whole
from families.qwen3_next import rule
from sizes import Q4

CONFIG = whole({name: value for name, value in TEXT.items() if name != "intermediate_size"} | dict(
    model_type="qwen3_5_moe_text", num_experts=8, num_experts_per_tok=3, shared_expert_intermediate_size=64,
    moe_intermediate_size=32,
), "qwen3_5_moe")


def fused(entries: list) -> list:
    """All experts' gates and linear parts in one tensor, which has a parameter's name and not a module's."""
    out = []
    for name, shape, *how in entries:
        if name.endswith("switch_mlp.gate_proj.weight"):
            shape = [shape[0], 2 * shape[1], shape[2]]
            name = name.replace("switch_mlp.gate_proj.weight", "experts.gate_up_proj")
        name = name.replace("switch_mlp.down_proj.weight", "experts.down_proj")
        if not name.endswith("switch_mlp.up_proj.weight"):
            out.append([name, shape, *how])
    return out


CASES = [
    Case("f32", CONFIG, rule=rule),
    Case("q4", CONFIG, rule=rule, quant=Q4),
    Case("mxfp4", CONFIG, rule=rule, quant=dict(mode="mxfp4")),
    Case("makers", CONFIG, rule=rule, stored=lambda entries: of_makers(fused(entries))),
]
