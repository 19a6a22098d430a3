"""Turns samples into training rows: several dialogues side by side in one row, each blind to the others."""
import multiprocessing
import os

import numpy as np
from tokenizers import Tokenizer

from corpus import samples

ROW = 4096


def _encode(job):
    """One worker's share: token ids, and where each reply begins."""
    seed, n, path = job
    tok = Tokenizer.from_file(path)
    kinds, ids, begins = [], [], []
    batch = []

    def flush():
        for s, p, a in zip(batch, tok.encode_batch([s.prompt for s in batch]), tok.encode_batch([s.reply for s in batch])):
            if len(p.ids) + len(a.ids) <= ROW:
                kinds.append(s.kind)
                ids.append(np.array(p.ids + a.ids, np.int16))
                begins.append(len(p.ids))
        batch.clear()

    for s in samples(seed, n):
        batch.append(s)
        if len(batch) == 512:
            flush()
    flush()
    return kinds, ids, begins


def dialogues(tokenizer_file, n, seed, workers=None):
    """(kinds, ids, begins) of n dialogues. The seed of each share is fixed, so the corpus does not depend on `workers`."""
    share = 4000
    jobs = [(seed * 100003 + i, min(share, n - i * share), tokenizer_file) for i in range(-(-n // share))]
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with multiprocessing.get_context("spawn").Pool(workers or os.cpu_count()) as pool:
        parts = pool.map(_encode, jobs, chunksize=1)
    return [sum((list(p[i]) for p in parts), []) for i in range(3)]


class Rows:
    """Dialogues packed into rows: `ids`, `doc` (which dialogue a token is of) and `learn` (places whose next token counts)."""

    def __init__(self, ids, begins, seed=0):
        order = np.random.default_rng(seed).permutation(len(ids))
        rows, room = [[]], ROW
        for i in order:
            if len(ids[i]) > room:
                rows.append([])
                room = ROW
            rows[-1].append(i)
            room -= len(ids[i])
        self.members = rows
        self.ids = np.zeros((len(rows), ROW), np.int16)
        self.doc = np.full((len(rows), ROW), -1, np.int32)
        self.learn, self.target = [], []
        for y, row in enumerate(rows):
            x, places, targets = 0, [], []
            for i in row:
                n = len(ids[i])
                self.ids[y, x:x + n] = ids[i]
                self.doc[y, x:x + n] = i
                places.append(np.arange(x + begins[i] - 1, x + n - 1))
                targets.append(ids[i][begins[i]:])
                x += n
            self.learn.append(np.concatenate(places).astype(np.int64))
            self.target.append(np.concatenate(targets).astype(np.int64))

    def __len__(self):
        return len(self.ids)

    def batch(self, rows, places):
        """ids, doc, flat places and targets of these rows; places are filled up to a fixed number with target -100."""
        where = np.zeros(places, np.int64)
        target = np.full(places, -100, np.int64)
        w = np.concatenate([self.learn[y] + i * ROW for i, y in enumerate(rows)])[:places]
        t = np.concatenate([self.target[y] for y in rows])[:places]
        where[:len(w)], target[:len(t)] = w, t
        return self.ids[rows].astype(np.int64), self.doc[rows], where, target
