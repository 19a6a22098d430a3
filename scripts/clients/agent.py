"""What the agents' checks share: an agent runs once, headless, in a home and a project of its own, with a recorder between
it and the node. The script model answers #AGENT with one call of a shell tool that the agent offers, which writes a file,
and a tool's result with DONE.
"""
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

from harness import KEY, LIMIT_S, NODE
from recorder import Recorder

# Tells scripts/clients/run that the client cannot run on this machine: EX_UNAVAILABLE of sysexits.h.
LEFT_OUT = 69
MARKER = "agent-marker.txt"
# The script model with a template that keeps the agents' instructions, 20,000 tokens of them, out of the prompt.
AGENT_MODEL = "script-agent"


def program(pattern):
    """The agent's program, as its package names it for this machine: {os} and {arch} are Node's names for them."""
    arch = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    path = Path(os.environ["CLIENTS_MODULES"]) / pattern.format(os=platform.system().lower(), arch=arch)
    if not path.exists():
        print(f"no package of it for {platform.system()} on {platform.machine()}")
        sys.exit(LEFT_OUT)
    return str(path)


def run(command, settings=None, files=None, key=KEY, **environment):
    """What became of `command`: its exit status, its output, the marker it left, and the requests that it sent.

    `files` are written first, by their paths from the folder that holds `home` and `project`; in these and in the
    environment, {url} and {key} stand for the node's.
    """
    with tempfile.TemporaryDirectory(prefix="mesh-llm-agent-") as folder:
        top = Path(folder)
        log = top / "requests.jsonl"
        recorder = Recorder(NODE, log)
        Thread(target=recorder.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{recorder.server_port}"

        def filled(text):
            return text.replace("{url}", url).replace("{key}", key)

        for part in ("home", "project", "tmp"):
            (top / part).mkdir()
        for path, text in (files or {}).items():
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text(filled(text))
        subprocess.run(["git", "init", "--quiet", "."], cwd=top / "project", check=True)
        clean = {"PATH": os.environ["PATH"], "HOME": str(top / "home"), "TMPDIR": str(top / "tmp"), "LANG": "C.UTF-8"}
        clean |= {name: filled(value) for name, value in environment.items()}
        # A group of its own, so that nothing of it is left behind.
        child = subprocess.Popen(command, cwd=top / "project", env=clean, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            out, err = child.communicate(timeout=LIMIT_S - 10)
        finally:
            try:
                os.killpg(child.pid, 9)
            except ProcessLookupError:
                pass
            recorder.shutdown()
            recorder.server_close()
        print(out, err, sep="\n", flush=True)
        marker = top / "project" / MARKER
        return SimpleNamespace(
            status=child.returncode,
            out=out,
            said=f"{out}\n{err}",
            marker=marker.read_text().strip() if marker.exists() else None,
            requests=[json.loads(line) for line in log.read_text().splitlines()],
        )


def accepted(requests):
    """That the node took every request; else what it refused. A HEAD without a key is Claude Code's look at the door."""
    refused = [f"{r['method']} {r['path']}: {r['status']} {r['answer']}" for r in requests if r["status"] >= 400 and r["method"] != "HEAD"]
    assert not refused, "; ".join(refused)


def posts(requests, path):
    return [r["body"] for r in requests if r["method"] == "POST" and r["path"].partition("?")[0] == path]
