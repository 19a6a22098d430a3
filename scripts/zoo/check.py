"""Asks every model of the zoo its probes in mlx-lm, greedily, bf16 and 4-bit, and prints a table.

    python check.py [--zoo ../../models/zoo] [--all] [FAMILY ...]

Exits with 1 where an answer is wrong. `--all` asks the candidates that school.py makes instead of the chosen probes.
"""
import argparse
import json
import os
import sys
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model
from tokenizers import Tokenizer

import school
from families import FAMILIES

MOST = 16                     # tokens of an answer
FORMS = ("", "4bit")
GATHER = mx.gather_qmm


def gather_qmm(*args, global_scale=None, **more):
    """mlx-lm 0.32.2 passes an argument that mlx 0.32.2 does not have, so none of its 4-bit experts run; it is None here."""
    assert global_scale is None
    return GATHER(*args, **more)


mx.gather_qmm = gather_qmm


def answers(folder, tok, questions, dtype=None):
    """What the model says to each question, its end mark left off (or `...` where it does not stop)."""
    model, _ = load_model(Path(folder))
    if dtype is not None:
        model.set_dtype(dtype)
    end = tok.token_to_id("<|im_end|>")
    out = []
    for q in questions:
        said = []
        for token, _ in generate_step(mx.array(tok.encode(school.asked(q)).ids), model, max_tokens=MOST, sampler=lambda x: mx.argmax(x, axis=-1)):
            if token == end:
                break
            said.append(token)
        else:
            said.append(None)
        out.append(tok.decode([t for t in said if t is not None]) + ("..." if None in said else ""))
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--zoo", default=os.path.join(school.HERE, "../../models/zoo"))
    ap.add_argument("--all", action="store_true")
    ap.add_argument("--as-stored", action="store_true", help="compute in bf16 (MLX's CPU has no bf16 for experts), not the stored weights in f32")
    ap.add_argument("--json", help="write what was right here")
    ap.add_argument("families", nargs="*")
    a = ap.parse_args()
    tok = Tokenizer.from_file(os.path.join(a.zoo, "tokenizer.json"))
    if a.all:
        probes = school.candidates()
    else:
        with open(os.path.join(a.zoo, "probes.json"), encoding="utf-8") as f:
            probes = json.load(f)["probes"]
    bad, table = 0, {}
    print(f"{'family':14} {'bf16':>7} {'4-bit':>7}")
    for name in a.families or FAMILIES:
        rows = []
        for form in FORMS:
            said = answers(os.path.join(a.zoo, name, form), tok, [p["prompt"] for p in probes], None if a.as_stored else mx.float32)
            rows.append([s == p["answer"] for s, p in zip(said, probes)])
            for s, p in zip(said, probes):
                if s != p["answer"]:
                    print(f"    {name} {form or 'bf16'} {p['id']}: {p['prompt']} -> {s!r}, not {p['answer']!r}")
        bad += not all(map(all, rows))
        table[name] = {form or "bf16": [p["id"] for p, ok in zip(probes, row) if ok] for form, row in zip(FORMS, rows)}
        print(f"{name:14} {sum(rows[0]):3}/{len(probes)} {sum(rows[1]):3}/{len(probes)}", flush=True)
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(table, f, indent=1)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
