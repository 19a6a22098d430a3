"""Starting, watching and stopping the servers that are compared."""
import asyncio
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from client import Client


@dataclass
class Contender:
    """A server to measure. `{port}` in the command is replaced; without a model name the first one listed is asked."""

    name: str
    command: list[str]
    model: str | None = None
    env: dict[str, str] = field(default_factory=dict)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One run of a contender, in a process group of its own, from `async with` to its end."""

    def __init__(self, contender: Contender, log: Path, start_timeout: float):
        self.contender, self.log, self.start_timeout = contender, log, start_timeout

    async def __aenter__(self) -> "Server":
        port = free_port()
        base = f"http://127.0.0.1:{port}"
        command = [part.replace("{port}", str(port)) for part in self.contender.command]
        start = time.perf_counter()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=os.environ | self.contender.env, start_new_session=True)
        try:
            self.client = await self.first_answer(base, start + self.start_timeout)
        except BaseException:
            self.stop()
            raise
        self.ready = time.perf_counter() - start
        return self

    async def first_answer(self, base: str, deadline: float) -> Client:
        """A client for the server, once it has answered. Refusals and errors before the deadline mean "loading"."""
        problem = "nothing was tried"
        while time.perf_counter() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.contender.name} exited with {self.process.returncode}; see {self.log}")
            client = None
            try:
                model = self.contender.model or httpx.get(f"{base}/v1/models").json()["data"][0]["id"]
                client = Client(base, model)
                await client.ask("#LONG", 1)
                return client
            except (httpx.HTTPError, RuntimeError, LookupError, ValueError) as error:
                problem = repr(error)
                if client:
                    await client.close()
            await asyncio.sleep(0.1)
        raise RuntimeError(f"{self.contender.name} gave no answer in time ({problem}); see {self.log}")

    def tree(self) -> dict[int, int]:
        """Resident KiB of the process and each of its descendants, by process id."""
        listing = subprocess.run(["ps", "-axo", "pid=,ppid=,rss="], capture_output=True, text=True, check=True).stdout
        rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
        tree, grew = {self.process.pid}, True
        while grew:
            children = {pid for pid, parent, _ in rows if parent in tree} - tree
            tree |= children
            grew = bool(children)
        return {pid: rss for pid, _, rss in rows if pid in tree}

    def memory(self) -> dict[str, float | None]:
        """MiB of the process tree: resident now, and at most so far where the kernel keeps it."""
        tree = self.tree()
        peaks = [peak for pid in tree if (peak := peak_kib(pid)) is not None]
        return {"rss": sum(tree.values()) / 1024, "peak": sum(peaks) / 1024 if peaks else None}

    def others_cpu(self) -> float | None:
        """CPU seconds that the machine has spent so far on anything but this server and this client, on Linux.
        Differences of two readings tell whether a measurement had the machine to itself."""
        try:
            spent = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
            stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.tree()]
        except OSError:
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = spent[:8]
        server = sum(int(field) for stat in stats for field in stat[11:15])
        ticks = user + nice + system + irq + softirq + steal - server
        return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()

    def stop(self) -> None:
        """Ask the process group to go, then make it. A leader that has gone already may leave nothing to signal."""
        for signal_number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, None)):
            try:
                os.killpg(self.process.pid, signal_number)
                self.process.wait(patience)
            except ProcessLookupError:
                self.process.wait()
                return
            except subprocess.TimeoutExpired:
                pass

    async def __aexit__(self, *_) -> None:
        await self.client.close()
        self.stop()


def peak_kib(pid: int) -> int | None:
    """VmHWM of a process, where there is a /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
