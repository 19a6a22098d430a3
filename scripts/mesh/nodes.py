"""Nodes as processes, what they answer, and streams read from them. Standard library only."""
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

# How long anything may take that has no limit of its own: debug builds on a busy machine are slow.
PATIENCE = 60.0
# Between two looks at a node.
LOOK = 0.02
TINY = ["--model", "mesh-tiny", "--mlx"]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


class Failed(Exception):
    """What a scenario expected did not come true."""


def binary() -> Path:
    """The node's program: MESH_LLM_BIN, or the debug build."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or Path(__file__).parents[2] / "target")
    found = Path(os.environ.get("MESH_LLM_BIN") or target / "debug" / "mesh-llm")
    if not os.access(found, os.X_OK):
        raise SystemExit(f"there is no {found}: build mesh-node first, or set MESH_LLM_BIN")
    return found.resolve()


def other_model(folder: Path, name: str) -> Path:
    """A model of another name and identity: the bundled one with a changed file."""
    to = folder / name
    to.mkdir()
    for file in (Path(__file__).parents[2] / "models" / "mesh-tiny").iterdir():
        if file.is_file():
            (to / file.name).write_bytes(file.read_bytes())
    config = to / "generation_config.json"
    config.write_text(config.read_text() + " " * len(name))
    return to


def long_chat(tokens: int = 1200, model: str = "mesh-tiny") -> dict:
    """A greedy chat past the model's own end, so that there is time to disturb somebody."""
    return {"model": model, "messages": QUESTION, "stream": True, "stream_options": {"include_usage": True},
            "max_tokens": tokens, "ignore_eos": True, "temperature": 0.0}


class Node:
    """A node's process. `inside` is entered by the thread that opens sockets or starts the process: its namespace."""

    def __init__(self, name: str, folder: Path, line: list[str], inside=contextlib.nullcontext):
        self.name, self.folder, self.line, self.inside = name, folder, [str(word) for word in line], inside
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen | None = None
        self.id = ""

    def start(self) -> "Node":
        """Starts it; returns when its API is there and its models are loaded."""
        self.launch()
        self.ready()
        return self

    def launch(self) -> None:
        """Starts it."""
        environment = {key: value for key, value in os.environ.items()
                       if key not in ("MESH_LLM_API_KEY", "MESH_LLM_JOIN")}
        environment |= {"MESH_LLM_STATE": str(self.folder / f"state-{self.name}"),
                        "MESH_LLM_CACHE": str(self.folder / "cache"), "OPENBLAS_NUM_THREADS": "1",
                        "MESH_LLM_LOG": os.environ.get("MESH_LLM_LOG", "info")}
        with self.log.open("ab") as log, self.inside():
            self.said_from = log.tell()
            self.process = subprocess.Popen([binary(), *self.line], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment, start_new_session=True)

    def ready(self) -> None:
        """Waits until it has said where it can be asked."""
        self.api = self.port(r"mesh-llm ready: http://[^ ]*:(\d+)")
        self.console = self.port(r"console at http://[^ ]*:(\d+)")
        self.id = self.mesh().get("node", "")

    def port(self, pattern: str) -> int:
        """The port in the first line that matches, said already or soon."""
        return int(self.line_with(pattern).group(1))

    def line_with(self, pattern: str, patience: float = PATIENCE) -> re.Match:
        """The first match in its log since it was started."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            with self.log.open("rb") as log:
                log.seek(self.said_from)
                found = re.search(pattern, log.read().decode(errors="replace"))
            if found:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(LOOK)
        raise Failed(f"{self.name} never said {pattern!r}; its log ends: {self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return "\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def connect(self, port: int, patience: float = PATIENCE) -> http.client.HTTPConnection:
        """A connection of its own to a port of this node, on its loopback address."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
        try:
            with self.inside():
                connection.sock = socket.create_connection(("127.0.0.1", port), timeout=patience)
        except ConnectionRefusedError as error:
            state = "runs" if self.process.poll() is None else f"ended with {self.process.returncode}"
            raise Failed(f"{self.name} refused port {port}; it {state}; its log ends: {self.tail()}") from error
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def get(self, port: int, path: str) -> dict:
        """What it answers."""
        connection = self.connect(port)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def post(self, body: dict, path: str = "/v1/chat/completions") -> tuple[int, http.client.HTTPMessage, dict]:
        """Status, head and body of the answer."""
        connection = self.connect(self.api)
        try:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.headers, json.loads(response.read())
        finally:
            connection.close()

    def mesh(self) -> dict:
        """The mesh, as its management API tells it."""
        return self.get(self.console, "/api/status").get("mesh") or {}

    def models(self) -> dict[str, int]:
        """Models that its door lists, with the number of nodes that answer for each."""
        return {model["id"]: model["owners"] for model in self.get(self.api, "/v1/models")["data"]}

    def owners(self, model: str = "mesh-tiny") -> set[str]:
        """Ids of the nodes that answer for it."""
        return {owner for known in self.mesh().get("models", []) if known["id"] == model for owner in known["owners"]}

    def peer(self, other: "Node") -> dict:
        """What it says of another node."""
        return next((peer for peer in self.mesh().get("peers", []) if peer["id"] == other.id), {})

    def stream(self, body: dict) -> "Stream":
        """Begins a streamed chat; returns when the head is there."""
        return Stream(self, body)

    def kill(self) -> None:
        """kill -9, and the corpse is gone."""
        if self.process and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Stream(threading.Thread):
    """A streamed answer, read in a thread of its own as it comes."""

    def __init__(self, node: Node, body: dict):
        super().__init__(daemon=True)
        self.connection = node.connect(node.api)
        self.began = time.monotonic()
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        self.response = self.connection.getresponse()
        self.node = self.response.headers.get("x-mesh-node", "")
        self.text, self.tokens, self.finish, self.error, self.done = "", 0, None, None, False
        self.ids: set[str] = set()
        # When each piece came.
        self.times: list[float] = []
        if self.response.status != 200:
            raise Failed(f"{node.name} answers {self.response.status}: {self.response.read().decode()}")
        self.start()

    def run(self) -> None:
        try:
            for line in self.response:
                if line.startswith(b"data: "):
                    self.take(line[6:].strip())
        except (OSError, http.client.HTTPException) as error:
            self.error = self.error or repr(error)
        finally:
            self.connection.close()

    def take(self, data: bytes) -> None:
        """One event."""
        self.times.append(time.monotonic())
        if data == b"[DONE]":
            self.done = True
            return
        chunk = json.loads(data)
        if chunk.get("error"):
            self.error = chunk["error"]
            return
        self.ids.add(chunk["id"])
        if chunk.get("usage"):
            self.tokens = chunk["usage"]["completion_tokens"]
        for choice in chunk["choices"][:1]:
            delta = choice["delta"]
            self.text += (delta.get("content") or "") + (delta.get("reasoning_content") or "")
            self.finish = choice.get("finish_reason") or self.finish

    def until(self, characters: int) -> None:
        """Waits for so many characters."""
        end = time.monotonic() + PATIENCE
        while len(self.text) < characters:
            if not self.is_alive() or time.monotonic() > end:
                raise Failed(f"the stream ended before it could be disturbed: {self.error}")
            time.sleep(0.001)

    def whole(self) -> "Stream":
        """Waits for its end."""
        self.join(PATIENCE)
        if self.is_alive():
            raise Failed(f"a stream hangs after {len(self.text)} characters")
        return self

    def pause(self, since: float) -> float:
        """The longest time without a piece, from a moment on."""
        times = [since] + [moment for moment in self.times if moment > since]
        return max((later - earlier for earlier, later in zip(times, times[1:])), default=0.0)

    def must_equal(self, text: str) -> None:
        """It is whole, and exactly the undisturbed one."""
        if self.error or not self.done or self.finish != "length" or len(self.ids) != 1:
            raise Failed(f"the stream is not whole: finish {self.finish}, {len(self.ids)} ids, error {self.error}")
        if self.text != text:
            raise Failed(f"the stream says something else: {len(self.text)} characters, undisturbed {len(text)}")


def each(nodes: list[Node], test, what: str, patience: float = PATIENCE) -> dict[str, float]:
    """Looks at all of them until the test holds once for each; the seconds that each took."""
    start, took, waiting, last = time.monotonic(), {}, list(nodes), {}
    while waiting:
        for node in list(waiting):
            try:
                good, last[node.name] = test(node), ""
            except (OSError, http.client.HTTPException, ValueError) as error:
                good, last[node.name] = False, repr(error)
            if good:
                took[node.name] = time.monotonic() - start
                waiting.remove(node)
        if time.monotonic() - start > patience and waiting:
            names = ", ".join(f"{node.name} {last[node.name]}".strip() for node in waiting)
            raise Failed(f"not within {patience:g} s: {what} (at {names})")
        time.sleep(LOOK)
    return took


def median(values: list[float]) -> float:
    """The one in the middle."""
    return sorted(values)[len(values) // 2]


def percentile(values: list[float], of: float) -> float:
    """The value that so many per cent do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * of / 100))]
