"""What it costs a live session to be traced or captured: `python -m bench.capture_and_trace_cost`.

A session without an engine is given 100 ms chunks, each followed by a partial, in turns: with
nobody who watches, with traces (to a collector on the loopback that takes them), and with a
capture. Figures are processor time of the event loop's thread for each chunk, the least of the
rounds.
"""

from __future__ import annotations

import asyncio
import http.server
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sidecar.config.settings import load_settings
from sidecar.interfaces.live_events import Final, InputProcessed, Partial, SpeechStarted
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions import capture_writer
from sidecar.live.sessions.capture_writer import CaptureObserver
from sidecar.live.sessions.input_log import InputLogTotals
from sidecar.live.sessions.session import Session, SessionObserverFactory
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.live.sessions.session_traces import SessionTracer
from sidecar.service.facade import create_tracing
from sidecar.transcripts.transcript import Segment

CHUNKS, ROUNDS = 2_000, 7
CHUNK = bytes(3_200)


class Taker(http.server.BaseHTTPRequestHandler):
    """Takes all and says yes."""

    def do_POST(self) -> None:
        """A batch."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


async def seconds(observers: list[SessionObserverFactory]) -> float:
    """Of one session, its chunks all sent and told of; every twentieth ends an utterance."""
    session = Session(
        "bench", "me", LiveOptions(), SessionBounds(buffer_s=60.0), InputLogTotals(1 << 30)
    )
    session.observers = [observer.begin(session) for observer in observers]
    began = time.thread_time()
    for number in range(CHUNKS):
        await session.send(CHUNK)
        session.sound.take()
        at = session.received_s
        session.heard(InputProcessed(at, at))
        if number % 20 == 0:
            session.heard(SpeechStarted(number, at))
        session.heard(Partial(number, 0, at, at, "what seems to be said now"))
        if number % 20 == 19:
            session.heard(Final(number, 0, Segment(at, at, "what was said"), work_s=0.1))
    session.end()
    return time.thread_time() - began


def main() -> None:
    """Print the table."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{server.server_address[1]}"
    traces = create_tracing("bench")
    folder = Path(tempfile.mkdtemp())
    settings = load_settings(data_dir=folder, journal_key="0" * 32)
    capture_writer.MAX_QUEUED_CHUNKS = 1 << 20
    captures = CaptureObserver(settings, "bench")
    kinds: dict[str, Callable[[], list[SessionObserverFactory]]] = {
        "nobody": list,
        "traces": lambda: [SessionTracer(traces, "bench", lambda: (0.0, 0.0))],
        "capture": lambda: [captures],
    }
    least = dict.fromkeys(kinds, float("inf"))
    for _ in range(ROUNDS):
        for name, make in kinds.items():
            least[name] = min(least[name], asyncio.run(seconds(make())))
    print("| who watches | µs a chunk |\n|---|---|")
    for name, spent in least.items():
        print(f"| {name} | {spent / CHUNKS * 1e6:.1f} |")
    traces.close()
    captures.close()
    for path in folder.iterdir():
        path.unlink()
    os.rmdir(folder)


if __name__ == "__main__":
    main()
