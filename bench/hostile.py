"""Latency of ``/health`` for others beside 16 hostile connections. Run ``python -m bench.hostile``.

The hostile ones are threads of one process and have one address; the others' requests come from
another address, each on a new connection. Each kind of bytes is what costs parsers the most:

chunks    a body in chunks of one byte, without a token
headers   a request with header lines of four bytes, without a token
frames    empty fragments over a WebSocket, without a token
fragments the same in a live session of the attacker's own
samples   audio messages of one sample in a live session of the attacker's own
"""

import http.client
import multiprocessing
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from bench import serving

TOKEN = "0123456789abcdef0123456789abcdef"
GOAL = 2.0
"""Others wait at most so many times as long as on a quiet service."""
_UPGRADE = (
    "GET /v1/live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n"
)
_KEY = f"Authorization: Bearer {TOKEN}\r\n"
_POST = (
    "POST /transcribe HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
)
_BEGIN = b'{"type":"begin"}'
_BEGIN_FRAME = bytes([0x81, 0x80 | len(_BEGIN)]) + b"\0\0\0\0" + _BEGIN
_FRAGMENT = b"\x00\x80\0\0\0\0"
KINDS: dict[str, tuple[Sequence[bytes], bytes]] = {
    "chunks": ((_POST.encode(),), b"1\r\nx\r\n"),
    "headers": ((b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n",), b"a:\r\n"),
    "frames": (((_UPGRADE % "").encode(), b"\x01\x80\0\0\0\0"), _FRAGMENT),
    "fragments": (((_UPGRADE % _KEY).encode(), _BEGIN_FRAME, b"\x02\x80\0\0\0\0"), _FRAGMENT),
    "samples": (((_UPGRADE % _KEY).encode(), _BEGIN_FRAME), b"\x82\x82\0\0\0\0\0\0"),
}


def attack(port: int, kind: str, connections: int, seconds: float) -> None:
    """Send ``kind`` on ``connections``; each is opened again if it is closed."""
    until = time.monotonic() + seconds
    begin, flood = KINDS[kind]

    def send() -> None:
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as sock:
                for part in begin:
                    sock.sendall(part)
                    if part.startswith(b"GET /v1/live"):
                        sock.recv(300)
                while time.monotonic() < until:
                    sock.sendall(flood * 40_000)

    with ThreadPoolExecutor(connections) as threads:
        for _ in range(connections):
            threads.submit(send)


def latencies(port: int, seconds: float) -> list[float]:
    """Return the seconds that each of the others' requests takes, sorted."""
    until, taken = time.monotonic() + seconds, []
    while time.monotonic() < until:
        begun = time.perf_counter()
        other = http.client.HTTPConnection("127.0.0.1", port, 60, source_address=("127.0.0.5", 0))
        with suppress(OSError, http.client.HTTPException):
            other.request("GET", "/health")
            other.getresponse().read()
        other.close()
        taken.append(time.perf_counter() - begun)
        time.sleep(0.02)
    return sorted(taken)


def main() -> None:
    """Measure each kind beside a quiet time."""
    parser = serving.argument_parser(__doc__)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS))
    asked = parser.parse_args()
    rows = []
    with serving.workshop() as folder:
        for kind in asked.only:
            with serving.ours(folder, engine="scripted", token=TOKEN) as server:
                time.sleep(3)  # the rest of the application is imported
                quiet = latencies(server.port, asked.seconds)
                work = server.port, kind, asked.connections, asked.seconds + 1
                attacker = multiprocessing.get_context("spawn").Process(target=attack, args=work)
                attacker.start()
                time.sleep(1)
                taken = latencies(server.port, asked.seconds)
                attacker.join()
            ratios = []
            for share in (0.5, 0.99):
                before, now = (all_[int(len(all_) * share)] for all_ in (quiet, taken))
                ratios += [f"{before * 1000:.1f}", f"{now * 1000:.1f}"]
            goal = serving.verdict(taken[len(taken) // 2] / quiet[len(quiet) // 2], GOAL)
            rows.append((kind, *ratios, str(len(taken)), goal))
    headers = ("kind", "p50 quiet ms", "p50", "p99 quiet ms", "p99", "answers", "goal")
    title = f"/health of others beside {asked.connections} hostile connections"
    serving.table(title, headers, rows)


if __name__ == "__main__":
    main()
