"""Writes a family of the zoo as GGUF for llama.cpp: the same bf16 weights, so the same answers.

    python gguf_export.py --llama-cpp SOURCES --out DIR [--zoo ../../models/zoo] [--type bf16] [FAMILY ...]

SOURCES is a llama.cpp source tree: its own converter does the work, from the checkpoint put back into the publisher's
names. The files are not kept in the repository: this script makes the same bytes each time.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import school
from families import FAMILIES

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
PRE = "qwen2"                                             # llama.cpp's name of the pre-tokenizer


def experts_apart(state, stacked, single, parts):
    """One matrix an expert, from a stack of them."""
    for name in [k for k in state if stacked in k]:
        layer, part = name.split(stacked)
        part = part.removesuffix(".weight")
        if part in parts:
            for e, w in enumerate(state.pop(name)):
                state[f"{layer}{single}{e}.{parts[part]}.weight"] = w.contiguous()


def kv_b(state, config):
    """MLA's two matrices as the publisher's one: keys' part turned back, then per head keys and values."""
    for name in [k for k in state if k.endswith("self_attn.embed_q.weight")]:
        stem = name.removesuffix("embed_q.weight")
        keys, values = state.pop(name).transpose(1, 2), state.pop(stem + "unembed_out.weight")
        state[stem + "kv_b_proj.weight"] = torch.cat([keys, values], 1).flatten(0, 1).contiguous()


def convolutions(state):
    for name in [k for k in state if k.endswith(("conv1d.weight", "conv.conv.weight", "_conv.conv.weight"))]:
        state[name] = state[name].transpose(1, 2).contiguous()


def silent_heads(state, config):
    """llama.cpp has as many delta heads as attention heads, so it gets more of them, whose output counts for nothing."""
    linear = config["linear_attn_config"]
    more = config["num_attention_heads"] - linear["num_heads"]
    rows = dict.fromkeys(("q_proj.weight", "k_proj.weight", "v_proj.weight", "q_conv1d.weight", "k_conv1d.weight", "v_conv1d.weight", "f_b_proj.weight", "g_b_proj.weight", "dt_bias"), linear["head_dim"])
    axis = {"o_proj.weight": (1, linear["head_dim"]), "b_proj.weight": (0, 1), "A_log": (2, 1)} | {k: (0, n) for k, n in rows.items()}
    for name in [k for k in state if k.endswith("A_log")]:
        for part, (dim, each) in axis.items():
            stem = name.removesuffix("A_log") + part
            w = state[stem]
            shape = list(w.shape)
            shape[dim] = each * more
            state[stem] = torch.cat([w, torch.zeros(shape, dtype=w.dtype)], dim).contiguous()
    config["linear_attn_config"] = linear | {"num_heads": config["num_attention_heads"]}


def published(name, state, config):
    """The checkpoint under the names and in the shapes that the family's publisher uses."""
    state = {k.replace("language_model.model.", "model.language_model.", 1) if k.startswith("language_model.model.") else k.removeprefix("language_model."): v for k, v in state.items()}
    convolutions(state)
    kv_b(state, config)
    if name in ("qwen3_next", "qwen3_5", "qwen3_5_moe"):
        for k, v in state.items():
            if v.ndim == 1 and k.endswith(("layernorm.weight", "q_norm.weight", "k_norm.weight", "model.norm.weight", "language_model.norm.weight")):
                state[k] = (v.float() - 1).to(v.dtype)      # mlx-lm keeps them with 1 added
    if name == "gemma3_text":                               # llama.cpp's scale of scores is always by the head's size
        for k in [k for k in state if k.endswith("q_norm.weight")]:
            state[k] = (1 + state[k].float()) * (config["head_dim"] / config["query_pre_attn_scalar"]) ** 0.5 - 1
    usual = {p: p for p in ("gate_proj", "up_proj", "down_proj")}
    if name == "gpt_oss":
        for k in [k for k in state if ".experts.gate_proj." in k]:
            up = k.replace("gate_proj", "up_proj")
            gate_up = torch.stack([state.pop(k), state.pop(up)], 2).flatten(1, 2)
            if k.endswith(".bias"):
                state[k.replace("gate_proj.bias", "gate_up_proj_bias")] = gate_up.contiguous()
            else:
                state[k.replace("gate_proj.weight", "gate_up_proj")] = gate_up.transpose(1, 2).contiguous()
        for k in [k for k in state if ".experts.down_proj." in k]:
            state[k.replace("down_proj.bias", "down_proj_bias") if k.endswith(".bias") else k.replace("down_proj.weight", "down_proj")] = state.pop(k) if k.endswith(".bias") else state.pop(k).transpose(1, 2).contiguous()
    elif name == "kimi_linear":
        experts_apart(state, ".mlp.switch_mlp.", ".block_sparse_moe.experts.", dict(gate_proj="w1", down_proj="w2", up_proj="w3"))
        for k in list(state):
            layer = k.split(".mlp.")[0] + ".block_sparse_moe."
            if ".mlp.shared_experts." in k or ".mlp.gate.weight" in k:
                state[k.replace(".mlp.", ".block_sparse_moe.")] = state.pop(k)
            elif k.endswith(".mlp.e_score_correction_bias"):
                state[layer + "gate.e_score_correction_bias"] = state.pop(k)
            elif "_conv.conv." in k:
                state[k.replace("_conv.conv.", "_conv1d.")] = state.pop(k)
        silent_heads(state, config)
    elif name == "gemma4_moe":
        for k in [k for k in state if ".experts.switch_glu.gate_proj." in k]:
            state[k.replace("switch_glu.gate_proj.weight", "gate_up_proj")] = torch.cat([state.pop(k), state.pop(k.replace("gate_proj", "up_proj"))], 1).contiguous()
            down = k.replace("gate_proj", "down_proj")
            state[down.replace("switch_glu.down_proj.weight", "down_proj")] = state.pop(down)
    elif name == "qwen3_5_moe":
        for k in [k for k in state if ".mlp.switch_mlp.gate_proj." in k]:
            state[k.replace("switch_mlp.gate_proj.weight", "experts.gate_up_proj")] = torch.cat([state.pop(k), state.pop(k.replace("gate_proj", "up_proj"))], 1).contiguous()
            down = k.replace("gate_proj", "down_proj")
            state[down.replace("switch_mlp.down_proj.weight", "experts.down_proj")] = state.pop(down)
    else:
        experts_apart(state, ".mlp.switch_mlp.", ".mlp.experts.", usual)
    return state


def write(name, zoo, out, kind):
    from conversion import ModelType, get_model_architecture, get_model_class
    from conversion.base import ModelBase, TextModel
    import gguf
    TextModel.get_vocab_base_pre = lambda self, tokenizer: PRE      # its list knows published tokenizers only
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(zoo, name, "config.json"), encoding="utf-8") as f:
            config = json.load(f)
        save_file(published(name, load_file(os.path.join(zoo, name, "model.safetensors")), config), os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        if name == "kimi_k2":
            config["model_type"] = "deepseek_v3"
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
            json.dump(config, f)
        for file in TOKENIZER:
            shutil.copyfile(os.path.join(zoo, file), os.path.join(folder, file))
        path = Path(out, f"{name}.{kind}.gguf")
        with torch.inference_mode():
            hparams = ModelBase.load_hparams(Path(folder), False)
            cls = get_model_class(get_model_architecture(hparams, ModelType.TEXT), mmproj=False)
            cls.no_mtp = True                              # the qwen3_next line: no head for tokens further on
            made = cls(Path(folder), dict(f32=gguf.LlamaFileType.ALL_F32, bf16=gguf.LlamaFileType.MOSTLY_BF16, f16=gguf.LlamaFileType.MOSTLY_F16, q8_0=gguf.LlamaFileType.MOSTLY_Q8_0)[kind], path)
            tokens_as_gpt2(made)
            if name == "gemma3_text":                      # the converter leaves llama.cpp's own pattern, every sixth layer
                made.gguf_writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
            made.write()
        return path


def tokens_as_gpt2(model):
    """Every family here has the zoo's tokenizer, whatever tokenizer the architecture's published models have."""
    model.set_vocab = model._set_vocab_gpt2


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--llama-cpp", required=True)
    ap.add_argument("--zoo", default=os.path.join(school.HERE, "../../models/zoo"))
    ap.add_argument("--out", required=True)
    ap.add_argument("--type", default="bf16", choices=["f32", "bf16", "f16", "q8_0"])
    ap.add_argument("families", nargs="*")
    a = ap.parse_args()
    sys.path[:0] = [a.llama_cpp, os.path.join(a.llama_cpp, "gguf-py")]
    os.makedirs(a.out, exist_ok=True)
    bad = 0
    for name in a.families or [n for n, f in FAMILIES.items() if f.gguf]:
        try:
            path = write(name, a.zoo, a.out, a.type)
            print(f"{name:14} {os.path.getsize(path):8} {path}", flush=True)
        except Exception as e:
            bad += 1
            print(f"{name:14} not converted: {e!r}"[:300], flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
