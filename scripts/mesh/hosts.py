"""Hosts on one machine: network namespaces, bridges and wires that can be cut. Standard library, iproute2, root."""
import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PREFIX = "mesh-llm-"


def run(*words: object) -> str:
    """A command that must succeed; what it prints."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


def missing() -> str | None:
    """Why there can be no namespaces here; None where there can."""
    if os.geteuid() != 0:
        return "not root"
    if not shutil.which("ip"):
        return "no iproute2"
    probe = f"{PREFIX}{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode != 0:
        return f"no network namespaces: {made.stderr.strip()}"
    try:
        run("ip", "-n", probe, "link", "add", "probe", "type", "bridge")
        run("ip", "-n", probe, "link", "add", "one", "type", "veth", "peer", "name", "two")
    except RuntimeError as error:
        return str(error)
    finally:
        subprocess.run(["ip", "netns", "del", probe], check=False)
    return None


class Namespace:
    """One network namespace."""

    def __init__(self, name: str):
        self.name = name
        run("ip", "netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: object) -> str:
        """`ip` inside it."""
        return run("ip", "-n", self.name, *words)

    @contextlib.contextmanager
    def inside(self):
        """The calling thread's new sockets and processes are in it."""
        with open(f"/proc/self/task/{threading.get_native_id()}/ns/net") as home, \
                open(f"/run/netns/{self.name}") as there:
            enter(there.fileno())
            try:
                yield
            finally:
                enter(home.fileno())


def enter(namespace: int) -> None:
    """Takes the calling thread there."""
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Host(Namespace):
    """A machine with one interface, eth0, on a switch."""

    def __init__(self, net: "Net", name: str, address: str, port: str):
        super().__init__(f"{net.tag}-{name}")
        self.net, self.address, self.port = net, address, port
        self.wire: Wire | None = None

    def readdress(self, address: str) -> None:
        """Another address instead of the one that it has."""
        self.ip("addr", "del", f"{self.address}/24", "dev", "eth0")
        self.ip("addr", "add", f"{address}/24", "dev", "eth0")
        self.address = address

    def plug(self, up: bool) -> None:
        """Its cable at the switch's end: the carrier goes, the addresses stay."""
        self.net.switch.ip("link", "set", self.port, "up" if up else "down")

    def interface(self, up: bool) -> None:
        """Its own interface, as when a laptop leaves the WLAN."""
        self.ip("link", "set", "eth0", "up" if up else "down")


class Wire:
    """A wire in user space, which can delay and lose; see wire.py."""

    def __init__(self, switch: Namespace, left: str, right: str):
        with switch.inside():
            self.process = subprocess.Popen([sys.executable, "-B", Path(__file__).with_name("wire.py"), left, right],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("a wire did not start")

    def set(self, **values: float) -> None:
        """`delay` (seconds, each way), `loss_out` and `loss_in` (per cent, from the host and to it)."""
        for name, value in values.items():
            self.process.stdin.write(f"{name} {value}\n")
        self.process.stdin.flush()


class Net:
    """A switch of one bridge or several, and hosts on it. All of it is gone after `with`."""

    def __init__(self, sites: int = 1):
        self.tag = f"{PREFIX}{os.getpid()}"
        self.sites, self.hosts, self.wires, self.namespaces = sites, [], [], []

    def __enter__(self) -> "Net":
        sweep()
        self.switch = self.add(Namespace(f"{self.tag}-switch"))
        for site in range(self.sites):
            self.switch.ip("link", "add", f"site{site}", "type", "bridge")
            self.switch.ip("link", "set", f"site{site}", "up")
            if site:
                # What a partition cuts.
                self.switch.ip("link", "add", f"trunk{site}", "type", "veth", "peer", "name", f"knurt{site}")
                for end, master in ((f"trunk{site}", "site0"), (f"knurt{site}", f"site{site}")):
                    self.switch.ip("link", "set", end, "master", master, "up")
        return self

    def __exit__(self, *_) -> None:
        for wire in self.wires:
            wire.process.kill()
            wire.process.wait()
        for namespace in self.namespaces:
            subprocess.run(["ip", "netns", "del", namespace.name], capture_output=True, check=False)

    def add(self, namespace: Namespace) -> Namespace:
        """Remembers it, to remove it."""
        self.namespaces.append(namespace)
        return namespace

    def host(self, name: str, site: int = 0, wire: bool = False) -> Host:
        """One more machine; with a wire in user space, where asked for."""
        number = len(self.hosts) + 1
        host = Host(self, name, f"10.77.0.{number}", f"port{number}")
        self.hosts.append(self.add(host))
        self.switch.ip("link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        if wire:
            left, right = f"left{number}", f"right{number}"
            self.switch.ip("link", "add", left, "type", "veth", "peer", "name", right)
            self.switch.ip("link", "set", right, "master", f"site{site}", "up")
            self.switch.ip("link", "set", left, "up")
            self.switch.ip("link", "set", host.port, "up")
            host.wire = Wire(self.switch, host.port, left)
            self.wires.append(host.wire)
            # A user-space wire carries whole frames with their checksums.
            whole_frames(host, "eth0")
            whole_frames(self.switch, right)
        else:
            self.switch.ip("link", "set", host.port, "master", f"site{site}", "up")
        host.ip("addr", "add", f"{host.address}/24", "dev", "eth0")
        host.ip("link", "set", "eth0", "up")
        host.ip("route", "add", "default", "dev", "eth0")
        return host

    def trunk(self, up: bool, site: int = 1) -> None:
        """What connects a site with the first one."""
        self.switch.ip("link", "set", f"trunk{site}", "up" if up else "down")


def whole_frames(namespace: Namespace, device: str) -> None:
    """Has the kernel fill in checksums and cut large packets before this device, not after it."""
    import fcntl
    import socket
    import struct
    with namespace.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in (0x17, 0x1F, 0x24):  # ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP", device.encode(), ctypes.addressof(value))
            fcntl.ioctl(control, 0x8946, request)  # SIOCETHTOOL


def sweep() -> None:
    """Removes what a run left that was killed."""
    for line in run("ip", "netns", "list").splitlines():
        name = line.split()[0]
        owner = name.removeprefix(PREFIX).split("-")[0] if name.startswith(PREFIX) else ""
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            for process in run("ip", "netns", "pids", name).split():
                subprocess.run(["kill", "-9", process], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def settle(seconds: float) -> float:
    """Waits; the moment after."""
    time.sleep(seconds)
    return time.monotonic()
