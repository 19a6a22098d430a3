"""make_pooled_golden.py GOLDEN_DIR: what mlx-lm's hidden states come to when they are pooled, beside the parity goldens.

For some of the cases that make_golden.py wrote, a `pooled.json` in their folder: of each ragged prompt the first and the last
token's hidden state behind the last norm and the mean of all, and the logits of two tokens behind it. Floating tensors are
widened to f32, as there.
"""
import json
import sys
from pathlib import Path

import mlx.core as mx
from mlx_lm import utils as lm

CASES = ["llama-f32", "qwen2-q4", "qwen3-f32", "qwen3-q8"]
TOKENS = [7, 11]


def main(root: Path) -> None:
    for case in CASES:
        folder = root / case
        prompts = [ragged["prompt"] for ragged in json.loads((folder / "golden.json").read_text())["ragged"]]
        model, _ = lm.load_model(folder)
        model.set_dtype(mx.float32)
        rows = []
        for prompt in prompts:
            tokens = mx.array([prompt])
            hidden = model.model(tokens)[0].astype(mx.float32)
            logits = model(tokens)[0, -1].astype(mx.float32)
            values = {"first": hidden[0], "last": hidden[-1], "mean": hidden.mean(axis=0), "logits": logits[mx.array(TOKENS)]}
            rows.append({"prompt": prompt} | {name: [round(x, 6) for x in value.tolist()] for name, value in values.items()})
        text = json.dumps({"tokens": TOKENS, "rows": rows}, separators=(",", ":"))
        (folder / "pooled.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
