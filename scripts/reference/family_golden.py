"""family_golden.py OUT_DIR [FAMILY ...]: write the families' goldens: tiny random models, and what mlx-lm makes of them.

Each file in families/ is one family: a list `CASES` of `Case`s. For each case two files in OUT_DIR/FAMILY/:
  CASE.json         the config, how each tensor is drawn (see draw.py), prompts and greedy continuations
  CASE.safetensors  `logits` [every second prompt position, vocabulary]
No weights are stored: whoever reads these files draws them anew, number for number.

Outputs are computed on the CPU by the model as mlx-lm loads it from files. Where these hold bf16, `logits` and tokens come
from the model widened to f32, and `measured.native_max` says how far the bf16 model's logits lie from these.
"""
import argparse
import importlib
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm import utils as lm
from mlx_lm.models.cache import make_prompt_cache

from draw import Case, draw, plan

PROMPT = 24
GREEDY = 64
RAGGED = [1, 2, 3, 7, 13, 21, 32, 40]
RAGGED_GREEDY = 32
# A prompt is taken only if every greedy choice leads by this much (in logits), and the answer is no mere loop.
MIN_LEAD = 0.02
MIN_DISTINCT = 12
# First token of a prompt: those before it are BOS and EOS.
FIRST = 2


def skeleton(case: Case):
    """mlx-lm's model of a case as it constructs it, and its config with the `quantization` block."""
    config = json.loads(json.dumps(case.config))
    classes = lm._get_classes(config)
    model = classes[0](classes[1].from_dict(config))
    if case.quant:
        how = dict(group_size=None, bits=None) | case.quant
        overrides = how.pop("overrides", None)
        choose = (lambda path, module: overrides.get(path, True)) if overrides else None
        model, config = lm.quantize_model(model, config, how.pop("group_size"), how.pop("bits"), quant_predicate=choose, **how)
        config["quantization"].update({path: False for path, it in (overrides or {}).items() if it is False})
        config.pop("quantization_config")
    return model, config


def load(case: Case, config: dict, tensors: list, folder: Path):
    """The case as mlx-lm loads it from files."""
    arrays = {entry[0]: draw(entry) for entry in tensors}
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    return lm.load_model(folder)[0]


def logits_of(model, tokens: list[int], cache=None) -> np.ndarray:
    """f32 logits at every position of `tokens`."""
    return np.array(model(mx.array([tokens]), cache=cache)[0].astype(mx.float32))


def greedy(model, prompt: list[int], count: int) -> tuple[list[int], float]:
    """`count` greedy tokens after `prompt`, through the cache, and the least lead of any of them; less if it is too small."""
    cache = make_prompt_cache(model)
    tokens, least, feed = [], float("inf"), prompt
    while len(tokens) < count:
        last = logits_of(model, feed, cache)[-1]
        second, first = np.sort(last)[-2:]
        least = min(least, float(first - second))
        # Not clear, or already going round.
        if least < MIN_LEAD or len(tokens) > 24 > 4 * len(set(tokens)):
            break
        feed = [int(last.argmax())]
        tokens += feed
    return tokens, least


def clear_run(model, vocab: int, number: int, length: int, count: int) -> tuple[dict, float]:
    """A prompt of `length` whose greedy answer is clear."""
    for attempt in range(1000):
        rng = np.random.default_rng([number, attempt])
        prompt = rng.integers(FIRST, vocab, length).tolist()
        tokens, least = greedy(model, prompt, count)
        if len(tokens) == count and (count < GREEDY or len(set(tokens)) >= MIN_DISTINCT):
            return dict(prompt=prompt, greedy=tokens), least
    raise SystemExit(f"no prompt of {length} tokens has a clear greedy answer")


def make(family: str, case: Case, out: Path) -> None:
    model, config = skeleton(case)
    tensors = plan(case, model)
    if case.packed_as:
        config.pop("quantization")
        config["quantization_config"] = case.packed_as
    vocab = case.vocab
    with tempfile.TemporaryDirectory() as folder:
        model = load(case, config, tensors, Path(folder))
        native = model
        if case.dtype != "float32" and case.native:
            native = lm.load_model(Path(folder))[0]
        model.set_dtype(mx.float32)
        runs = [clear_run(model, vocab, 0, PROMPT, GREEDY)]
        runs += [clear_run(model, vocab, 1 + i, length, RAGGED_GREEDY) for i, length in enumerate(RAGGED)]
        main = runs[0][0]
        logits = logits_of(model, main["prompt"])
        measured = dict(min_lead=min(least for _, least in runs), logit_max=float(np.abs(logits).max()),
                        logit_std=float(logits.std()), distinct=len(set(main["greedy"])))
        if case.dtype != "float32" and case.native:
            measured["native_max"] = float(np.abs(logits_of(native, main["prompt"]) - logits).max())
    golden = dict(
        family=family, case=case.name, dtype=case.dtype, unstack=case.unstack, made_with=f"mlx-lm {version('mlx-lm')}",
        config=config, tensors=tensors, **main, ragged=[run for run, _ in runs[1:]],
        measured={name: float(f"{value:.3g}") for name, value in measured.items()},
    )
    folder = out / family
    folder.mkdir(parents=True, exist_ok=True)
    # A line each, so that a difference between two versions can be read.
    lines = ",\n ".join(f"{json.dumps(key)}: {lists(value)}" for key, value in golden.items())
    (folder / f"{case.name}.json").write_text(f"{{{lines}\n}}\n")
    mx.save_safetensors(str(folder / f"{case.name}.safetensors"), {"logits": mx.array(logits[1::2])})
    size = sum(file.stat().st_size for file in folder.glob(f"{case.name}.*"))
    print(f"{family}/{case.name:14} {size:7} bytes  {golden['measured']}", flush=True)


def lists(value) -> str:
    """JSON, with lists of lists a line for each."""
    if isinstance(value, list) and value and isinstance(value[0], (list, dict)):
        return "[\n  " + ",\n  ".join(json.dumps(item, separators=(",", ":")) for item in value) + "\n ]"
    return json.dumps(value, separators=(",", ":"))


def without_global_scale(gather_qmm):
    """mlx-lm 0.32.2 passes an argument that MLX 0.32.2 does not know, always `None` where no checkpoint has such scales."""
    def call(*args, global_scale=None, **kwargs):
        assert global_scale is None
        return gather_qmm(*args, **kwargs)
    return call


def main() -> None:
    mx.gather_qmm = without_global_scale(mx.gather_qmm)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("families", nargs="*", help="all of families/ if none is named")
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)
    here = Path(__file__).parent / "families"
    for family in args.families or sorted(file.stem for file in here.glob("*.py")):
        for case in importlib.import_module(f"families.{family}").CASES:
            make(family, case, args.out)


if __name__ == "__main__":
    main()
