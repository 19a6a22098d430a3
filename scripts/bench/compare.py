"""compare --model-dir DIR [--binary MESH_LLM] [options]: our node against mlx_lm.server, same model, machine and run.

The servers take turns (ours, peer, ours, peer ...), each started for its turn and stopped after it, so that never two
are loaded at once. All get the same prompts, greedy. Prints a markdown table of medians and ranges over the rounds,
with ours divided by each peer, says how busy other processes kept the machine, and writes all to a new JSON file.
Without --binary only the peer is measured, with --peer '' only ours. The model must not stop by itself: use a script
model (scripts/conformance/script-model) or one of make_random_model.py.

--peer names how mlx-lm gets the model, several with commas: `stored` as it lies there, `f32` with its floating tensors
widened, `f32-dense` dequantised too. A CPU runs f32 far faster than bf16, so compare there with all three. --peer-env
OMP_NUM_THREADS=2 and the like apply to the peer alone, --ours-env to ours.
"""
import argparse
import asyncio
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from client import Plan, measure, words_per_token
from report import table
from servers import Contender, Server

HERE = Path(__file__).parent
WIDEN = {"f32": [], "f32-dense": ["--dense"]}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="compare", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--binary", type=Path, help="our mesh-llm")
    parser.add_argument("--ours-args", type=shlex.split, default=[], help="more arguments for it, in one string")
    parser.add_argument("--ours-env", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--peer", default="stored,f32", help="of: stored, f32, f32-dense")
    parser.add_argument("--peer-args", type=shlex.split, default=[])
    parser.add_argument("--peer-env", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=3, help="of each latency in a round")
    parser.add_argument("--streams", default="1,4,16")
    parser.add_argument("--short-tokens", type=int, default=48)
    parser.add_argument("--long-tokens", type=int, default=500)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--start-timeout", type=float, default=300)
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    args = parser.parse_args()
    if unknown := set(filter(None, args.peer.split(","))) - {"stored", *WIDEN}:
        parser.error(f"no such peer: {', '.join(unknown)}")
    if not (args.binary or args.peer):
        parser.error("nothing to measure")
    return args


def contenders(args: argparse.Namespace, scratch: Path) -> list[Contender]:
    """Ours first, then each peer, with the copies of the model that they need."""
    found = []
    if args.binary:
        command = [str(args.binary.resolve()), "--mlx-file", str(args.model_dir), "--port", "{port}", *args.ours_args]
        found.append(Contender("ours", command, env=dict(pair.split("=", 1) for pair in args.ours_env)))
    for kind in filter(None, args.peer.split(",")):
        model = args.model_dir
        if kind in WIDEN:
            model = scratch / kind
            subprocess.run([sys.executable, HERE / "widen_model.py", args.model_dir, model, *WIDEN[kind]], check=True)
        command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(model), "--port", "{port}", *args.peer_args]
        env = {"HF_HUB_OFFLINE": "1"} | dict(pair.split("=", 1) for pair in args.peer_env)
        found.append(Contender(f"mlx-lm {kind}", command, "default_model", env))
    return found


async def turn(contender: Contender, plan: Plan | None, args, number: int, log: Path) -> tuple[Plan, dict]:
    """One contender's turn: start, warm up, measure, weigh, stop. The first turn of all sizes the prompts."""
    async with Server(contender, log, args.start_timeout) as server:
        slope, overhead = await words_per_token(server.client)
        if plan is None:
            short, long = [max(1, round((want - overhead) / slope)) for want in (args.short_tokens, args.long_tokens)]
            plan = Plan(short, long, args.max_tokens, [int(count) for count in args.streams.split(",")], args.samples)
        warm_up = Plan(plan.short_words, plan.long_words, 8, plan.streams, 1)
        await measure(server.client, warm_up, -1)
        server.client.resets = 0
        start, before = time.perf_counter(), server.others_cpu()
        found = await measure(server.client, plan, number)
        wall, after = time.perf_counter() - start, server.others_cpu()
        found |= {"ready": server.ready, "memory_mib": server.memory(), "resets": server.client.resets}
        return plan, found | {"others_cores": None if None in (before, after) else max(0.0, after - before) / wall}


async def compete(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    stem = args.out / time.strftime("compare-%Y%m%d-%H%M%S")
    log = stem.with_suffix(".log")
    with tempfile.TemporaryDirectory(prefix="mesh-llm-bench-") as scratch:
        field = contenders(args, Path(scratch))
        turns = {contender.name: [] for contender in field}
        plan = None
        for number in range(args.rounds):
            for contender in field:
                plan, found = await turn(contender, plan, args, number, log)
                turns[contender.name].append(found)
                print(f"round {number + 1}: {contender.name} done", file=sys.stderr, flush=True)
    about = dict(
        command=sys.argv[1:], machine=platform.platform(), cores=os.cpu_count(), python=platform.python_version(),
        versions={name: version(name) for name in ("mlx", "mlx-lm")}, plan=vars(plan),
        model=json.loads((args.model_dir / "config.json").read_text()),
    )
    result = stem.with_suffix(".json")
    result.write_text(json.dumps(dict(about=about, turns=turns), indent=1) + "\n")
    print(table(turns))
    print(f"\nWritten: {result} (servers' output: {log})")


if __name__ == "__main__":
    asyncio.run(compete(arguments()))
