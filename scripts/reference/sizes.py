"""Sizes that the families' tiny models share."""

VOCAB = 128

BASE = dict(
    hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=128,
    vocab_size=VOCAB, max_position_embeddings=512, hidden_act="silu", bos_token_id=0, eos_token_id=1,
    rms_norm_eps=1e-6, rope_theta=10000.0,
)
Q4 = dict(group_size=32, bits=4)
