"""What taking in a long upload costs. Run ``python -m bench.upload_cost``.

A two-hour recording (the wheel's clips in a loop; wav, flac and mp3) is posted to a fresh server
with the scripted engine. Measured: the highest resident memory of the API process (VmHWM: the
kernel's own record) until the answer is there; the highest sum over the API process and its
workers (sampled every 50 ms); how fast the upload is taken in, from the first byte to the last one
sent, beside the same bytes sent by the same code to a plain process that reads a socket into a
file (``cat``), in turns; and what is left in the spool folder, as a name or as an open descriptor.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench import serving
from bench.serving import Server, median, ours, table, verdict

GOAL_MB = 250.0
_PIECE = 1 << 18
_CAT = """
import socket, sys, tempfile
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    with connection, tempfile.TemporaryFile(dir=sys.argv[1], buffering=0) as file:
        while data := connection.recv(1 << 16):
            file.write(data)
        connection.sendall(b"taken")
"""


@contextmanager
def cat(folder: Path) -> Iterator[int]:
    """The port of a process that reads whatever comes into a file."""
    command = [sys.executable, "-c", _CAT, str(folder / "spool")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def send(sock: socket.socket, head: bytes, recording: Path, tail: bytes) -> float:
    """Send a recording with what stands around it; the MB per second."""
    begun = time.perf_counter()
    sock.sendall(head)
    with recording.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            sock.sendall(piece)
    sock.sendall(tail)
    return recording.stat().st_size / 1e6 / (time.perf_counter() - begun)


def send_to_cat(port: int, recording: Path) -> float:
    """The MB per second of the plain process."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        speed = send(sock, b"", recording, b"")
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(16) == b"taken"
    return speed


def send_to_server(port: int, recording: Path) -> tuple[float, int]:
    """The MB per second of an upload to the service, and the segments of its answer."""
    head, tail = serving.form_ends({})
    length = len(head) + recording.stat().st_size + len(tail)
    request = (
        f"POST /transcribe HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: {serving.FORM_TYPE}\r\nContent-Length: {length}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as sock:
        speed = send(sock, request.encode() + head, recording, tail)
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    header, _, body = answer.partition(b"\r\n\r\n")
    if not header.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(answer[:500].decode(errors="replace"))
    return speed, len(json.loads(body)["segments"])


@contextmanager
def sampled(server: Server, pause_s: float = 0.05) -> Iterator[list[tuple[float, float]]]:
    """(API process, whole tree) in resident MB, every ``pause_s``."""
    samples: list[tuple[float, float]] = []
    enough = threading.Event()

    def sample() -> None:
        while not enough.wait(pause_s):
            tree = server.tree()
            samples.append((serving.rss(tree[:1]), serving.rss(tree)))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        enough.set()
        thread.join()


def left_over(server: Server, spool: Path) -> str:
    """What still lies in the spool folder, by name or held open; 'nothing'."""
    names = [path.name for path in spool.iterdir()]
    held = 0
    if sys.platform == "linux":  # an upload has no name there, only descriptors
        for process in server.tree():
            for link in Path(f"/proc/{process.pid}/fd").iterdir():
                held += link.exists() and str(link.readlink()).startswith(str(spool))
    return f"{len(names)} names, {held} open" if names or held else "nothing"


def measure(folder: Path, suffix: str, hours: float, rounds: int) -> tuple[str, ...]:
    """One row of the table."""
    recording = serving.looped(folder, hours * 3600, suffix)
    ours_mbs, cat_mbs, peaks, trees = [], [], [], []
    left = "nothing"
    segments = 0
    with cat(folder) as port:
        for _ in range(rounds):
            with ours(folder, engine="scripted") as server:
                idle = serving.rss([psutil.Process(server.pid)])
                with sampled(server) as samples:
                    speed, segments = send_to_server(server.port, recording)
                    ours_mbs.append(speed)
                peaks.append(serving.peak_rss(server.pid) or max(api for api, _ in samples))
                trees.append(max(tree for _, tree in samples))
                found = left_over(server, folder / "spool")
                left = found if found != "nothing" else left
            cat_mbs.append(send_to_cat(port, recording))
    size = recording.stat().st_size / 1e6
    recording.unlink()
    ratio = median(ours_mbs) / median(cat_mbs)
    return (
        suffix,
        f"{size:.0f}",
        f"{idle:.0f}",
        f"{max(peaks):.0f}",
        verdict(max(peaks), GOAL_MB),
        f"{max(trees):.0f}",
        f"{median(ours_mbs):.0f}",
        f"{median(cat_mbs):.0f}",
        f"{ratio:.2f}",
        f"{segments}",
        left,
    )


def main() -> None:
    """Measure every format."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=2.0, help="length of the recording")
    parser.add_argument("--formats", nargs="+", default=["wav", "flac", "mp3"])
    parser.add_argument("--rounds", type=int, default=3, help="of each format")
    given = parser.parse_args()
    print(serving.machine())
    with serving.workshop() as folder:
        rows = [measure(folder, name, given.hours, given.rounds) for name in given.formats]
    headers = (
        "upload",
        "MB",
        "idle MB",
        "API peak MB",
        "goal",
        "tree peak MB",
        "in MB/s",
        "cat MB/s",
        "ratio",
        "segments",
        "left behind",
    )
    title = f"intake: {given.hours:g} h, worst memory and median speed of {given.rounds}"
    table(title, headers, rows)
    if sys.platform != "linux":
        print("\nNot Linux: the API's peak is the system's or the sampler's, not VmHWM.")


if __name__ == "__main__":
    main()
