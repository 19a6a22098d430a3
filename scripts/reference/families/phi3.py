from draw import Case
from sizes import BASE, Q4

# Of a head's 24 numbers 18 are rotated: 9 wavelengths.
CONFIG = BASE | dict(
    model_type="phi3", hidden_size=96, tie_word_embeddings=False, partial_rotary_factor=0.75,
    original_max_position_embeddings=64,
    rope_scaling=dict(
        type="longrope", short_factor=[1.0 + 0.05 * i for i in range(9)], long_factor=[1.0 + 0.4 * i for i in range(9)],
    ),
)
SU = dict(type="su", short_factor=[1.0] * 12, long_factor=[1.1 + 0.3 * i for i in range(12)])
LINEAR = dict(type="linear", factor=4.0, long_factor=[])
CASES = [
    Case("f32", CONFIG),
    Case("bf16", CONFIG | dict(partial_rotary_factor=1.0, rope_scaling=LINEAR, tie_word_embeddings=True), dtype="bfloat16"),
    Case("q4", CONFIG | dict(partial_rotary_factor=1.0, rope_scaling=SU), quant=Q4),
    Case("plain", CONFIG | dict(rope_scaling=None)),
]
