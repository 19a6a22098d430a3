"""Asks the GGUF files that gguf_export.py made the zoo's probes, each in a llama-server of its own.

    python check_gguf.py --llama-server BINARY --gguf DIR [--zoo ../../models/zoo] [FAMILY ...]

The prompt goes to /completion as text, so the file's tokenizer is checked too. Exits with 1 where an answer is wrong.
"""
import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import school
from families import FAMILIES

# llama.cpp does not read these from a GGUF of the architecture, so its server must be told.
FLAGS = {"kimi_k2": ["--yarn-beta-fast", "1"]}
START = 60                    # seconds until a server must answer
MOST = 16                     # tokens of an answer


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def ready(process, base):
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(base + "/health", timeout=5) as answer:
                if answer.status == 200:
                    return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False


def asked(server, path, probes, flags):
    """What the model says to each probe; None where the server does not take the file."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen([server, "-m", path, "--host", "127.0.0.1", "--port", str(port), "-c", "512", "-np", "1", "-t", "1", "--no-webui", *flags],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(path + ".log", "w", encoding="utf-8"))
    try:
        base = f"http://127.0.0.1:{port}"
        if not ready(process, base):
            return None
        return [post(base + "/completion", dict(prompt=school.asked(p["prompt"]), temperature=0, n_predict=MOST))["content"] for p in probes]
    finally:
        process.terminate()
        process.wait()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--llama-server", required=True)
    ap.add_argument("--gguf", required=True)
    ap.add_argument("--type", default="bf16")
    ap.add_argument("--zoo", default=os.path.join(school.HERE, "../../models/zoo"))
    ap.add_argument("families", nargs="*")
    a = ap.parse_args()
    with open(os.path.join(a.zoo, "probes.json"), encoding="utf-8") as f:
        probes = json.load(f)["probes"]
    bad = 0
    for name in a.families or FAMILIES:
        path = os.path.join(a.gguf, f"{name}.{a.type}.gguf")
        if not os.path.exists(path):
            print(f"{name:14} no file")
            continue
        said = asked(a.llama_server, path, probes, FLAGS.get(name, []))
        if said is None:
            bad += 1
            print(f"{name:14} not loaded: see {path}.log", flush=True)
            continue
        wrong = [(p["prompt"], s, p["answer"]) for p, s in zip(probes, said) if s != p["answer"]]
        bad += bool(wrong)
        print(f"{name:14} {len(probes) - len(wrong)}/{len(probes)}", *(f"\n    {q} -> {s!r}, not {r!r}" for q, s, r in wrong[:4]), flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
