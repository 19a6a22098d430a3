"""Turns trained weights into the zoo's folders: as the hub would hold them, through mlx_lm.convert, bf16 and 4-bit.

    python export.py --weights DIR --out ../../models/zoo [FAMILY ...]

DIR holds FAMILY.safetensors, the library's own names, as train.py writes them. The 4-bit form is MLX's affine one in
groups of 32 (what a model's own rule wants otherwise, such as 8 bits for routers, stays); gpt_oss's experts are mxfp4.
Every exported model is compared with the library's: the greatest difference of logits, both in f32, is printed.
"""
import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile

from pathlib import Path

import mlx.core as mx
import torch
from mlx_lm.convert import convert
from mlx_lm.utils import load_model
from safetensors.torch import load_file, save_file

import nets
import school
from families import FAMILIES

GROUP, BITS = 32, 4
SAME = 2e-3                   # logits, f32 against f32: more than this is another network, not rounding
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def published(name, state):
    """Where the library's reverse mapping does not give the publisher's names, or not what mlx-lm reads."""
    out = {}
    for k, v in state.items():
        if name == "kimi_linear" and "block_sparse_moe" in k and not any(part in k for part in (".experts.", ".shared_experts.", ".gate.")):
            k = k.replace("block_sparse_moe", "mlp")                  # the dense layer
        if name == "gpt_oss" and k.endswith(("experts.gate_up_proj", "experts.down_proj")):
            k, v = k + ".weight", v.transpose(1, 2).contiguous()      # bf16 experts, in the order of mxfp4 ones
        out[k] = v
    if name == "qwen3_5_moe":                                         # published with fused experts
        for layer in sorted({k.split(".experts.")[0] for k in out if ".experts." in k}):
            take = lambda part: torch.stack([out.pop(f"{layer}.experts.{e}.{part}.weight") for e in range(FAMILIES[name].learnt["num_experts"])])
            gate, up, down = take("gate_proj"), take("up_proj"), take("down_proj")
            out[layer + ".experts.gate_up_proj"], out[layer + ".experts.down_proj"] = torch.cat([gate, up], 1).contiguous(), down
    return out


def hub_folder(name, model, folder, tokenizer):
    """Writes the checkpoint as the family's publisher would: the library's reverse mapping gives the names."""
    family = FAMILIES[name]
    raw = os.path.join(folder, "raw")
    model.save_pretrained(raw)
    state = {k: v.to(torch.bfloat16) for k, v in load_file(os.path.join(raw, "model.safetensors")).items()}
    shutil.rmtree(raw)
    if family.text:
        state = {k.replace("model.", "model.language_model.", 1) if k.startswith("model.") else k: v for k, v in state.items()}
    save_file(published(name, state), os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    config = family.config | ({"model_type": "deepseek_v3"} if name == "kimi_k2" else {})      # a name that the library's tokenizer loader does not know
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f, indent=1)
    for file in TOKENIZER:
        shutil.copyfile(os.path.join(tokenizer, file), os.path.join(folder, file))


def quantiser(family):
    """A predicate for mlx_lm.convert: the model's own, but mxfp4 for the experts of a family that ships them so."""
    if not family.mxfp4:
        return None
    return lambda path, _: dict(group_size=32, bits=4, mode="mxfp4") if ".experts." in path else True


def mlx_folders(name, hub, out):
    """OUT/NAME with bf16, OUT/NAME/4bit; only config.json and model.safetensors, for the tokenizer is everyone's."""
    target = os.path.join(out, name)
    shutil.rmtree(target, ignore_errors=True)
    for part, options in (("", {}), ("4bit", dict(quantize=True, q_group_size=GROUP, q_bits=BITS, quant_predicate=quantiser(FAMILIES[name])))):
        made = os.path.join(hub, "made" + part)
        with contextlib.redirect_stdout(io.StringIO()):
            convert(hub, made, dtype="bfloat16", **options)
        folder = os.path.join(target, part)
        os.makedirs(folder, exist_ok=True)
        shutil.copyfile(os.path.join(made, "model.safetensors"), os.path.join(folder, "model.safetensors"))
        with open(os.path.join(made, "config.json"), encoding="utf-8") as f:
            config = json.load(f)
        config.pop("quantization_config", None)           # mlx_lm's second copy of `quantization`
        config["model_type"] = FAMILIES[name].config["model_type"]
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
            json.dump(config, f, indent=1)
            f.write("\n")
        os.chmod(os.path.join(folder, "model.safetensors"), 0o644)


def difference(name, model, out):
    """The greatest difference of logits between the library and mlx-lm, over 150 tokens of a lesson."""
    tok = school.make_tokenizer()
    ids = tok.encode(school.lesson(1, 200)).ids[:150]
    family = FAMILIES[name]
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor([ids]), attention_mask=nets.masks(family, model, len(ids), "cpu", windows=not family.both_windows), position_ids=torch.arange(len(ids))[None], use_cache=False).logits[0].float().numpy()
    ours, _ = load_model(Path(out, name))
    ours.set_dtype(mx.float32)
    got = ours(mx.array([ids]), cache=ours.make_cache() if hasattr(ours, "make_cache") else None)[0]
    return float(abs(theirs - got.tolist()).max())


def export(name, model, out):
    with tempfile.TemporaryDirectory() as folder:
        hub_folder(name, model, folder, out)
        mlx_folders(name, folder, out)
    for parameter in model.parameters():                  # what the checkpoint holds
        parameter.data = parameter.data.to(torch.bfloat16).float()
    return difference(name, model, out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--weights", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("families", nargs="*")
    a = ap.parse_args()
    school.save(a.out)
    bad = 0
    for name in a.families or FAMILIES:
        path = os.path.join(a.weights, name + ".safetensors")
        model = nets.load(nets.build(FAMILIES[name], 0), path) if os.path.exists(path) else sys.exit(f"{path}: no such file")
        delta = export(name, model, a.out)
        sizes = [os.path.getsize(os.path.join(a.out, name, part, "model.safetensors")) for part in ("", "4bit")]
        bad += delta > SAME
        print(f"{name:14} {sum(p.numel() for p in model.parameters()):7} parameters, {sizes[0]:7} + {sizes[1]:7} bytes, mlx-lm differs by {delta:.1e}{' TOO MUCH' if delta > SAME else ''}", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
