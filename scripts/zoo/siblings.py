"""Makes a family's first weights out of those of a trained sibling, for families that do not learn to look back alone.

    python siblings.py --weights DIR --out DIR2 [FAMILY ...]      # then: train.py --start DIR2 FAMILY ...

Only what the siblings share is taken (matrices of equal shape and meaning); the rest keeps its random beginning, and
the training then goes on in the family's own implementation until its own probes are right.
"""
import argparse
import os

import torch
from safetensors.torch import load_file, save_file

import nets
from families import FAMILIES

SIBLING = {"qwen3": "mistral", "qwen2": "phi3", "smollm3": "phi3", "glm4_moe_lite": "kimi_k2", "deepseek_v3": "kimi_k2"}


def apart(state, config):
    """phi3's fused matrices as separate ones."""
    wide = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    for name in [k for k in state if "qkv_proj" in k]:
        w = state.pop(name)
        for part, piece in zip(("q_proj", "k_proj", "v_proj"), w.split([len(w) - 2 * wide, wide, wide])):
            state[name.replace("qkv_proj", part)] = piece
    for name in [k for k in state if "gate_up_proj" in k and "experts" not in k]:
        for part, piece in zip(("gate_proj", "up_proj"), state.pop(name).chunk(2)):
            state[name.replace("gate_up_proj", part)] = piece
    return state


def first_weights(name, weights):
    source = SIBLING[name]
    taken = load_file(os.path.join(weights, source + ".safetensors"))
    if source == "phi3":
        taken = apart(taken, nets.config_of(FAMILIES[source]))
    model = nets.build(FAMILIES[name], 0)
    state = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    shared = [k for k, v in state.items() if k in taken and taken[k].shape == v.shape]
    for k, v in state.items():
        if k in shared:
            state[k] = taken[k]
        elif k.endswith("proj.bias"):
            state[k] = torch.zeros_like(v)
    return {k: v.to(torch.bfloat16).contiguous() for k, v in state.items()}, len(shared)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--weights", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("families", nargs="*")
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    for name in a.families or SIBLING:
        state, shared = first_weights(name, a.weights)
        save_file(state, os.path.join(a.out, name + ".safetensors"))
        print(f"{name}: {shared} of {len(state)} arrays from {SIBLING[name]}")


if __name__ == "__main__":
    main()
