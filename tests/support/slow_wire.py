"""A network cable with delay, loss and a rate limit, in user space: `slow_wire.py PID_A NAME_A PID_B NAME_B [MTU]`.

The kernel's `netem` is not compiled into every kernel, and this needs only /dev/net/tun. The cable is a TAP device in
the network namespace of each process, and this program carries every Ethernet frame from one to the other. It prints
"ready", and then reads its condition from standard input, one per line: `DELAY_S LOSS BITS_PER_S`, for each direction
(0 bits per second: no limit). It ends with its standard input.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import selectors
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
CLONE_NEWNET = 0x40000000
MAX_FRAME = 65536
QUEUE_S = 1.0  # frames that a rate limit would delay for longer are dropped, as by a router with a full queue


def open_tap(pid: int, name: str) -> int:
    """Create a TAP device in the network namespace of a process; this process stays in that namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(namespace)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return device


class Wire:
    """Both directions of the cable.

    Attributes:
        delay_s, loss, rate: of each direction; rate in bits per second, 0 for no limit.
    """

    def __init__(self, ends: tuple[int, int], seed: int = 0) -> None:
        self._other = {ends[0]: ends[1], ends[1]: ends[0]}
        self._free_at = dict.fromkeys(ends, 0.0)  # when the direction has sent all frames before
        self._queue: list[tuple[float, int, int, bytes]] = []
        self._number = 0
        self._random = random.Random(seed)
        self.delay_s, self.loss, self.rate = 0.0, 0.0, 0.0

    def receive(self, end: int) -> None:
        """Take the frames that have arrived at one end."""
        for _ in range(64):
            try:
                frame = os.read(end, MAX_FRAME)
            except BlockingIOError:
                return
            if self._random.random() < self.loss:
                continue
            now = time.monotonic()
            sent = max(now, self._free_at[end]) + (8 * len(frame) / self.rate if self.rate else 0.0)
            if sent - now > QUEUE_S:
                continue
            self._free_at[end] = sent
            self._number += 1
            heapq.heappush(self._queue, (sent + self.delay_s, self._number, self._other[end], frame))

    def deliver(self) -> float | None:
        """Deliver the frames that are due. Returns the seconds until the next one, None if there is none."""
        while self._queue:
            wait = self._queue[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, _, end, frame = heapq.heappop(self._queue)
            try:
                os.write(end, frame)
            except OSError:
                pass  # the queue of the device is full, or it is down: a lost frame
        return None


def main() -> None:
    pid_a, name_a, pid_b, name_b = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    ends = open_tap(pid_a, name_a), open_tap(pid_b, name_b)
    wire = Wire(ends)
    selector = selectors.DefaultSelector()
    for end in ends:
        selector.register(end, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select(wire.deliver()):
            if key.fd in ends:
                wire.receive(key.fd)
            elif line := sys.stdin.readline():
                wire.delay_s, wire.loss, wire.rate = map(float, line.split())
                print("set", flush=True)
            else:
                return


if __name__ == "__main__":
    main()
