"""wire.py LEFT RIGHT: carries frames between two interfaces, and can delay and lose them. Root.

On standard input, one a line: `delay SECONDS` (each way), `loss_out PERCENT` (from left to right), `loss_in PERCENT`.
Says `ready` once it carries, and ends with its standard input.
"""
import heapq
import os
import random
import select
import socket
import sys
import time

ALL = 3  # ETH_P_ALL
OUTGOING = 4  # PACKET_OUTGOING


def main() -> None:
    dice = random.Random(1)
    settings = {"delay": 0.0, "loss_out": 0.0, "loss_in": 0.0}
    ends = []
    for name in sys.argv[1:3]:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
        end.bind((name, ALL))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        end.setblocking(False)
        ends.append(end)
    left, right = ends
    ways = {left: (right, "loss_out"), right: (left, "loss_in")}
    under_way: list[tuple[float, int, socket.socket, bytes]] = []
    count = 0
    print("ready", flush=True)
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        readable, _, _ = select.select([left, right, sys.stdin], [], [], wait)
        for source in readable:
            if source is sys.stdin:
                said = os.read(0, 4096).decode()
                if not said:
                    return
                for line in said.splitlines():
                    name, value = line.split()
                    settings[name] = float(value)
                continue
            to, loss = ways[source]
            for _ in range(64):
                try:
                    frame, address = source.recvfrom(1 << 17)
                except OSError:
                    break
                if address[2] == OUTGOING or dice.random() * 100 < settings[loss]:
                    continue
                count += 1
                heapq.heappush(under_way, (time.monotonic() + settings["delay"], count, to, frame))
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, to, frame = heapq.heappop(under_way)
            try:
                to.send(frame)
            except OSError:
                pass  # The interface is down: the frame is lost, as on any wire.


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
