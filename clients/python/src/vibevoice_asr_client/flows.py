"""What is done one after the other for one call of a client, and for the events of one job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Awaitable, Callable, Optional, Union

from httpx_sse import ServerSentEvent

from vibevoice_asr_client import calls
from vibevoice_asr_client.calls import EVENT_STREAM, Answer, Call
from vibevoice_asr_client.errors import (
    AnswerNotUnderstood,
    CertificateRefused,
    ClientError,
    ConnectionLost,
    ServiceError,
    ServiceUnreachable,
)
from vibevoice_asr_client.models import Event, event_of
from vibevoice_asr_client.retry import PASSING, Retry

LIMITED = 429
NOTHING_DONE = frozenset(
    {"queue_full", "uploads_full", "machine_busy", "decoder_stopped", "shutting_down"}
)
"""Said, as `LIMITED` is, before anything was done: what must not be done twice may be sent again.
Other answers that pass say nothing of it: `journal_unreachable` comes behind an edit, too."""
NOT_FOUND = 404
LONGEST_ASKED_MS = 10**9
BEHIND = "behind"
"""The event of a stream that was read too slowly, its last: it goes on after what was read."""


@dataclass(frozen=True)
class Lost:
    """No answer. ``sent``: whether the service may have done what it was asked for."""

    error: ServiceUnreachable
    sent: bool


@dataclass(frozen=True)
class Surroundings:
    """What decisions need of the world: patience, chance (0 to 1), the time of day."""

    retry: Retry
    chance: Callable[[], float]
    now: Callable[[], datetime]


async def asking(
    call: Call,
    around: Surroundings,
    send: Callable[[Call], Awaitable[Union[Answer, Lost]]],
    sleep: Callable[[float], Awaitable[None]],
) -> Answer:
    """Ask by ``send`` until there is an answer, or it has been enough.

    Raises:
        ServiceUnreachable: there was none.
        ServiceError: the service refused.
        AnswerNotUnderstood: somebody else answers.
    """
    failures, perhaps_done = 0, False
    while True:
        reply = await send(call)
        if isinstance(reply, Answer) and reply.fine:
            return reply
        error: ClientError
        asked_s: Optional[float] = None
        if isinstance(reply, Answer):
            if call.ends and perhaps_done and reply.status == NOT_FOUND:
                return reply  # an attempt before has done it
            error = reply.error(around.now())
            asked_s = error.retry_after
            nothing_done = reply.status == LIMITED or error.code in NOTHING_DONE
            passes = reply.status in PASSING
        else:
            error = reply.error
            nothing_done = not reply.sent
            passes = not isinstance(error, CertificateRefused)
        perhaps_done = perhaps_done or not nothing_done
        again = passes and (call.again or nothing_done)
        failures += 1
        wait_s = around.retry.wait_s(failures, around.chance(), asked_s) if again else None
        if wait_s is None:
            raise error
        if around.retry.on_wait is not None:
            around.retry.on_wait(error)
        await sleep(wait_s)


class Following:
    """The events of one job, over as many connections as it takes: none lost, none twice."""

    def __init__(self, job_id: str, after: Optional[int], around: Surroundings) -> None:
        self.ended = False
        self._job_id = job_id
        self._last = after
        self._around = around
        self._failures = 0
        self._asked_s = 0.0
        self._heard = False

    @property
    def call(self) -> Call:
        """The request for what comes next."""
        return calls.events(self._job_id, self._last)

    def opened(self, answer: Answer) -> Optional[ClientError]:
        """There is an answer, whose body has events; or what the service refused with for now.

        Raises:
            ServiceError: the service refused, for good.
            AnswerNotUnderstood: it is something else.
        """
        self._asked_s, self._heard = 0.0, False
        if not answer.fine:
            error = answer.error(self._around.now())
            if answer.status not in PASSING:
                raise error
            return error
        if answer.status == 204:  # nothing more will come, as the standard has it
            self.ended = True
        elif not answer.headers.get("content-type", "").startswith(EVENT_STREAM):
            raise AnswerNotUnderstood("What answers sends no events.")
        return None

    def took(self, told: ServerSentEvent) -> Optional[Event]:
        """The event in what was sent, unless it was there already."""
        if told.retry is not None:
            self._asked_s = min(told.retry, LONGEST_ASKED_MS) / 1000
        event = event_of(told)
        if event is None:
            return None
        if event.kind == BEHIND:
            self._heard = True
            return None
        # Also where it was there already: a proxy may drop the header that says so.
        self.ended = self.ended or event.ends
        if event.id is not None:
            if self._last is not None and event.id <= self._last:
                return None
            self._last = event.id
        self._heard, self._failures = True, 0
        return event

    def closed(self, error: Optional[ClientError] = None) -> float:
        """The connection is no more; how long to wait before the next.

        Raises:
            ClientError: it has been enough; ``error``, or `ConnectionLost`.
        """
        if isinstance(error, CertificateRefused):
            raise error
        if self._heard and error is None:  # told to come again from where it was
            return 0.0
        self._failures += 1
        asked_s = error.retry_after if isinstance(error, ServiceError) else None
        wait_s = self._around.retry.wait_s(self._failures, self._around.chance(), asked_s)
        if wait_s is None:
            raise error or ConnectionLost("The service sends no more events of this job.")
        if self._around.retry.on_wait is not None and error is not None:
            self._around.retry.on_wait(error)
        return max(wait_s, self._asked_s)

    @property
    def silent(self) -> bool:
        """Whether the last connection ended without anything new: the job may be over for long."""
        return not self._heard
