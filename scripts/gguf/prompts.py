"""prompts [options]: asks the bundled model's documented prompts, greedy, as MLX and as GGUF, and compares.

Every documented prompt must have its one right answer on both, or the exit status is 1 and the wrong ones are listed. The
markdown table says how far the two agree, in tokens of the model, also where no answer is documented: on the same prompts
with thinking switched the other way, and on plain completions of the prompts' first words.
"""
import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, median

from tokenizers import Tokenizer

from processes import Server, llama_server, node

MODEL = Path(__file__).parents[2] / "models/mesh-tiny"
# The story has 522 tokens.
MOST = 800
# Tokens of a plain completion, which need not end by itself.
OPEN = 96


def chat(case: dict, thinking: bool | None) -> tuple[str, dict]:
    body = dict(messages=case["messages"], temperature=0, max_tokens=MOST,
                chat_template_kwargs=dict(enable_thinking=bool(thinking)))
    return "/v1/chat/completions", body | ({"tools": case["tools"]} if "tools" in case else {})


def completion(text: str) -> tuple[str, dict]:
    return "/v1/completions", dict(prompt=text, temperature=0, max_tokens=OPEN)


def requests(cases: list[dict]) -> dict[str, list[tuple[str, dict]]]:
    """What is asked, by the row of the table."""
    asked = [case["messages"][-1]["content"] or "" for case in cases]
    words = [text.split() for text in dict.fromkeys(asked)]
    beginnings = dict.fromkeys(" ".join(line[:max(1, len(line) // 2)]) for line in words if line)
    return {
        "documented prompts": [chat(case, case.get("enable_thinking")) for case in cases],
        "the same, thinking the other way": [chat(case, not case.get("enable_thinking")) for case in cases],
        f"plain completions, {OPEN} tokens at most": [completion(text) for text in beginnings],
    }


def fold(answer: dict, trim: bool) -> dict:
    """An answer's parts, without what differs from request to request. `trim`: the line end that llama-server, asked
    directly, leaves behind reasoning goes too."""
    if "error" in answer:
        return dict(error=answer["error"])
    choice = answer["choices"][0]
    if "text" in choice:
        return dict(content=choice["text"], finish=choice["finish_reason"])
    message = choice["message"]
    calls = [dict(name=call["function"]["name"], arguments=call["function"]["arguments"])
             for call in message.get("tool_calls") or ()]
    reasoning = message.get("reasoning_content") or ""
    return dict(content=message.get("content") or "", reasoning=reasoning.strip("\n") if trim else reasoning, calls=calls,
                finish=choice["finish_reason"])


def ask_all(server: Server, asked: dict[str, list[tuple[str, dict]]], streams: int, trim: bool) -> dict[str, list[dict]]:
    name = server.models()[0]
    found = {}
    with ThreadPoolExecutor(streams) as pool:
        for row, lines in asked.items():
            start = time.monotonic()
            found[row] = list(pool.map(lambda line: fold(server.ask(line[1] | {"model": name}, line[0]), trim), lines))
            print(f"{server.name}: {len(lines)} {row}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return found


def wrong(case: dict, got: dict) -> bool:
    """Whether an answer is not the documented one: content, calls and reasoning."""
    if "error" in got:
        return True
    try:
        calls = [dict(name=call["name"], arguments=json.loads(call["arguments"])) for call in got["calls"]]
    except ValueError:
        return True
    expect = case["expect"]
    return (got["content"], calls, got["reasoning"]) != (
        expect.get("content") or "", expect.get("tool_calls") or [], case.get("reasoning") or "")


def tokens(tokenizer: Tokenizer, got: dict) -> list[int]:
    """What was said, as tokens of the model: the reasoning, the content, each call's name and arguments, and the end."""
    said = [got.get("reasoning", ""), got.get("content", "")]
    for call in got.get("calls", ()):
        said += [call["name"], json.dumps(parsed(call["arguments"]))]
    ids = [token for part in said for token in tokenizer.encode(part, add_special_tokens=False).ids]
    return ids if got.get("finish") == "length" else [*ids, -1]


def parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def agreement(tokenizer: Tokenizer, left: list[dict], right: list[dict]) -> dict:
    """How far two lists of answers agree."""
    pairs = [(tokens(tokenizer, one), tokens(tokenizer, other)) for one, other in zip(left, right)]
    common = [next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
              for one, other in pairs]
    parted = [count for count, (one, other) in zip(common, pairs) if one != other]
    return dict(prompts=len(pairs), same=len(pairs) - len(parted), parted=parted, common=mean(common),
                length=mean(len(one) for one, _ in pairs),
                share=sum(common) / sum(max(len(one), len(other)) for one, other in pairs))


def table(found: dict[str, dict]) -> str:
    head = ["greedy", "prompts", "same answer", "first difference at token: median (least)", "common prefix, mean tokens",
            "answer, mean tokens", "tokens in common"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for row, got in found.items():
        part = f"{median(got['parted']):.0f} ({min(got['parted'])})" if got["parted"] else "–"
        lines.append(f"| {row} | {got['prompts']} | {got['same']} ({100 * got['same'] / got['prompts']:.1f} %) | {part} "
                     f"| {got['common']:.1f} | {got['length']:.1f} | {100 * got['share']:.1f} % |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="prompts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True, help="our mesh-llm")
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--direct", action="store_true", help="ask llama-server itself instead of a node with --gguf")
    parser.add_argument("--streams", type=int, default=4, help="requests at once")
    parser.add_argument("--only", default="", help="prompts whose id begins so")
    parser.add_argument("--json", type=Path, help="write all answers there")
    args = parser.parse_args()

    cases = [case for case in json.loads((MODEL / "prompts.json").read_text())["prompts"] if case["id"].startswith(args.only)]
    asked = requests(cases)
    answers = {}
    with tempfile.TemporaryDirectory(prefix="mesh-llm-prompts-") as folder:
        work = Path(folder)
        servers = {"MLX": node("mlx", args.binary, ["--model", "mesh-tiny", "--mlx"], work)}
        if args.direct:
            words = ["-m", MODEL / "mesh-tiny.Q4_1.gguf", "--jinja", "--threads", 1, "--parallel", args.streams,
                     "--ctx-size", 4096 * args.streams, "--alias", "mesh-tiny", "--offline"]
            servers["GGUF"] = llama_server(args.llama_server, words, work)
        else:
            words = ["--model", "mesh-tiny", "--gguf", "--llama-server", args.llama_server, "--parallel", args.streams]
            servers["GGUF"] = node("gguf", args.binary, words, work)
        for name, server in servers.items():
            with server:
                answers[name] = ask_all(server, asked, args.streams, trim=server.name == "llama-server")
    if args.json:
        args.json.write_text(json.dumps(dict(asked=asked, answers=answers), indent=1, ensure_ascii=False) + "\n")

    status = 0
    documented = next(iter(asked))
    for name, got in answers.items():
        missed = [(case, answer) for case, answer in zip(cases, got[documented]) if wrong(case, answer)]
        print(f"{name}: {len(cases) - len(missed)} of {len(cases)} documented prompts are right.")
        for case, answer in missed:
            status = 1
            print(f"    {case['id']}: {json.dumps(answer, ensure_ascii=False)[:300]}\n"
                  f"      instead of {json.dumps(case['expect'], ensure_ascii=False)[:300]} {case.get('reasoning', '')!r}")
    tokenizer = Tokenizer.from_file(os.fspath(MODEL / "tokenizer.json"))
    print()
    print(table({row: agreement(tokenizer, answers["MLX"][row], answers["GGUF"][row]) for row in asked}))
    return status


if __name__ == "__main__":
    sys.exit(main())
