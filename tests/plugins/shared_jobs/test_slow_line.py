"""A line to the database on which the events of a long recording take longer than a call may."""

import base64
import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_event_histories import taken
from shared_job_services import service

from sidecar.jobs.job_record import JobState, ReportedChange, StartedChange
from sidecar.plugins.shared_jobs.postgres_settings import CALL_TIMEOUT_S
from sidecar.transcripts.transcript import Finished, Segment, Transcript

TEXT = base64.b64encode(random.Random(1).randbytes(1 << 21)).decode()
"""2.8 MB that hardly get smaller by compression, as encrypted events do not."""


class SlowLine:
    """Forwards connections to a port, so slowly that `TEXT` takes longer than a call may."""

    def __init__(self, port: int) -> None:
        self._to, self._listener = port, socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                there = socket.create_connection(("127.0.0.1", self._to))
                for ends in ((client, there), (there, client)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                # real time: a slow line is one by the clock of the server
                time.sleep(len(piece) / len(TEXT) * 1.3 * CALL_TIMEOUT_S)
                to.sendall(piece)
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def line(journal: str) -> Iterator[SlowLine]:
    with contextlib.closing(SlowLine(int(journal.rsplit(":", 1)[1].split("/")[0]))) as line:
        yield line


async def test_transcript_that_takes_longer_than_a_call_is_reported_and_read_over_a_slow_line(
    journal: str, line: SlowLine, tmp_path: Path
) -> None:
    head, _, rest = journal.rpartition(":")
    address = f"{head}:{line.port}/{rest.split('/', 1)[1]}"
    done = Transcript((Segment(0.0, 3.0, TEXT),), "en", 3.0, "scripted", "fp32")
    async with service(address, tmp_path) as one:
        begun = time.monotonic()  # real time: at least what the line sleeps
        (job,) = await one.submit("a")
        claim = await one.claimed()
        reported = await one.report(
            claim, claim.record, StartedChange(), ReportedChange(Finished(done))
        )
        assert reported is not None, "the claim is lost"
        found = await one.jobs.get(job.id)
        assert found.state is JobState.DONE
        assert found.transcript == done
        with await one.jobs.subscribe(job.id) as events:
            assert [event.seq async for event in taken(events)] == [1, 2]
        # real time: at least what the line sleeps
        assert time.monotonic() - begun > 3 * CALL_TIMEOUT_S, "the line is not slow"
        assert one.database.up
        assert one.database.retried == 0
