"""Writes the trained weights twice: as MLX 4-bit safetensors and as a GGUF of Q4_1 blocks, bit for bit the same model.

    python export.py --work work --out ../../models/mesh-tiny

A Q4_1 block is 32 weights q * d + m with f16 d and m; MLX's affine group is 32 weights q * scale + bias with bf16
scale and bias. `quant.affine` keeps scale and bias where both types hold them exactly. At the end both files are read
back, dequantised and compared.
"""
import argparse
import json
import os
import shutil

import gguf
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import tokenizer as tk
from corpus import HERE
from model import Shape
from quant import GROUP, affine, bf16

GGUF_NAME = "mesh-tiny.Q4_1.gguf"
BLOCK = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}


def gguf_name(name):
    name = name.removesuffix(".weight")
    if name in TOP:
        return TOP[name] + ".weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{BLOCK[rest]}.weight"


def mlx_tensors(weights):
    """MLX's form: eight 4-bit numbers in a uint32, the first in the lowest bits."""
    out = {}
    for name, w in weights.items():
        if w.ndim == 1:
            out[name] = w.to(torch.bfloat16)
            continue
        q, scale, bias = affine(w)
        q = q.to(torch.int64).reshape(w.shape[0], -1, 8)
        words = (q << (4 * torch.arange(8))).sum(-1).numpy().astype(np.uint32)
        out[name] = torch.from_numpy(words)
        stem = name.removesuffix("weight")
        out[stem + "scales"] = scale.squeeze(-1).to(torch.bfloat16).contiguous()
        out[stem + "biases"] = bias.squeeze(-1).to(torch.bfloat16).contiguous()
    return out


def q4_1(w):
    """llama.cpp's form: f16 d, f16 m, then 16 bytes: weight j in the low half, weight j + 16 in the high half of byte j."""
    q, scale, bias = affine(w)
    q = q.numpy().astype(np.uint8)
    d, m = (x.numpy().astype(np.float16) for x in (scale, bias))
    assert (d.astype(np.float32) == scale.numpy()).all() and (m.astype(np.float32) == bias.numpy()).all()
    packed = q[..., :16] | q[..., 16:] << 4
    return np.concatenate([d.view(np.uint8), m.view(np.uint8), packed], -1).reshape(w.shape[0], -1)


def configs(shape, tok):
    eos, pad = tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")
    quant = dict(group_size=GROUP, bits=4)
    config = dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3", vocab_size=shape.vocab, hidden_size=shape.hidden, num_hidden_layers=shape.layers, intermediate_size=shape.ffn,
                  num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim, rms_norm_eps=shape.eps, rope_theta=shape.theta, rope_scaling=None,
                  max_position_embeddings=shape.context, tie_word_embeddings=True, hidden_act="silu", attention_bias=False, attention_dropout=0.0, use_sliding_window=False,
                  torch_dtype="bfloat16", bos_token_id=pad, eos_token_id=eos, pad_token_id=pad, quantization=quant, quantization_config=quant)
    return config, dict(bos_token_id=pad, pad_token_id=pad, eos_token_id=[eos, pad], do_sample=False)


def write_gguf(path, weights, shape, tok, template):
    w = gguf.GGUFWriter(path, "qwen3")
    w.add_name("mesh-tiny")
    w.add_license("Apache-2.0 OR MIT")
    w.add_context_length(shape.context)
    w.add_embedding_length(shape.hidden)
    w.add_block_count(shape.layers)
    w.add_feed_forward_length(shape.ffn)
    w.add_head_count(shape.heads)
    w.add_head_count_kv(shape.kv_heads)
    w.add_key_length(shape.head_dim)
    w.add_value_length(shape.head_dim)
    w.add_rope_freq_base(shape.theta)
    w.add_layer_norm_rms_eps(shape.eps)
    w.add_vocab_size(shape.vocab)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    data = json.loads(tok.to_str())
    added = {t["content"]: t["special"] for t in data["added_tokens"]}
    tokens = [tok.id_to_token(i) for i in range(shape.vocab)]
    kind = gguf.TokenType
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types([kind.NORMAL if t not in added else kind.CONTROL if added[t] else kind.USER_DEFINED for t in tokens])
    w.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in data["model"]["merges"]])
    end, pad = tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")
    w.add_bos_token_id(pad)
    w.add_eos_token_id(end)
    w.add_pad_token_id(pad)
    w.add_add_bos_token(False)
    w.add_chat_template(template)
    for name, x in weights.items():
        if x.ndim == 1:
            w.add_tensor(gguf_name(name), bf16(x).numpy())
        else:
            w.add_tensor(gguf_name(name), q4_1(x), raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def compare(folder):
    """Reads both files back and demands equal numbers; returns how many were compared."""
    other = {t.name: t for t in gguf.GGUFReader(os.path.join(folder, GGUF_NAME)).tensors}
    count = 0
    with safe_open(os.path.join(folder, "model.safetensors"), "pt") as f:
        names = set(f.keys())
        for name in sorted(n for n in names if n.endswith(".weight")):
            t = other.pop(gguf_name(name))
            theirs = gguf.quants.dequantize(t.data, t.tensor_type)
            x = f.get_tensor(name)
            if x.ndim == 1:
                ours = x.float().numpy()
            else:
                stem = name.removesuffix("weight")
                words = x.numpy().astype(np.uint32)
                q = (words[..., None] >> (4 * np.arange(8, dtype=np.uint32)) & 15).reshape(x.shape[0], -1, GROUP).astype(np.float32)
                ours = (q * f.get_tensor(stem + "scales").float().numpy()[..., None] + f.get_tensor(stem + "biases").float().numpy()[..., None]).reshape(x.shape[0], -1)
            assert ours.dtype == theirs.dtype == np.float32 and ours.shape == theirs.shape and (ours == theirs).all(), name
            count += ours.size
    assert not other, list(other)
    return count


def dump(value, *path):
    with open(os.path.join(*path), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", required=True, help="where train.py wrote")
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    shape, tok = Shape(), Tokenizer.from_file(os.path.join(a.work, "tokenizer.json"))
    weights = load_file(os.path.join(a.work, "weights.safetensors"))
    os.makedirs(a.out, exist_ok=True)
    source = os.path.join(HERE, "chat_template.jinja")
    with open(source, encoding="utf-8") as f:
        template = f.read()
    tk.save(tok, a.out, template, shape.context)
    shutil.copyfile(source, os.path.join(a.out, "chat_template.jinja"))
    config, generation = configs(shape, tok)
    dump(config, a.out, "config.json")
    dump(generation, a.out, "generation_config.json")
    save_file(mlx_tensors(weights), os.path.join(a.out, "model.safetensors"), metadata={"format": "mlx"})
    os.chmod(os.path.join(a.out, "model.safetensors"), 0o644)
    write_gguf(os.path.join(a.out, GGUF_NAME), weights, shape, tok, template)
    print(compare(a.out), "weights are the same in both files")
    sizes = {n: os.path.getsize(os.path.join(a.out, n)) for n in sorted(os.listdir(a.out))}
    for n, size in sizes.items():
        print(f"{size:9} {n}")
    print(f"{sum(sizes.values()):9} together")


if __name__ == "__main__":
    main()
