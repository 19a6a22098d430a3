"""make_random_model.py TOKENIZER_DIR OUT_DIR [shape options]: a random qwen3 checkpoint that never stops talking.

For speed only: any size and quantisation, with the tokenizer and chat template of TOKENIZER_DIR (a script model, see
scripts/conformance/script-model). Output rows of all tokens but plain words are zero, so their logit is 0 and the best
word is always above it: the end token is never drawn, and each token is text at once, which makes times comparable.
"""
import argparse
import json
import re
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm import utils as lm

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json",
                   "vocab.json", "merges.txt")


def word_rows(vocab: dict[str, int], size: int) -> np.ndarray:
    """A column: 1 for each token of letters, perhaps after a space (`Ġ` in byte-level BPE), 0 for any other."""
    rows = np.zeros((size, 1), np.float32)
    rows[[token for text, token in vocab.items() if re.fullmatch("Ġ?[A-Za-z]+", text)]] = 1
    return rows


def random_weights(model, words: np.ndarray, seed: int):
    """Weights that keep activations near 1, with the output rows of everything but words blanked."""
    rng = np.random.default_rng(seed)
    for name, value in tree_flatten(model.parameters()):
        if "norm" in name:
            yield name, mx.ones(value.shape)
            continue
        weight = rng.standard_normal(value.shape, dtype=np.float32)
        if name == "model.embed_tokens.weight":
            yield name, mx.array(weight)
            continue
        weight *= value.shape[-1] ** -0.5
        yield name, mx.array(weight * words if name == "lm_head.weight" else weight)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--intermediate", type=int, default=1536)
    parser.add_argument("--bits", type=int, default=4, help="0: not quantised")
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--dtype", default="bfloat16", help="of the floating tensors, the scales among them")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)

    source = json.loads((args.tokenizer / "config.json").read_text())
    tokenizer = json.loads((args.tokenizer / "tokenizer.json").read_text())
    config = dict(
        architectures=["Qwen3ForCausalLM"], model_type="qwen3", hidden_act="silu", torch_dtype=args.dtype,
        hidden_size=args.hidden, num_hidden_layers=args.layers, num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads, head_dim=args.head_dim, intermediate_size=args.intermediate,
        rms_norm_eps=1e-6, rope_theta=1000000.0, max_position_embeddings=32768, attention_bias=False,
        tie_word_embeddings=False, use_sliding_window=False,
        vocab_size=source["vocab_size"], bos_token_id=source["bos_token_id"], eos_token_id=source["eos_token_id"],
    )
    model_class, args_class = lm._get_classes(config)
    model = model_class(args_class.from_dict(config))
    words = word_rows(tokenizer["model"]["vocab"], source["vocab_size"])
    model.load_weights(list(random_weights(model, words, args.seed)))
    model.set_dtype(getattr(mx, args.dtype))
    if args.bits:
        model, config = lm.quantize_model(model, config, args.group, args.bits)
    lm.save_model(args.out, model)
    lm.save_config(config, args.out / "config.json")
    for name in TOKENIZER_FILES:
        if (args.tokenizer / name).exists():
            shutil.copyfile(args.tokenizer / name, args.out / name)


if __name__ == "__main__":
    main()
