"""overhead [options]: what a node adds to its llama-server, in one run.

For each model a node is started, the arguments of its llama-server child are read from the process list, and a second
llama-server is started with the same ones, but on a TCP port. Both stay up; requests take turns, greedy and streaming,
so that whatever slows the machine slows both. A request is a connection of its own, its bytes read without a library's
help. Prints markdown: the median of each, and what the node adds, with the 95 % interval of a bootstrap over the turns.
"""
import argparse
import json
import os
import platform
import random
import re
import shlex
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from report import p90
from processes import Server, arguments, llama_server, node

# Their values name where the child listens, and how it is asked there: the direct one has its own.
PLACES = ("--host", "--port", "--api-key", "--api-key-file", "--alias", "-a")
# A script model goes on for ever at the word; the bundled one tells a story of 522 tokens.
LONG = {"script-model": "#LONG", "mesh-tiny.Q4_1": "Tell me a long story."}
# The beginning of a piece of text in an event, as either server writes it; an empty one (with the role) is none.
TEXT = re.compile(rb'"content":"[^"]')


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="overhead", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, help="our mesh-llm")
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--model", type=Path, action="append", required=True, metavar="GGUF")
    parser.add_argument("--self", action="store_true", help="a second llama-server instead of the node: the noise")
    parser.add_argument("--node-args", type=shlex.split,
                        default=["--ctx-size", "2048", "--parallel", "16", "--llama-arg=--threads", "--llama-arg=1"],
                        help="of the node, in one string")
    parser.add_argument("--rounds", type=int, default=40, help="turns of one request each")
    parser.add_argument("--crowds", type=int, default=12, help="turns of as many streams at once as --streams says")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--json", type=Path, help="write all times there")
    return parser.parse_args()


def same_but_for_place(words: list[str]) -> list[str]:
    """The child's arguments without those that say where it listens."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in PLACES:
            skip = True
        elif not word.startswith(tuple(place + "=" for place in PLACES)):
            kept.append(word)
    return kept


def child_of(server: Server) -> list[str]:
    """The arguments of the llama-server that a node runs."""
    for pid in server.children():
        words = arguments(pid)
        if words and Path(words[0]).name.startswith("llama-server"):
            return words[1:]
    raise SystemExit(f"no llama-server below {server.name} (process {server.process.pid})")


class Asked:
    """One streamed answer: when each piece of text came, in seconds since the request was begun."""

    def __init__(self, server: Server, name: str, mark: str, text: str, tokens: int):
        body = json.dumps(dict(
            model=name, messages=[dict(role="system", content=mark), dict(role="user", content=text)], max_tokens=tokens, temperature=0, stream=True,
            stream_options=dict(include_usage=True), chat_template_kwargs=dict(enable_thinking=False))).encode()
        head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n").encode()
        self.times, raw, tail = [], [], b""
        start = time.perf_counter()
        with socket.create_connection(("127.0.0.1", server.port), timeout=120) as stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream.sendall(head + body)
            while piece := stream.recv(1 << 16):
                now = time.perf_counter() - start
                raw.append(piece)
                self.times += [now] * len(TEXT.findall(tail + piece))
                tail = (tail + piece)[-11:]
        self.check(b"".join(raw), tokens)

    def check(self, raw: bytes, tokens: int) -> None:
        if not raw.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"refused: {raw[:600].decode(errors='replace')}")
        found = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith(b"data: {")]
        usage = next((event["usage"] for event in reversed(found) if event.get("usage")), None)
        if not usage or usage["completion_tokens"] != tokens or len(self.times) < 2:
            raise RuntimeError(f"wanted {tokens} tokens, got usage {usage} and {len(self.times)} pieces of text")
        self.first = self.times[0]
        # All tokens but the first over the time from the first text to the last.
        self.per_token = (self.times[-1] - self.first) / (tokens - 1)


def crowd(pool: ThreadPoolExecutor, server: Server, name: str, marks: list[str], text: str, tokens: int) -> list[Asked]:
    """As many requests at once as there are marks, which make them differ from their first token on."""
    return list(pool.map(lambda mark: Asked(server, name, mark, text, tokens), marks))


def measure(pair: dict[str, Server], text: str, args: argparse.Namespace) -> dict[str, dict[int, list[dict]]]:
    """Times of each server by number of streams: a list of turns, each with its requests' times."""
    names = {key: server.models()[0] for key, server in pair.items()}
    found = {key: {1: [], args.streams: []} for key in pair}
    order = list(pair)
    with ThreadPoolExecutor(args.streams) as pool:
        for key, server in pair.items():
            crowd(pool, server, names[key], [f"warm {place}" for place in range(args.streams)], text, 8)
        for streams, turns in ((1, args.rounds), (args.streams, args.crowds)):
            for turn in range(turns):
                marks = [f"{turn} {place}" for place in range(streams)]
                for key in order:
                    got = crowd(pool, pair[key], names[key], marks, text, args.tokens)
                    times = dict(first=[one.first for one in got], per_token=[one.per_token for one in got])
                    found[key][streams].append(times)
                order.reverse()
            print(f"{streams} at once: done", file=sys.stderr, flush=True)
    return found


def added(node_turns: list[dict], direct_turns: list[dict], what: str, scale: float) -> tuple[float, float, float]:
    """What the node adds to a median, and the 95 % interval: turns are drawn anew, in pairs, as they were taken."""
    rng = random.Random(0)
    pairs = list(zip(node_turns, direct_turns))

    def difference(drawn: list[tuple[dict, dict]]) -> float:
        sides = ([value for turn in side for value in turn[what]] for side in zip(*drawn))
        ours, theirs = map(median, sides)
        return scale * (ours - theirs)

    drawn = sorted(difference(rng.choices(pairs, k=len(pairs))) for _ in range(2000))
    return difference(pairs), drawn[49], drawn[1949]


def table(found: dict, args: argparse.Namespace) -> str:
    ours, theirs = list(found)
    lines = [f"| | {theirs}: median (p90) | {ours}: median (p90) | added (95 % of draws) | ratio |", "| --- | --- | --- | --- | --- |"]
    for what, label, unit, scale in (("first", "time to first token", "ms", 1e3), ("per_token", "time per token", "µs", 1e6)):
        for streams in found[ours]:
            sides = {key: [value for turn in found[key][streams] for value in turn[what]] for key in found}
            more, low, high = added(found[ours][streams], found[theirs][streams], what, scale)
            cells = [f"{scale * median(sides[key]):.2f} ({scale * p90(sides[key]):.2f})" for key in (theirs, ours)]
            ratio = median(sides[ours]) / median(sides[theirs])
            count = "1 stream" if streams == 1 else f"{streams} streams"
            lines.append(f"| {label}, {count}, {unit} | {' | '.join(cells)} | {more:+.2f} ({low:+.2f} … {high:+.2f}) | {ratio:.3f}× |")
    lines += ["", f"{args.rounds} turns of 1 stream and {args.crowds} of {args.streams}, {args.tokens} tokens each."]
    return "\n".join(lines)


def main() -> None:
    args = options()
    if not (args.binary or args.self):
        raise SystemExit("--binary or --self")
    times = {}
    for model in args.model:
        with tempfile.TemporaryDirectory(prefix="mesh-llm-overhead-") as folder:
            work = Path(folder)
            if args.self:
                words = ["-m", model, "--jinja", "--threads", 1, "--parallel", args.streams, "--ctx-size", 2048 * args.streams,
                         "--threads-http", 2 * args.streams + 8, "--offline"]
                first = llama_server(args.llama_server, words, work, "the same again")
            else:
                first = node("node", args.binary, ["--gguf-file", model, "--llama-server", args.llama_server, *args.node_args], work)
            with first:
                if not args.self:
                    words = same_but_for_place(child_of(first))
                with llama_server(args.llama_server, words, work, "direct") as second:
                    times[model.stem] = measure({first.name: first, second.name: second}, LONG.get(model.stem, "#LONG"), args)
        print(f"### {model.stem}\n\nBoth with: `{shlex.join(str(word).replace(str(model), model.name) for word in words)}`\n")
        print(table(times[model.stem], args) + "\n", flush=True)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")
    if args.json:
        args.json.write_text(json.dumps(times, indent=1) + "\n")


if __name__ == "__main__":
    main()
