"""Each stage of a conversation killed, hung or broken in the middle: what went wrong is told by its
code, the next turn works, and nothing is left behind. Real processes, real sockets."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import pytest
from http_file_server import FileHost
from llm_server import WORDS, Obedient
from module_services import mind as mind
from s2s_client import Page
from scripted_speech import tone
from service_process import PATIENCE_S, Server, StartServer, wait_until

from sidecar.interfaces.engine_interface import LoadOptions, SynthesisOptions, UpstreamOptions
from sidecar.plugins.conversation.errors import SpeechFailed
from sidecar.plugins.conversation.tts import openai_tts

LONG = " ".join(["This is a long answer that goes on, so that there is time before it ends."] * 20)
ANSWER = "".join(WORDS)
LETTER_S = 0.01
"""Of what is said; the pause behind a word is as long."""
LONG_ENOUGH_S = 10 * LETTER_S
"""Shorter than any answer that is heard to its end."""
APOLOGY_S = 20 * LETTER_S
"""Shorter than what is said where there is nothing else to say."""
POISON = 0.6
OTHER_LEVEL, OTHER_WORD = 0.2, "w199"
"""A loudness, and the word that the scripted engine hears then."""
RESTARTED = "engine_restarted"
posix = pytest.mark.posix("signals")


@pytest.fixture(scope="module")
def thoughtful(tmp_path_factory: pytest.TempPathFactory, mind: Obedient) -> Iterator[Server]:
    """Scripted words and short tones, and ``mind``."""
    settings = {"voice_engine": "scripted", "scripted_letter": LETTER_S, "conversations": 20}
    with Server(tmp_path_factory.mktemp("thoughtful"), llm=mind.url, **settings) as one:  # type: ignore[arg-type]
        yield one


@pytest.fixture(scope="module")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Nobody thinks, so that there is only a recognizer and a voice to be killed; a tone as loud
    as `POISON` kills the recognizer."""
    home = tmp_path_factory.mktemp("parrot")
    settings = {"scripted_say": 0.1, "scripted_letter": LETTER_S, "conversations": 20}
    # a worker takes its time to start, as it does for users
    with Server(
        home, fresh=True, voice_engine="scripted", scripted_poison="w599,w600", **settings
    ) as one:
        yield one


def pid(server: Server, role: str) -> int:
    """The process of the engine that is there for that, or will be."""

    def there() -> int | None:
        engines = server.client.get("/metrics.json").json()["vibevoice"]["engines"]
        return {one["role"]: one["pid"] for one in engines}[role]

    return int(wait_until(there, f"there is a process for {role}"))


async def test_stopped_llm_server_is_an_error_and_a_restarted_one_answers(
    thoughtful: Server, mind: Obedient
) -> None:
    async with Page(thoughtful) as page:
        await page.turn("Be plain")
        mind.go()
        codes, transcript = await page.turn("Be plain")
        assert (codes, transcript["assistant"]) == (["llm_unreachable"], "")
        mind.come()
        codes, transcript = await page.turn("Be plain")
        assert (codes, transcript["assistant"]) == ([], ANSWER)


@pytest.mark.slow_except("SIGKILL")
@posix
@pytest.mark.parametrize("by", ["SIGKILL", "SIGSTOP"])
async def test_dead_or_hung_tts_process_fails_only_the_reply_it_spoke_not_the_next_turn(
    parrot: Server, by: str
) -> None:
    async with Page(parrot) as page, Page(parrot) as other:
        await page.send(type="text", text=LONG)
        await page.sound()
        os.kill(pid(parrot, "voice"), getattr(signal, by))
        codes, transcript = await other.turn("And me?")  # who began nothing yet loses nothing
        assert (codes, transcript["assistant"]) == ([], "You said: And me?")
        assert other.heard_s > LONG_ENOUGH_S
        assert (await page.until("error"))["code"] == "engine_failed"
        await page.until("status", state="ready")
        before = page.heard_s
        codes, transcript = await page.turn("And now?")
        assert (codes, transcript["assistant"]) == ([], "You said: And now?")
        assert page.heard_s - before > LONG_ENOUGH_S


@pytest.mark.slow
@posix
async def test_recognizer_killed_twice_by_one_utterance_is_an_error_and_hears_the_next(
    parrot: Server,
) -> None:
    async with Page(parrot) as page:
        speaking = asyncio.create_task(page.speak(tone(1.0, POISON) + tone(1.0, 0)))
        assert (await page.until("error"))["code"] == "engine_crashed"
        assert page.notices.count(RESTARTED) == 1
        await speaking
        transcript = await page.until("transcript")
        said = transcript["user"]  # words that were there before may do, or there were none
        assert transcript["assistant"] == (f"You said: {said}" if said else "")
        # An answer, or what is said instead; who is heard once more speaks over it.
        assert page.heard_s > APOLOGY_S or transcript["interrupted"]
        await page.until("status", state="ready")
        before = len(page.messages)
        # The same words would be an echo of the answer.
        other_words = tone(2.0, OTHER_LEVEL) + tone(1.0, 0)
        speaking = asyncio.create_task(page.speak(other_words))
        transcript = await page.until("transcript")
        if OTHER_WORD not in transcript["user"]:
            # The engine was back within the first tone, the rest of which was a turn of its own.
            transcript = await page.until("transcript")
        await speaking
        assert len(transcript["user"].split()) == pytest.approx(8, abs=1)
        assert transcript["assistant"] == f"You said: {transcript['user']}"
        assert page.codes(before) == []


@pytest.mark.slow
async def test_silent_conversation_ends_by_its_own_idle_limit_not_that_of_live_sessions(
    start_server: StartServer,
) -> None:
    server = start_server(voice_engine="none", limits={"talk_idle": 1}, live_idle=PATIENCE_S)
    async with Page(server) as page:
        assert (await page.until("error"))["code"] == "session_idle"


class Speech(FileHost):
    """`/v1/audio/speech` that does as it is told by what it is to say. What hangs does so until
    ``go_on`` is set."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        how = json.loads(self.read_body(request))["input"].split()[-1]
        status, kind, length, sound = SPEECHES.get(how, (200, "audio/pcm", 24_000, bytes(24_000)))
        if how == "hangs":
            self.go_on.wait(PATIENCE_S)
        request.close_connection = len(sound) < length or how == "gone"
        if how != "gone":
            self.head(request, status, length, {"content-type": kind})
            request.wfile.write(sound)


SPEECHES: dict[str, tuple[int, str, int, bytes]] = {
    "locked": (401, "application/json", 9, b'{"a": {}}'),
    "broken": (500, "text/plain", 4, b"Oops"),
    "json": (200, "application/json", 16, b'{"error": "no!"}'),
    "page": (200, "text/html", 6, b"<html>"),
    "file": (200, "application/octet-stream", 8, b"RIFF\x01\x00\x00\x00"),
    "empty": (200, "audio/pcm", 0, b""),
    "breaks": (200, "audio/pcm", 96_000, bytes(24_000)),
    "gone": (0, "", 0, b""),
}


@pytest.fixture(scope="module")
def speech_url() -> Iterator[str]:
    """A server that does as it is told."""
    with Speech() as speech:
        yield speech.url


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory, speech_url: str) -> Iterator[Server]:
    """Its voice is that server."""
    home = tmp_path_factory.mktemp("remote")
    with Server(home, voice_engine="speech", speech_url=speech_url, conversations=20) as one:
        yield one


async def test_failing_tts_server_is_an_error_the_reply_stays_text_and_the_next_is_spoken(
    remote: Server,
) -> None:
    async def conversation(how: str) -> None:
        async with Page(remote) as page:
            codes, first = await page.turn(how)
            assert codes == ["speech_failed"], how
            assert first["assistant"] == f"You said: {how}", "it is read instead"
            assert page.heard_s == pytest.approx(0.5 if how == "breaks" else 0.0), how
            before = page.heard_s
            codes, second = await page.turn("again")
            assert (codes, second["assistant"]) == ([], "You said: again"), how
            assert page.heard_s - before == pytest.approx(0.5), how

    await asyncio.gather(*(conversation(how) for how in SPEECHES))


def test_silent_tts_server_is_an_error_after_the_read_timeout(speech_url: str) -> None:
    voice = openai_tts.OpenAiTts(read_timeout_s=0.2)
    upstream = UpstreamOptions((speech_url,), keys=("",))
    assert list(voice.load(LoadOptions(upstream=upstream))) == [1.0]
    with pytest.raises(SpeechFailed, match="sent nothing"):
        next(voice.say("hangs", SynthesisOptions(), lambda: False))


@pytest.mark.parametrize("which", ["thoughtful", "parrot", "remote"])
async def test_broken_off_conversations_leave_no_additional_open_files_or_workers(
    which: str, request: pytest.FixtureRequest
) -> None:
    """After all tests before: as many open files as a conversation that went well leaves."""
    server: Server = request.getfixturevalue(which)

    async def settled() -> int:
        async with Page(server) as page:
            await page.turn("Be plain")

        def over() -> bool:
            return server.health()["active_sessions"] == 0

        await asyncio.to_thread(wait_until, over, "nobody talks")
        return int(server.process.num_fds())

    first = await settled()
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(_broken_off(server))
    while await settled() > first:
        pass  # what was broken off may not have let go of its files yet

    def few() -> bool:
        return len(server.process.children()) <= 3

    await asyncio.to_thread(wait_until, few, "no worker is left")


async def _broken_off(server: Server) -> None:
    async with Page(server) as page:
        await page.send(type="text", text=LONG)
        with suppress(AssertionError):
            await page.sound()
