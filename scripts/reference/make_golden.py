"""make_golden.py OUT_DIR [--only REGEX]: write the parity goldens, tiny models with what mlx-lm makes of them.

For each case a folder: the checkpoint as mlx-lm saves it, and beside it
  golden.json         prompts and greedy continuations (token ids), and the noise that was measured
  golden.safetensors  `logits` (every prompt position), the leads of the greedy choices, and for bf16 `logits_native`
and over all of them `cases.json`. Outputs are computed on the CPU by the model as loaded back from the files. Where
the files hold bf16, `logits` and the tokens come from the model with its floating tensors widened to f32, which is what
our engine runs on a CPU; `logits_native` is what mlx-lm gives without that. The `native` tolerance is for an engine
that runs in bf16: twice the distance of mlx-lm's own native logits from `logits`, to be compared with `logits`.
"""
import argparse
import json
import math
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm import utils as lm
from mlx_lm.models.cache import make_prompt_cache

from golden_cases import CASES, EOS, VOCAB, Case, save

PROMPT = 24
GREEDY = 64
RAGGED = [1, 2, 3, 7, 13, 21, 32, 40]
RAGGED_GREEDY = 32
# A prompt is taken only if every greedy choice leads by this much (in logits), and the answer is no mere loop.
MIN_LEAD = 0.02
MIN_DISTINCT = 24
# Largest difference from `logits` that a correct f32 engine may show: other orders of summation. Its own distance from
# an f64 evaluation is checked to be a tenth of that or less.
TOLERANCE = 5e-4


def logits_of(model, tokens: list[int], cache=None) -> np.ndarray:
    """f32 logits at every position of `tokens`."""
    out = model(mx.array([tokens]), cache=cache)[0].astype(mx.float32)
    return np.array(out)


def greedy(model, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """`count` greedy tokens after `prompt`, through the cache, and by how much each led the runner-up."""
    cache = make_prompt_cache(model)
    tokens, leads, feed = [], [], prompt
    for _ in range(count):
        last = logits_of(model, feed, cache)[-1]
        second, first = np.sort(last)[-2:]
        feed = [int(last.argmax())]
        tokens += feed
        leads.append(float(first - second))
    return tokens, leads


def draw_prompts(model) -> tuple[int, dict]:
    """The first seed whose prompts have clear greedy answers, with those prompts and answers."""
    for seed in range(10000):
        rng = np.random.default_rng(seed)
        prompts = [rng.integers(EOS + 1, VOCAB, length).tolist() for length in (PROMPT, *RAGGED)]
        runs = []
        for number, prompt in enumerate(prompts):
            tokens, leads = greedy(model, prompt, RAGGED_GREEDY if number else GREEDY)
            runs.append(dict(prompt=prompt, greedy=tokens, leads=leads))
            if min(leads) < MIN_LEAD or (number == 0 and len(set(tokens)) < MIN_DISTINCT):
                break
        else:
            return seed, dict(main=runs[0], ragged=runs[1:])
    raise SystemExit("no seed gives clear greedy answers")


def rounding(model, tokens: list[int], logits: np.ndarray) -> float:
    """How far the f32 logits lie from the same model's in f64, its matrices dequantised. This spoils `model`."""
    lm.dequantize_model(model).set_dtype(mx.float64)
    exact = np.array(model(mx.array([tokens]))[0])
    assert exact.dtype == np.float64
    return float(np.abs(exact - logits).max())


def make_case(case: Case, out: Path) -> dict:
    """Write one case, and return its entry for cases.json."""
    folder = out / case.name
    shutil.rmtree(folder, ignore_errors=True)
    save(case, folder)
    arrays, measured = {}, {}
    model, _ = lm.load_model(folder)
    model.set_dtype(mx.float32)
    seed, runs = draw_prompts(model)
    main, ragged = runs["main"], runs["ragged"]
    logits = logits_of(model, main["prompt"])
    if case.dtype != "float32":
        native = logits_of(lm.load_model(folder)[0], main["prompt"])
        arrays["logits_native"] = mx.array(native).astype(getattr(mx, case.dtype))
        measured["native_max"] = float(np.abs(native - logits).max())
        measured["native_mean"] = float(np.abs(native - logits).mean())
        measured["native_argmax_equal"] = float((native.argmax(-1) == logits.argmax(-1)).mean())
    measured["f32_rounding"] = rounding(model, main["prompt"], logits)
    assert measured["f32_rounding"] < TOLERANCE / 10, measured
    arrays |= {
        "logits": mx.array(logits),
        "greedy_leads": mx.array(main.pop("leads")),
        "ragged_leads": mx.array([run.pop("leads") for run in ragged]),
    }
    mx.save_safetensors(str(folder / "golden.safetensors"), arrays)
    leads = [float(arrays[name].min()) for name in ("greedy_leads", "ragged_leads")]
    summary = dict(prompt_seed=seed, min_lead=round(min(leads), 5), logit_max=round(float(np.abs(logits).max()), 2),
                   logit_std=round(float(logits.std()), 2), distinct=len(set(main["greedy"])))
    measured = {name: float(f"{value:.3g}") for name, value in measured.items()}
    golden = dict(**main, ragged=ragged, summary=summary, measured=measured)
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    entry = dict(
        name=case.name, model_type=case.family.split("3-")[0], dtype=case.dtype, bits=case.bits,
        group_size=case.group if case.bits else None, mixed=bool(case.overrides), shards=case.shards,
        tolerance=dict(logits=TOLERANCE), **summary,
    )
    if case.dtype != "float32":
        entry["tolerance"]["native"] = math.ceil(20 * measured["native_max"]) / 10
    bytes_written = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{case.name:22} {bytes_written:8} bytes  {summary}  {measured}", flush=True)
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="make only cases whose name matches, and leave cases.json alone")
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)
    entries = [make_case(case, args.out) for case in CASES if re.search(args.only, case.name)]
    if not args.only:
        made_with = {package: version(package) for package in ("mlx", "mlx-lm", "numpy")}
        table = dict(made_with=made_with, cases=entries)
        (args.out / "cases.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
