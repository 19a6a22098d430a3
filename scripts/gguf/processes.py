"""llama-server by itself and nodes, as processes with a log, for the scripts beside this one. Standard library only."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

# Seconds until a server must be ready, and until it must have gone once asked to.
START = 120
STOP = 15
# And until a node's children must have followed it.
ORPHAN = 3

# Who ends a script ends its servers: `with` sees to it on the way out.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process in a session of its own, from `with` to its end, and where it answers: `http://127.0.0.1:port`."""

    def __init__(self, name: str, command: list[str], log: Path, port: int, ready: str | None = None,
                 env: dict[str, str] | None = None):
        """`ready`: the line of its log that says so; without one, a 200 from /health does."""
        self.name, self.log, self.port, self.ready = name, log, port, ready
        self.command = [str(word) for word in command]
        # Settings of who runs the script are not its subject; where its caches lie is.
        self.env = {key: value for key, value in os.environ.items()
                    if key == "MESH_LLM_CACHE" or not key.startswith(("MESH_LLM_", "LLAMA_"))}
        self.env |= {"OPENBLAS_NUM_THREADS": "1"} | (env or {})
        self.base = f"http://127.0.0.1:{port}"

    def __enter__(self) -> "Server":
        with self.log.open("ab") as log:
            self.said_from = log.tell()
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env,
                                            start_new_session=True)
        try:
            end = time.monotonic() + START
            while not self.is_ready():
                if self.process.poll() is not None:
                    raise SystemExit(f"{self.name} ended with {self.process.returncode}; its log ({self.log}):{self.tail()}")
                if time.monotonic() > end:
                    raise SystemExit(f"{self.name} was not ready in {START} s; its log ({self.log}):{self.tail()}")
                time.sleep(0.05)
        except BaseException:
            self.stop()
            raise
        return self

    def is_ready(self) -> bool:
        if self.ready:
            with self.log.open("rb") as log:
                log.seek(self.said_from)
                return bool(re.search(self.ready, log.read().decode(errors="replace")))
        try:
            with urllib.request.urlopen(f"{self.base}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def tail(self) -> str:
        return "\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def models(self) -> list[str]:
        """The names that it answers to."""
        with urllib.request.urlopen(f"{self.base}/v1/models", timeout=30) as answer:
            return [model["id"] for model in json.load(answer)["data"]]

    def ask(self, body: dict, path: str = "/v1/chat/completions", timeout: float = 300) -> dict:
        """The answer to a POST, or {"error": …} whatever the status."""
        request = urllib.request.Request(self.base + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            try:
                found = json.loads(text)
            except ValueError:
                found = text
            return found if isinstance(found, dict) and "error" in found else {"error": {"code": error.code, "message": text}}

    def children(self) -> list[int]:
        """Its descendants' process ids, parents first."""
        listing = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
        found = [self.process.pid]
        for parent in found:
            found += [pid for pid, its in rows if its == parent]
        return found[1:]

    def stop(self) -> None:
        """Asks it to go, then makes it, with all that it started."""
        started = self.children() if self.process.poll() is None else []
        for number, patience in ((signal.SIGTERM, STOP), (signal.SIGKILL, None)):
            if self.process.poll() is None:
                self.process.send_signal(number)
                try:
                    self.process.wait(patience)
                except subprocess.TimeoutExpired:
                    pass
        # What a node started ends by itself, within this time.
        end = time.monotonic() + ORPHAN
        while any(arguments(pid) for pid in started) and time.monotonic() < end:
            time.sleep(0.05)
        for pid in started:
            if arguments(pid):
                print(f"{self.name} left process {pid} behind: {arguments(pid)[0]}", flush=True)
                os.kill(pid, signal.SIGKILL)

    def __exit__(self, *_) -> None:
        self.stop()


def arguments(pid: int) -> list[str]:
    """A process's command line; empty where it is gone. Where there is no /proc, split at spaces."""
    proc = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self/cmdline").exists():
        try:
            return [word.decode(errors="replace") for word in proc.read_bytes().split(b"\0")[:-1]]
        except OSError:
            return []
    line = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return line.split()


def node(name: str, binary: Path, words: list[str], folder: Path, env: dict[str, str] | None = None) -> Server:
    """A node of its own state, with a model named by `words`, ready when that is loaded."""
    port = free_port()
    line = [binary, *words, "--port", port, "--no-console", "--state", folder / f"state-{name}"]
    return Server(name, line, folder / f"{name}.log", port, r"(?m)^mesh-llm ready: ", env)


def llama_server(binary: Path, words: list[str], folder: Path, name: str = "llama-server") -> Server:
    """A llama-server on a port of this machine."""
    port = free_port()
    return Server(name, [binary, *words, "--host", "127.0.0.1", "--port", port], folder / f"{name}.log", port)
