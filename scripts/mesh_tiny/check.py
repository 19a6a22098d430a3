"""Asks every documented prompt at temperature 0 and counts the right answers, in either engine.

    python check.py --mlx ../../models/mesh-tiny
    python check.py --gguf ../../models/mesh-tiny/mesh-tiny.Q4_1.gguf --server http://127.0.0.1:8080   (add --chat to go
                    through /v1/chat/completions, with a server started with --jinja, instead of a rendered prompt)
"""
import argparse
import collections
import concurrent.futures
import json
import os
import re
import sys
import time
import urllib.request

MOST = 800      # tokens; the story has fewer


def parse(text):
    """(reasoning, content, tool calls) of what the model wrote."""
    thought = re.match(r"<think>\n(.*?)\n</think>\n\n", text, re.S)
    if thought:
        text = text[thought.end():]
    calls = []
    for body in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.S):
        try:
            calls.append(json.loads(body))
        except ValueError:
            calls.append(body)
    return thought and thought[1], re.sub(r"\n?<tool_call>.*?</tool_call>", "", text, flags=re.S), calls


def verdict(entry, got):
    thought, content, calls = got
    expect = entry["expect"]
    right = calls == expect["tool_calls"] if "tool_calls" in expect else content == expect["content"] and not calls
    return right and ("reasoning" not in entry or thought == entry["reasoning"])


def mlx_asker(folder, quantised):
    """mlx-lm in f32: on a CPU bf16 is slow, and a dequantised matrix is the same numbers."""
    import mlx.core as mx
    from corpus import Template
    from mlx_lm import load, stream_generate
    from mlx_lm.sample_utils import make_sampler
    from mlx_lm.utils import dequantize_model
    model, tok = load(folder)
    model.set_dtype(mx.float32)
    if not quantised:
        model = dequantize_model(model)
    sampler = make_sampler(temp=0.0)

    template = Template(open(os.path.join(folder, "chat_template.jinja"), encoding="utf-8").read())

    def ask(entry):
        prompt = template(entry["messages"], entry.get("tools"), entry.get("enable_thinking"))
        ids = tok.encode(prompt, add_special_tokens=False)
        return parse("".join(x.text for x in stream_generate(model, tok, ids, max_tokens=MOST, sampler=sampler)))
    return ask


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def completion_asker(file, server):
    """llama-server's /completion, with the prompt rendered here from the template inside the GGUF file."""
    import gguf
    from corpus import Template
    template = Template(gguf.GGUFReader(file).fields["tokenizer.chat_template"].contents())

    def ask(entry):
        prompt = template(entry["messages"], entry.get("tools"), entry.get("enable_thinking"))
        return parse(post(server + "/completion", dict(prompt=prompt, temperature=0, n_predict=MOST))["content"])
    return ask


def chat_asker(server):
    """The OpenAI endpoint: llama-server renders the template and parses the reply itself."""
    def ask(entry):
        body = dict(messages=entry["messages"], temperature=0, max_tokens=MOST, chat_template_kwargs={"enable_thinking": entry.get("enable_thinking", False)})
        if "tools" in entry:
            body["tools"] = entry["tools"]
        m = post(server + "/v1/chat/completions", body)["choices"][0]["message"]
        calls = [{"name": c["function"]["name"], "arguments": json.loads(c["function"]["arguments"])} for c in m.get("tool_calls") or ()]
        thought = m.get("reasoning_content")
        return thought and thought.strip("\n"), m.get("content") or "", calls
    return ask


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--mlx", metavar="DIR")
    ap.add_argument("--quantised", action="store_true", help="keep the 4-bit matrices in mlx-lm (slower on a CPU)")
    ap.add_argument("--gguf", metavar="FILE")
    ap.add_argument("--server", metavar="URL")
    ap.add_argument("--chat", action="store_true")
    ap.add_argument("--thinking", action="store_true", help="ask all prompts with thinking switched on; then only the answer counts")
    ap.add_argument("--only", default="", help="only ids that begin so")
    a = ap.parse_args()
    if not a.mlx and not (a.gguf and a.server):
        ap.error("--mlx DIR, or --gguf FILE with --server URL")
    folder = a.mlx or os.path.dirname(os.path.abspath(a.gguf))
    with open(os.path.join(folder, "prompts.json"), encoding="utf-8") as f:
        entries = [e for e in json.load(f)["prompts"] if e["id"].startswith(a.only)]
    if a.thinking:
        entries = [{**e, "enable_thinking": True} for e in entries]
    ask = mlx_asker(a.mlx, a.quantised) if a.mlx else chat_asker(a.server) if a.chat else completion_asker(a.gguf, a.server)
    began = time.time()
    with concurrent.futures.ThreadPoolExecutor(1 if a.mlx else 4) as pool:
        answers = map(ask, entries) if a.mlx else pool.map(ask, entries)
        score, wrong = collections.Counter(), []
        for e, got in zip(entries, answers):
            kind = e["id"].rsplit("-", 1)[0]
            right = verdict(e, got)
            score[kind, right] += 1
            if not right:
                wrong.append(e["id"])
                print(f"{e['id']}: {e['messages'][-1]['content']!r}\n   said {got}\n   want {e['expect']} {e.get('reasoning', '')}")
    for kind in sorted({k for k, _ in score}):
        if score[kind, False]:
            print(f"{kind:20} {score[kind, True]} of {score[kind, True] + score[kind, False]}")
    right = len(entries) - len(wrong)
    print(f"{right} of {len(entries)} right, {time.time() - began:.0f} s" + (f"; wrong: {','.join(wrong)}" if wrong else ""))
    return 0 if not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
