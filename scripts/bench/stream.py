"""stream [options]: what HTTP and server-sent events add to a token, on one node.

The same answers are asked for in two ways, in turns: streamed, where each token becomes a chunk of JSON and an event on the
connection, and whole, where engine, detokeniser and channels do the same work and one answer is written at the end. The
difference is what a token costs on its way out. Both are told as time a token (of one stream, and of a crowd of them at
once) and, on Linux, as processor time that the node took for it. Prints markdown: medians, and what streaming adds, with
the 95 % interval of a bootstrap over the turns.
"""
import argparse
import json
import os
import platform
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from overhead import added
from processes import Server, node

WAYS = ("streamed", "whole")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="stream", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, help="our mesh-llm")
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the script model")
    parser.add_argument("--rounds", type=int, default=30, help="turns of one request each")
    parser.add_argument("--crowds", type=int, default=20, help="turns of as many requests at once as --streams says")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=1024, help="of each answer")
    return parser.parse_args()


def processor(server: Server) -> float:
    """Seconds that the node has computed so far; 0 where that is not told."""
    stat = Path(f"/proc/{server.process.pid}/stat")
    if not stat.exists():
        return 0.0
    words = stat.read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def ask(server: Server, way: str, mark: str, tokens: int) -> None:
    """One answer, read to its end without a library's help, and checked."""
    body = json.dumps(dict(
        model="script-model", messages=[dict(role="system", content=mark), dict(role="user", content="#LONG")], max_tokens=tokens,
        temperature=0, stream=way == "streamed", **(dict(stream_options=dict(include_usage=True)) if way == "streamed" else {})))
    head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n")
    raw = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=300) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.sendall((head + body).encode())
        while piece := stream.recv(1 << 18):
            raw.append(piece)
    said = b"".join(raw)
    chunks = said.count(b'"object":"chat.completion.chunk"')
    right = said.startswith(b"HTTP/1.1 200") and b'"completion_tokens":%d,' % tokens in said
    if not right or way == "streamed" and chunks < tokens or way == "whole" and chunks:
        raise RuntimeError(f"{way}: {chunks} chunks: {said[:400].decode(errors='replace')}")


def turn(pool: ThreadPoolExecutor, server: Server, way: str, marks: list[str], tokens: int) -> dict:
    """Seconds and processor seconds of a token of this crowd."""
    begun, spent = time.perf_counter(), processor(server)
    list(pool.map(lambda mark: ask(server, way, mark, tokens), marks))
    # All streams move at once: what a client waits for its next token.
    return dict(wait=[(time.perf_counter() - begun) / tokens], work=[(processor(server) - spent) / tokens / len(marks)])


def measure(server: Server, args: argparse.Namespace) -> dict[int, dict[str, list[dict]]]:
    found = {}
    order = list(WAYS)
    with ThreadPoolExecutor(args.streams) as pool:
        for way in WAYS:
            turn(pool, server, way, [f"warm {place}" for place in range(args.streams)], 64)
        for streams, turns in ((1, args.rounds), (args.streams, args.crowds)):
            found[streams] = {way: [] for way in WAYS}
            for number in range(turns):
                for way in order:
                    found[streams][way].append(turn(pool, server, way, [f"{number} {place}" for place in range(streams)], args.tokens))
                order.reverse()
    return found


def table(found: dict[int, dict[str, list[dict]]]) -> str:
    lines = ["| | whole | streamed | streaming adds (95 % of draws) | ratio |", "| --- | --- | --- | --- | --- |"]
    for what, label in (("wait", "time a token, µs"), ("work", "the node's processor time a token, µs")):
        for streams, turns in found.items():
            ours, theirs = (1e6 * median(one[what][0] for one in turns[way]) for way in WAYS)
            more, low, high = added(turns["streamed"], turns["whole"], what, 1e6)
            count = "1 stream" if streams == 1 else f"{streams} streams"
            ratio = f"{ours / theirs:.3f}×" if theirs else "?"
            lines.append(f"| {label}, {count} | {theirs:.1f} | {ours:.1f} | {more:+.1f} ({low:+.1f} … {high:+.1f}) | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    args = options()
    with tempfile.TemporaryDirectory(prefix="mesh-llm-stream-") as folder:
        words = ["--mlx-file", args.model, "--ctx-size", args.tokens + 256, "--parallel", args.streams]
        with node("node", args.binary, words, Path(folder)) as server:
            found = measure(server, args)
    print(table(found))
    print(f"\n{args.rounds} turns of 1 stream and {args.crowds} of {args.streams}, {args.tokens} tokens each; script model, {platform.machine()}, "
          f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
