"""Whom a live session may recognise: looked up once, while its client goes on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from service_process import until

from sidecar.auth.identity import ANONYMOUS
from sidecar.engines import engine_spec
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions.session_limits import SessionBounds, SessionLimits
from sidecar.live.sessions.session_registry import SessionRegistry
from sidecar.transcripts.transcript import SpeakerCandidate

if TYPE_CHECKING:
    pass

ANNA = SpeakerCandidate("a", "Anna", ())


async def test_a_change_that_comes_before_it_is_known_who_is_known_keeps_both() -> None:
    asked, answers, engines = list[str](), asyncio.Event(), list[LiveOptions]()

    async def acquaint(options: LiveOptions, owner: str) -> LiveOptions:
        asked.append(owner)
        await answers.wait()
        return replace(options, known_voices=(ANNA,), voiceprints=True)

    @asynccontextmanager
    async def share() -> Any:
        engines.append(session.options)
        await asyncio.Event().wait()
        yield

    sessions = SessionRegistry(
        engine_spec("scripted"),
        share,
        SessionLimits(),
        SessionBounds(),
        add_known_speakers=acquaint,
    )
    session = sessions.open(ANONYMOUS, LiveOptions())
    await until(lambda: asked)
    session.change(LiveOptions(language="de"))
    assert not engines
    answers.set()
    await until(lambda: engines)
    (told,) = engines
    assert (told.language, told.known_voices, told.voiceprints) == ("de", (ANNA,), True)
    session.change(LiveOptions(language="en"))
    assert session.options.known_voices == (ANNA,)
    assert asked == [ANONYMOUS.owner]
    await sessions.close()
