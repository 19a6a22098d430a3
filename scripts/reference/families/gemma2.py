"""mlx-lm 0.32.2's gemma2 gives every layer all tokens; the models were trained with a window in every second layer. Here the
reference has these windows too, where a config names one; without, it is mlx-lm's own.
"""
from dataclasses import dataclass

from mlx_lm.models import gemma2
from mlx_lm.models.base import create_causal_mask

from draw import Case
from sizes import BASE, Q4


@dataclass
class Windowed(gemma2.ModelArgs):
    sliding_window: int | None = None


def call(self, inputs, cache=None):
    h = self.embed_tokens(inputs) * self.args.hidden_size**0.5
    cache = cache or [None] * len(self.layers)
    offset = cache[0].offset if cache[0] else 0
    masks = [create_causal_mask(inputs.shape[1], offset, window) for window in (self.args.sliding_window, None)]
    for i, (layer, c) in enumerate(zip(self.layers, cache)):
        h = layer(h, masks[i % 2], c)
    return self.norm(h)


gemma2.ModelArgs = Windowed
gemma2.GemmaModel.__call__ = call

# Scores spread over two units, so low caps bend them.
CONFIG = BASE | dict(
    model_type="gemma2", hidden_size=96, num_hidden_layers=3, head_dim=32, query_pre_attn_scalar=24,
    attn_logit_softcapping=3.0, final_logit_softcapping=15.0, hidden_activation="gelu_pytorch_tanh",
)
WINDOW = CONFIG | dict(sliding_window=9)
CASES = [
    Case("f32", WINDOW, plus_one=True),
    Case("bf16", CONFIG, plus_one=True, dtype="bfloat16"),
    Case("q4", WINDOW | dict(sliding_window=30), plus_one=True, quant=Q4),
]
