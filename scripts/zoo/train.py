"""Trains the zoo: every family by its reference implementation (transformers), on one GPU, until its probes are right.

    python train.py --out DIR [--minutes 9] [--workers 4] [FAMILY ...]

Each network's whole step (weights, forward, backward, Adam) is one CUDA graph; a worker process replays the graphs of
several families on streams of their own, because networks this small leave most of the GPU idle. Every second step sees the
weights in their 4-bit form, the others in bf16, so both forms of a checkpoint are trained. When unseen questions are
answered, the learning rate falls to zero over the last steps, and the weights are written as DIR/FAMILY.safetensors.
"""
import argparse
import json
import multiprocessing
import os
import re
import sys
import time
import traceback

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import nets
import quant
import school
from families import FAMILIES, LENGTH

ROWS = 64                      # conversations a step
PEAK, WARMUP = 3e-3, 200       # Adam's step at its greatest; steps until then
BETAS, EPS, DECAY, CLIP = (0.9, 0.98), 1e-9, 0.02, 1.0
QUANT_FROM = 600               # step from which every second one sees 4-bit weights
LAST = 1200                    # steps over which the learning rate falls to zero
CHUNK = 20                     # steps queued at a time
EVERY = 10                     # chunks between examinations
PASS = 0.985                   # share of unseen questions answered, in both forms, that begins the last steps
EXAM = 512                     # unseen questions, the candidates for probes among them
EXAM_LENGTH = 96
PLAIN = re.compile(r"conv1d|conv\.conv|router|mlp\.gate\.|shared_expert_gate|bias|A_log|sinks")      # never in 4 bits
SHIFTED = re.compile(r"layernorm\.weight|\.norm\.weight|[qk]_norm\.weight")                             # mlx-lm adds 1 to these of qwen3_next and qwen3_5, then rounds


# --- data ---------------------------------------------------------------------------------------------------------------

def encoded(texts, length, tok):
    """(tokens, targets) of shape (n, length): targets are what the assistant says, up to and with its end mark; -1 elsewhere."""
    pad, start, end = (tok.token_to_id(s) for s in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    head = tok.encode("<|im_start|>assistant\n").ids
    ids = np.full((len(texts), length + 1), pad, np.int16)
    for row, e in zip(ids, tok.encode_batch(texts)):
        row[:min(length + 1, len(e.ids))] = e.ids[:length + 1]
    at = np.arange(length + 1)
    begins = np.zeros(ids.shape, bool)
    hit = np.all([ids[:, k:length + 2 - len(head) + k] == t for k, t in enumerate(head)], 0)
    begins[:, len(head) - 1:] = hit                       # on the last token of the head
    last = np.maximum.accumulate(np.where(begins, at, -1), 1)
    stop = np.maximum.accumulate(np.where(ids == end, at, -1), 1)
    speaks = (last >= 0) & (last > stop)                  # token t is inside a reply's reach: t + 1 is to be learnt
    return ids[:, :-1], np.where(speaks[:, :-1], ids[:, 1:], -1).astype(np.int16)


def lessons(job):
    first, count = job
    return encoded([school.lesson(s, LENGTH) for s in range(first, first + count)], LENGTH, school.make_tokenizer())


def exam_questions():
    import random
    rng = random.Random(77)
    out = [(c["prompt"], c["answer"]) for c in school.candidates()]
    while len(out) < EXAM:
        out.append(school.turn(rng))
    return out


# --- one network --------------------------------------------------------------------------------------------------------

class Flat:
    """All parameters of a network in one array, 4-bit ones first, so that quantising and Adam are a few kernels in all."""

    def __init__(self, family, model, device):
        self.spots, parts = [], [[], [], [], []]
        shifted = family.library in ("Qwen3Next", "Qwen3_5", "Qwen3_5Moe")
        for name, p in model.named_parameters():
            turned = any(name.endswith(m) for m in family.mxfp4)
            rows = p.shape[1] if turned else p.shape[-1]
            if p.ndim < 2 or rows % quant.GROUP or PLAIN.search(name):
                kind = 3 if shifted and "linear_attn" not in name and SHIFTED.search(name) else 2
            else:
                kind = 1 if turned else 0
            parts[kind].append((name, p, turned))
        self.ends, at = [], 0
        values = []
        for part in parts:
            for name, p, turned in part:
                value = p.data.transpose(1, 2) if turned else p.data
                values.append(value.reshape(-1))
                self.spots.append((name, p, at, value.shape, turned))
                at += value.numel()
            self.ends.append(at)
        self.master = torch.cat(values).to(device)
        self.shown, self.grad = torch.empty_like(self.master), torch.zeros_like(self.master)
        for _, p, at, shape, turned in self.spots:
            view = lambda flat: flat[at:at + shape.numel()].view(shape).transpose(1, 2) if turned else flat[at:at + shape.numel()].view(shape)
            p.data, p.grad = view(self.shown), view(self.grad)
        self.m, self.v = torch.zeros_like(self.master), torch.zeros_like(self.master)
        self.step = torch.zeros((), device=device)
        self.end = torch.full((), 1e9, device=device)

    def show(self, four_bit):
        """Puts the weights where the network sees them; `four_bit` is 0 or 1, a tensor."""
        a, b, _, d = *self.ends[:2], None, self.ends[3]
        c = self.ends[2]
        w = quant.bf16(self.master)
        self.shown.copy_(w)
        for low, high, form in ((0, a, quant.affine), (a, b, quant.mxfp4)):
            if high > low:
                x = w[low:high].view(-1, quant.GROUP)
                self.shown[low:high] = torch.lerp(x, form(x), four_bit).view(-1)
        if d > c:
            self.shown[c:d] = quant.bf16(1 + self.master[c:d]) - 1

    def update(self):
        self.step += 1
        norm = self.grad.norm()
        g = self.grad * (CLIP / norm.clamp(min=CLIP))
        g = torch.where(torch.isfinite(norm), g, torch.zeros_like(g))
        lr = PEAK * (self.step / WARMUP).clamp(max=1) * ((self.end - self.step) / LAST).clamp(0, 1)
        self.m.lerp_(g, 1 - BETAS[0])
        self.v.lerp_(g * g, 1 - BETAS[1])
        m, v = self.m / (1 - BETAS[0] ** self.step), self.v / (1 - BETAS[1] ** self.step)
        quantised = self.ends[1]
        self.master[:quantised].mul_(1 - lr * DECAY)
        self.master.sub_(lr * m / (v.sqrt() + EPS))


class Trainer:
    def __init__(self, name, pool, exam, device, start=None):
        self.name, self.device = name, device
        kind, _, seed = name.partition(".")
        self.family = FAMILIES[kind]
        self.model = nets.build(self.family, int(seed or 0))
        begun = start is not None and os.path.exists(os.path.join(start, kind + ".safetensors"))
        if begun:
            nets.load(self.model, os.path.join(start, kind + ".safetensors"))
        self.model.to(device)
        self.flat = Flat(self.family, self.model, device)
        self.pool, self.exam = pool, exam
        self.stream = torch.cuda.Stream() if device != "cpu" else None
        self.masks = [[nets.masks(self.family, self.model, n, device, windows) for windows in (True, False)] for n in (LENGTH, EXAM_LENGTH)]
        self.rows = torch.arange(ROWS, device=device)
        self.first = school.EARLY if begun else 0
        self.loss = torch.zeros((), device=device)
        self.right = torch.zeros(2, 2 if self.family.both_windows else 1, EXAM, dtype=torch.bool, device=device)
        self.steps, self.chunks, self.ending, self.finish = 0, 0, False, None
        self.log, self.done, self.scores = [], False, (0, 0)

    def logits(self, tokens, mask):
        at = torch.arange(tokens.shape[1], device=self.device)[None]
        return self.model(input_ids=tokens, attention_mask=mask, position_ids=at, use_cache=False).logits

    def one_step(self, windows=True):
        f = self.flat
        f.show(((f.step >= QUANT_FROM) & (f.step % 2 == 1)).float())
        at = f.step.long() * ROWS + self.rows + self.first
        many = len(self.pool[0])
        at = torch.where(at < many, at, school.EARLY + (at - many) % (many - school.EARLY))
        tokens, targets = self.pool[0][at].long(), self.pool[1][at].long()
        logits = self.logits(tokens, self.masks[0][0 if windows else 1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-1)
        f.grad.zero_()
        loss.backward()
        f.update()
        self.loss.copy_(loss.detach())

    @torch.no_grad()
    def one_exam(self):
        for form in (0, 1):
            self.flat.show(torch.full((), float(form), device=self.device))
            for k in range(self.right.shape[1]):
                best = self.logits(self.exam[0], self.masks[1][k]).argmax(-1)
                self.right[form, k] = ((best == self.exam[1]) | (self.exam[1] < 0)).all(-1)

    def capture(self):
        """Graphs of a step, of a step without windows where both are trained, and of an examination."""
        self.graphs = []
        with torch.cuda.stream(self.stream):
            for work in (self.one_step, lambda: self.one_step(False), self.one_exam) if self.family.both_windows else (self.one_step, self.one_exam):
                for _ in range(2):
                    work()
                self.stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                    work()
                self.graphs.append(graph)
        self.stream.synchronize()

    def enqueue(self):
        """Queues a chunk; every so often an examination with it."""
        with torch.cuda.stream(self.stream):
            for k in range(CHUNK):
                self.graphs[k // 2 % 2 if self.family.both_windows else 0].replay()
            self.steps += CHUNK
            self.chunks += 1
            self.due = self.chunks % EVERY == 0 or (self.finish is not None and self.steps >= self.finish)
            if self.due:
                self.graphs[-1].replay()
                self.result = self.right.to("cpu", non_blocking=True), self.loss.to("cpu", non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record(self.stream)

    def settle(self, clock, closing):
        """Reads a finished chunk's examination, and decides whether to begin or to end the last steps."""
        if closing and self.finish is None:
            self.wind_down()
        if not self.due:
            return
        right, loss = self.result
        share = right.float().mean(-1).min(-1).values.tolist()
        self.scores = share
        self.log.append(f"{clock:5.0f} s {self.name:14} step {self.steps:6} loss {float(loss):.4f} bf16 {share[0]:.3f} 4-bit {share[1]:.3f}" + (" ending" if self.finish else ""))
        if self.finish is None and min(share) >= PASS:
            self.wind_down()
        if self.finish is not None and self.steps >= self.finish:
            self.done = True

    def wind_down(self):
        self.finish = self.steps + LAST
        with torch.cuda.stream(self.stream):
            self.flat.end.fill_(float(self.finish))

    def save(self, folder):
        with torch.no_grad():
            self.flat.show(torch.zeros((), device=self.device))
        tied = set(getattr(self.model, "_tied_weights_keys", None) or [])
        state = {k: v.detach().to("cpu").to(torch.bfloat16).contiguous() for k, v in self.model.state_dict().items()}
        if self.model.config.tie_word_embeddings:
            state = {k: v for k, v in state.items() if k not in tied}
        save_file(state, os.path.join(folder, self.name + ".safetensors"))
        right = self.right.all(1).cpu()
        with open(os.path.join(folder, self.name + ".json"), "w") as f:
            json.dump(dict(name=self.name, steps=self.steps, scores=self.scores, right=["".join("01"[int(x)] for x in form[:len(school.candidates())]) for form in right]), f)


# --- workers ------------------------------------------------------------------------------------------------------------

def worker(names, a, began):
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.set_num_threads(1)
    pool = [torch.from_numpy(np.load(os.path.join(a.work, f"{part}.npy"))).to("cuda") for part in ("tokens", "targets")]
    exam = [torch.from_numpy(x).to("cuda").long() for x in encoded([school.asked(q) + r + "<|im_end|>\n" for q, r in exam_questions()], EXAM_LENGTH, school.make_tokenizer())]
    running, started = [], []

    def turn(wait):
        for t in list(running):
            if not t.event.query():
                continue
            clock = time.time() - began
            t.settle(clock, clock > a.minutes * 60 - a.closing)
            for line in t.log:
                print(line, flush=True)
            t.log.clear()
            if a.give_up and clock > a.give_up and not any(x.done or x.finish or x.scores[0] > 0.93 for x in started):
                print(f"{clock:5.0f} s none of this worker's families learns the task: stopped", flush=True)
                a.minutes = 0
            if t.done or clock > a.minutes * 60:
                t.stream.synchronize()
                t.save(a.out)
                print(f"{clock:5.0f} s {t.name:14} {'done' if t.done else 'STOPPED'} after {t.steps} steps: bf16 {t.scores[0]:.3f} 4-bit {t.scores[1]:.3f}", flush=True)
                running.remove(t)
            else:
                t.enqueue()
        if wait:
            time.sleep(0.0005)

    for name in names:
        try:
            t = Trainer(name, pool, exam, "cuda", a.start)
            t.capture()
            t.enqueue()
            running.append(t)
            started.append(t)
            print(f"{time.time() - began:5.0f} s {name:14} captured", flush=True)
        except Exception:
            print(f"{name} FAILED\n{traceback.format_exc(limit=-6)}", flush=True)
        turn(False)
    while running:
        turn(True)


def make_data(a):
    os.makedirs(a.work, exist_ok=True)
    size = 2000
    with multiprocessing.Pool() as pool:
        made = pool.map(lessons, [(k * size, size) for k in range(a.rows // size)])
    for part, name in enumerate(("tokens", "targets")):
        np.save(os.path.join(a.work, name + ".npy"), np.concatenate([m[part] for m in made]))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--work", default="/tmp/zoo-lessons")
    ap.add_argument("--minutes", type=float, default=9)
    ap.add_argument("--closing", type=float, default=60, help="seconds before the end at which those not done begin their last steps")
    ap.add_argument("--give-up", type=float, default=0, help="seconds after which a worker stops if none of its families has nearly learnt the task; 0 for never")
    ap.add_argument("--workers", type=int, default=4)
    ap.add_argument("--rows", type=int, default=300000, help="conversations in the pool")
    ap.add_argument("--start", help="folder of FAMILY.safetensors to begin from, where a family has one there")
    ap.add_argument("families", nargs="*", help="FAMILY, or FAMILY.SEED for another beginning")
    a = ap.parse_args()
    began = time.time()
    names = a.families or list(FAMILIES)
    os.makedirs(a.out, exist_ok=True)
    make_data(a)
    print(f"{time.time() - began:5.0f} s {a.rows} conversations, {torch.__version__}, {torch.cuda.get_device_name()}", flush=True)
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    context = multiprocessing.get_context("spawn")
    crew = [context.Process(target=worker, args=(names[k::a.workers], a, began)) for k in range(min(a.workers, len(names)))]
    for p in crew:
        p.start()
    for p in crew:
        p.join()
    sys.exit(any(p.exitcode for p in crew))


if __name__ == "__main__":
    main()
