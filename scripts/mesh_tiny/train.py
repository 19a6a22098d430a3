"""Trains mesh-tiny: from nothing to float weights that are right in their 4-bit form.

    python train.py --out work            on a GPU, some minutes
    python train.py --out work --device cpu --dialogues 2000 --steps 30   (to see that it runs)

Writes work/weights.safetensors (f32 masters), work/tokenizer.json and work/report.json.
"""
import argparse
import collections
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.nn.attention.flex_attention import create_block_mask

import tokenizer as tk
from corpus import samples
from data import ROW, Rows, dialogues
from model import Qwen3, Shape
from story import STORY


def masker(device, batch, flex):
    """A function from `doc` (which dialogue each token is of) to the mask that keeps dialogues apart, and causal."""
    doc = torch.zeros(batch, ROW, dtype=torch.int32, device=device)
    if not flex:
        causal = torch.ones(ROW, ROW, dtype=torch.bool, device=device).tril()
        return lambda new: ((new[:, :, None] == new[:, None, :]) & causal)[:, None]

    def same(b, h, q, k):
        return (q >= k) & (doc[b, q] == doc[b, k])

    def blocks(new):
        doc.copy_(new)
        return create_block_mask(same, batch, None, ROW, ROW, device=device, _compile=True)
    return blocks


def examine(forward, mask, rows, names, batch, places, device, tok):
    """Exact replies by kind on dialogues that were not trained on (each token predicted from the right ones before it)."""
    bad, first = set(), {}
    for at in range(0, len(rows) - batch + 1, batch):
        picked = list(range(at, at + batch))
        ids, doc, where, target = (torch.from_numpy(x).to(device) for x in rows.batch(picked, places))
        with torch.no_grad():
            said = forward(ids, mask(doc), torch.ones((), device=device), where).argmax(-1)
        wrong = ((said != target) & (target >= 0)).nonzero()[:, 0]
        for w in wrong.tolist():
            d = int(doc.view(-1)[where[w]])
            if d not in bad:
                bad.add(d)
                at_ = int(where[w])
                flat = ids.view(-1)
                first[d] = [tok.decode(flat[max(0, at_ - 40):at_ + 1].tolist(), skip_special_tokens=False), tok.decode([int(said[w])]), tok.decode([int(target[w])])]
    done = [d for row in rows.members[:len(rows) // batch * batch] for d in row]
    total, right = collections.Counter(names[d] for d in done), collections.Counter(names[d] for d in done if d not in bad)
    misses = collections.defaultdict(list)
    for d in bad:
        misses[names[d]].append(first[d])
    return {k: [right[k], total[k]] for k in sorted(total)}, {k: v[:12] for k, v in misses.items()}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    ap.add_argument("--dialogues", type=int, default=640000)
    ap.add_argument("--steps", type=int, default=19000)
    ap.add_argument("--minutes", type=float, default=1e9, help="end by this time even when steps are left")
    ap.add_argument("--rows", type=int, default=16, help="rows of 4096 tokens in a step")
    ap.add_argument("--rate", type=float, default=3e-3)
    ap.add_argument("--start", help="weights to go on from")
    ap.add_argument("--quantise-from", type=float, default=0.25, help="part of the training after which weights are seen as 4-bit")
    ap.add_argument("--no-flex", action="store_true", help="keep dialogues apart with a table instead of flex attention (slower)")
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    began, gpu = time.time(), a.device != "cpu"
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")

    tok_file = os.path.join(a.out, "tokenizer.json")
    tok = tk.train([s.prompt + s.reply for s in samples(7, 20000)] + [STORY] * 20)
    tok.save(tok_file)
    shape = Shape(compute=torch.bfloat16 if gpu else torch.float32)
    assert tok.get_vocab_size() == shape.vocab
    kinds, ids, begins = dialogues(tok_file, a.dialogues, a.seed)
    rows = Rows(ids, begins)
    test_kinds, test_ids, test_begins = dialogues(tok_file, max(1000, a.dialogues // 50), 999)
    test = Rows(test_ids, test_begins)
    print(f"{len(ids)} dialogues, {sum(map(len, ids)) / 1e6:.1f} M tokens, {len(rows)} rows, after {time.time() - began:.0f} s", flush=True)

    model = Qwen3(shape).to(a.device)
    if a.start:
        model.load_state_dict(load_file(a.start, device=a.device))
    forward = torch.compile(model, dynamic=False) if gpu else model
    mask = masker(a.device, a.rows, gpu and not a.no_flex)
    places = a.rows * ROW // 4
    matrices = [p for p in model.parameters() if p.ndim == 2]
    norms = [p for p in model.parameters() if p.ndim != 2]
    opt = torch.optim.AdamW([dict(params=matrices, weight_decay=0.05), dict(params=norms, weight_decay=0.0)], lr=a.rate, betas=(0.9, 0.98), eps=1e-9, fused=gpu)

    rng = np.random.default_rng(a.seed)
    queue, trained, loss_sum, t0 = np.empty(0, np.int64), 0, torch.zeros((), device=a.device), time.time()
    amount, step, lowest = torch.zeros((), device=a.device), 0, 0.004
    while True:
        done = step / a.steps
        if done >= 1 or time.time() - began > 60 * a.minutes:
            break
        rate = a.rate * min(1, (step + 1) / 200) * max(lowest, 0.5 + 0.5 * math.cos(math.pi * done))
        for g in opt.param_groups:
            g["lr"] = rate
        amount.fill_(1.0 if done >= a.quantise_from else 0.0)
        if len(queue) < a.rows:
            queue = np.concatenate([queue, rng.permutation(len(rows))])
        picked, queue = queue[:a.rows], queue[a.rows:]
        x, doc, where, target = (torch.from_numpy(v).to(a.device, non_blocking=True) for v in rows.batch(picked, places))
        logits = forward(x, mask(doc), amount, where)
        loss = F.cross_entropy(logits, target, ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        loss_sum += loss.detach()
        step += 1
        every = 250 if gpu else 5
        if step % every == 0:
            now = time.time()
            print(f"step {step} done {done:.3f} loss {loss_sum.item() / every:.5f} rate {rate:.2e} {every * a.rows * ROW / (now - t0) / 1e3:.0f} k tokens/s, {now - began:.0f} s", flush=True)
            loss_sum.zero_()
            t0 = now
    seconds = time.time() - began
    save_file({k: v.detach().float().cpu().contiguous() for k, v in model.state_dict().items()}, os.path.join(a.out, "weights.safetensors"))
    marks, misses = examine(forward, mask, test, test_kinds, a.rows, places, a.device, tok)
    for k, (r, t) in marks.items():
        print(f"{k:24} {r:6} of {t:6} {100 * r / max(t, 1):6.2f} %")
    right, total = (sum(v[i] for v in marks.values()) for i in (0, 1))
    print(f"all {right} of {total}, {100 * right / max(total, 1):.3f} %; {step} steps, {seconds:.0f} s")
    report = dict(parameters=sum(p.numel() for p in model.parameters()), steps=step, seconds=round(seconds), dialogues=len(ids), exact=marks, misses=misses, device=torch.cuda.get_device_name() if gpu else "cpu")
    with open(os.path.join(a.out, "report.json"), "w", encoding="utf-8") as f:
        json.dump(report, f, indent=1, ensure_ascii=False)


if __name__ == "__main__":
    main()
