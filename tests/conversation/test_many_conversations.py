"""Many conversations at once: none hears another's words or sound, and nothing piles up."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from many_conversations import Counts, converse
from module_services import open_service as open_service
from service_process import Server, until, wait_until

from bench.conversation import model
from sidecar.auth.identity import ANONYMOUS
from sidecar.conversation.conversation_events import ReplyEnded, TextTyped
from sidecar.conversation.conversation_loop import ConversationLoop
from sidecar.interfaces.engine_interface import SynthesisOptions
from sidecar.service.facade import Service

MANY = 10
TURNS = 20


@pytest.mark.slow
async def test_ten_parallel_conversations_get_their_own_words_and_samples(tmp_path: Path) -> None:
    settings = {"voice_engine": "scripted", "llm_model": "repeats", "conversations": MANY}
    with model() as (url, _), Server(tmp_path, llm=url, **settings) as server:  # type: ignore[arg-type]
        counts = Counts()
        await converse(server, MANY, 2.0, counts)
        assert counts.wrong == []
        assert counts.turns.keys() == {"spoken", "typed", "spoken_over"}
        assert sum(counts.turns.values()) >= MANY
        open_files = server.process.num_fds()
        await converse(server, MANY, 0.0, counts)
        assert counts.wrong == []

        def nothing_more() -> bool:
            return bool(server.process.num_fds() <= open_files)

        await asyncio.to_thread(wait_until, nothing_more, "no file stays open")


async def test_conversation_has_no_more_tasks_after_many_turns(
    open_service: Callable[..., Awaitable[Service]],
) -> None:
    service = await open_service(voice_engine="scripted")
    before = len(asyncio.all_tasks())
    async with AsyncExitStack() as stack:
        options = service.conversations.options()
        talk = await stack.enter_async_context(
            service.conversations.open(
                ANONYMOUS, options, SynthesisOptions(speed=20.0), clears=True
            )
        )
        running = asyncio.create_task(talk.run())
        await _answered(talk)
        first = len(asyncio.all_tasks())
        for _ in range(TURNS):
            await _answered(talk)
        a_task_each = first + TURNS // 2  # or less: some may not have ended yet, or begun
        await until(lambda: len(asyncio.all_tasks()) < a_task_each)
        running.cancel()
        await asyncio.wait({running})
    asked_at_rest = 2  # whether they hear: the recogniser and the voice, which are there now
    await until(lambda: len(asyncio.all_tasks()) <= before + asked_at_rest)


async def _answered(talk: ConversationLoop) -> None:
    talk.wish(TextTyped, "Yes.")
    async for out in talk.outgoing():
        if isinstance(out, ReplyEnded):
            break
