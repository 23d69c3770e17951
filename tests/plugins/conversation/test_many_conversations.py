"""Many conversations at once: none hears another's words or sound, and nothing piles up."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from module_services import open_service as open_service
from s2s_client import IN_RATE, OUT_RATE, Page
from service_process import Server, until, wait_until

from bench.conversation import model
from sidecar.auth.identity import ANONYMOUS
from sidecar.interfaces.engine_interface import LoadOptions, SynthesisOptions
from sidecar.interfaces.tts_text import SentenceSplitter
from sidecar.plugins.conversation.chat_completions import REPEAT_PREFIX
from sidecar.plugins.conversation.conversation_events import ReplyEnded, TextTyped
from sidecar.plugins.conversation.conversation_loop import ConversationLoop
from sidecar.plugins.conversation.conversation_registry import ConversationRegistry
from sidecar.plugins.conversation.tts.scripted_tts import ScriptedTts
from sidecar.service.facade import Service
from sidecar.workers.worker_operations import resample_speech

MANY = 10
TURNS = 20
BREATH_S = 1.0
"""Before a turn: who says the same as an answer right behind it is its echo."""
EDGES = 2
"""Words of a turn that may sound otherwise: at its edges is silence."""


def sound_of(answer: str) -> bytes:
    """All samples of an answer that is heard to its end."""
    voice, sentences = ScriptedTts(), SentenceSplitter()
    list(voice.load(LoadOptions(speaks=True)))
    pieces = [piece for word in answer.split() for piece in sentences.feed(f"{word} ")]
    texts = [piece.text for piece in pieces + sentences.flush() if piece.text]
    said = (voice.say(text, SynthesisOptions(), lambda: False) for text in texts)
    return b"".join(sound.pcm for one in said for sound in resample_speech(one, OUT_RATE))


async def answered(page: Page) -> str:
    """What somebody is taken to have said, once the answer to just that was heard to its end."""
    before = len(page.messages)
    said = await page.until("transcript")
    meant = f"{REPEAT_PREFIX} {said['user']}"
    assert said["assistant"] == meant
    heard = b"".join(one for one in page.messages[before:] if isinstance(one, bytes))
    assert heard == await asyncio.to_thread(sound_of, meant)
    assert page.codes() == page.notices == []
    await page.until("status", state="ready")
    await asyncio.sleep(BREATH_S)  # real time: a longer breath makes no echo either
    return str(said["user"])


async def converse(server: Server, number: int) -> None:
    """Type and speak words that no other conversation has; each has a loudness of its own."""
    level = 3000 + 1700 * number
    word = f"w{int(level / 32767 * 1000)}"
    loud = np.full(round(1.2 * IN_RATE), level, "<i2").tobytes()
    async with Page(server) as page:
        await page.until("status", state="ready")
        for turn in range(2):
            typed = f"conversation{number} turn{turn} alpha{number} beta{turn} gamma delta epsilon"
            await page.send(type="text", text=typed)
            assert await answered(page) == typed
            await page.speak(loud + bytes(2 * round(0.9 * IN_RATE)))
            words = (await answered(page)).split()
            assert len(words) >= 3
            assert len(words) - words.count(word) <= EDGES


@pytest.mark.posix("file descriptors by number")
@pytest.mark.slow
async def test_ten_parallel_conversations_get_their_own_words_and_audio_and_close_all_files(
    tmp_path: Path,
) -> None:
    settings = {"voice_engine": "scripted", "llm_model": "repeats", "conversations": MANY}
    with model() as (url, _), Server(tmp_path, llm=url, **settings) as server:  # type: ignore[arg-type]
        await asyncio.gather(*(converse(server, number) for number in range(MANY)))
        open_files = server.process.num_fds()
        await asyncio.gather(*(converse(server, number) for number in range(MANY)))

        def nothing_more() -> bool:
            return bool(server.process.num_fds() <= open_files)

        await asyncio.to_thread(wait_until, nothing_more, "no file stays open")


async def test_tasks_of_a_conversation_do_not_grow_with_its_turns(
    open_service: Callable[..., Awaitable[Service]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_LETTER", "0.001")
    service = await open_service(voice_engine="scripted")
    before = len(asyncio.all_tasks())
    async with AsyncExitStack() as stack:
        conversations = ConversationRegistry.of(service)
        options = conversations.options()
        talk = await stack.enter_async_context(
            conversations.open(ANONYMOUS, options, SynthesisOptions(), clears=True)
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
    asked_at_rest = 2  # whether they hear: the recognizer and the voice, which are there now
    await until(lambda: len(asyncio.all_tasks()) <= before + asked_at_rest)


async def _answered(talk: ConversationLoop) -> None:
    talk.request(TextTyped, "Yes.")
    async for out in talk.outgoing():
        if isinstance(out, ReplyEnded):
            break
