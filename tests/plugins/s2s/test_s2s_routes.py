"""A spoken conversation over a real socket: who speaks is answered, and who interrupts is heard."""

import asyncio
import json
from contextlib import suppress

import pytest
from conversation_simulator import Table
from llm_server import completions
from module_services import service_of_module
from s2s_client import Page
from scripted_speech import tone
from service_process import Server, StartServer
from websockets.exceptions import ConnectionClosed

from sidecar.plugins.s2s.routes import S2SDialect

TURN = ["status processing", "sound", "metrics", "transcript", "status ready"]
LONG = (
    "This is a long answer that goes on and on, so that somebody can say something before it ends."
)
LONGER = " ".join([LONG] * 100)
"""Most of it is not said yet, however late somebody looks."""


NO_TEXTS = [
    f'{{"type": "text", "text": {value}}}'
    for value in ("7", "1e400", "NaN", "1" + "0" * 5000, "true", "null", "[" * 150 + "]" * 150)
]
talks = service_of_module(voice_engine="scripted", scripted_letter=0.01, conversations=2)
"""Made-up words and short tones; two may talk at once."""


async def test_speech_is_answered_with_status_audio_metrics_and_transcript_in_order(
    talks: Server,
) -> None:
    async with Page(talks) as page:
        assert await page.next() == {
            "type": "status",
            "state": "ready",
            "input_sample_rate": 16_000,
            "output_sample_rate": 24_000,
        }
        await page.speak(tone(1.0) + tone(0.8, 0))
        transcript = await page.until("transcript")
        await page.until("status", state="ready")
        assert page.kinds()[1:] == TURN
        assert len(transcript["user"].split()) >= 4
        assert transcript["assistant"] == f"You said: {transcript['user']}"
        texts = [one for one in page.messages if isinstance(one, dict)]
        (metrics,) = [one for one in texts if one["type"] == "metrics"]
        assert metrics["audio_duration_ms"] == pytest.approx(1000 * page.heard_s, abs=10)
        parts = ("vad_latency_ms", "asr_latency_ms", "llm_latency_ms", "tts_first_chunk_ms")
        assert all(metrics[part] >= 0 for part in parts)
        assert metrics["total_latency_ms"] >= metrics["vad_latency_ms"] > 0
        assert metrics["tokens_generated"] >= 6


async def test_typed_text_is_answered_after_invalid_messages_on_the_same_connection(
    talks: Server,
) -> None:
    async with Page(talks) as page:
        for rubbish in ("{", "[]", '"text"', '{"type": "dance"}', *NO_TEXTS):
            await page.live.send(rubbish)
        await page.live.send(r'{"type": "text", "text": "half of a pair: \ud800"}')
        await page.send(type="text", text="x" * 65_537)
        await page.send(type="text", text="   ")
        await page.send(type="text", text="Hello there.")
        transcript = await page.until("transcript")
        assert (transcript["user"], transcript["assistant"]) == (
            "Hello there.",
            "You said: Hello there.",
        )
        assert page.kinds()[1:-1] == [*["error"] * 6, "status processing", "sound", "metrics"]


def test_words_spoken_before_a_typed_text_are_in_the_transcript_of_its_answer() -> None:
    table, dialect = Table(), S2SDialect()
    table.utters("Tell me about")
    table.types("Oslo.")
    table.replies("It rains.")
    table.cancels()
    texts = [one for output in table.told(object) for one in dialect.of(output)]
    messages = [json.loads(one) for one in texts]
    assert [one["user"] for one in messages if one["type"] == "transcript"] == [
        "Tell me about Oslo."
    ]


async def test_speech_over_a_reply_interrupts_it_and_its_transcript_is_cut_short(
    talks: Server,
) -> None:
    async with Page(talks) as page:
        await page.send(type="text", text=LONGER)
        await page.sound()
        speaking = asyncio.create_task(page.speak(tone(1.0) + tone(0.8, 0)))
        first = await page.until("transcript")
        assert first["interrupted"]
        said, marked = first["assistant"].rstrip("… "), first["assistant"].endswith("…")
        assert marked
        assert f"You said: {LONGER}".startswith(said)
        assert len(said) < len(LONGER)
        second = await page.until("transcript")
        assert len(second["user"].split()) >= 4
        assert not second["interrupted"]
        await speaking


async def test_reset_during_a_reply_is_confirmed_and_the_next_text_is_answered(
    talks: Server,
) -> None:
    async with Page(talks) as page:
        await page.send(type="text", text=LONGER)
        await page.sound()
        await page.send(type="reset")
        await page.until("status", state="reset")
        await page.send(type="text", text="Again.")
        assert (await page.until("transcript", user="Again."))["assistant"] == "You said: Again."


async def test_llm_is_given_no_history_from_before_a_reset(start_server: StartServer) -> None:
    async with completions("plain") as llm:
        server = start_server(voice_engine="scripted", scripted_letter=0.01, llm=llm.url)
        async with Page(server) as page:
            for text in ("First.", "Second."):
                await page.send(type="text", text=text)
                await page.until("transcript")
            await page.send(type="reset")
            await page.until("status", state="reset")
            await page.send(type="text", text="Third.")
            await page.until("transcript")
    given = [
        [one["content"] for one in body["messages"] if one["role"] == "user"]
        for body in llm.replies
    ]
    assert given == [["First."], ["First.", "Second."], ["Third."]]


async def test_conversation_beyond_the_limit_is_refused_until_one_ends(talks: Server) -> None:
    async with Page(talks) as first:
        await first.next()
        async with Page(talks) as second, Page(talks) as third:
            await second.next()
            assert "talk_full" in (await third.until("error"))["message"]
            with pytest.raises(ConnectionClosed):
                await third.next()
            assert third.live.close_code == 1013
    await _answers(talks)


async def test_client_that_reconnects_below_the_limit_is_admitted_each_time(talks: Server) -> None:
    async with Page(talks) as other:
        await other.next()
        for _ in range(5):
            async with Page(talks) as page:
                assert (await page.next())["state"] == "ready"
                await page.send(type="text", text=LONG)
                await page.sound()


async def test_too_long_audio_message_is_refused_and_the_next_text_is_answered(
    talks: Server,
) -> None:
    async with Page(talks) as page:
        await page.live.send(b"\x01\x02\x03")  # the rest of a sample may be in the next message
        await page.live.send(bytes(32_000 * 11))
        assert "chunk_too_long" in (await page.until("error"))["message"]
        await page.send(type="text", text="Still here.")
        await page.until("transcript", assistant="You said: Still here.")


async def test_without_a_tts_engine_replies_are_text(start_server: StartServer) -> None:
    server = start_server(voice_engine="none")
    async with Page(server) as page:
        await page.send(type="text", text="Hello.")
        assert (await page.until("transcript"))["assistant"] == "You said: Hello."
        await page.until("status", state="ready")
        assert "sound" not in page.kinds()
    assert server.client.get("/config").json()["tts_model"] == "none"


async def test_status_counts_requests_and_has_latencies_and_config_names_the_engines(
    talks: Server,
) -> None:
    before = talks.client.get("/status").json()
    assert before["initialized"] is True
    async with Page(talks) as page:
        await page.send(type="text", text="Hello there.")
        await page.until("transcript")
        await page.until("status", state="ready")
        state = talks.client.get("/status").json()
    assert state["state"] == "idle"
    assert state["total_requests"] == before["total_requests"] + 1
    names = "vad_ms asr_ms llm_ms tts_first_chunk_ms total_ms"
    assert set(state["last_metrics"]) == {*names.split()}
    assert talks.client.get("/config").json() == {
        "asr_model": "scripted",
        "llm_model": "repeat",
        "tts_model": "scripted",
        "input_sample_rate": 16_000,
        "output_sample_rate": 24_000,
    }


async def _answers(server: Server) -> None:
    """Somebody who comes now is answered: room is given back as soon as a connection is known to
    have ended."""
    while True:
        with suppress(ConnectionClosed):
            async with Page(server) as page:
                await page.send(type="text", text="Hello.")
                await page.until("transcript", assistant="You said: Hello.")
                return


async def test_audio_messages_are_not_rate_limited_and_empty_ones_are(
    start_server: StartServer,
) -> None:
    server = start_server(
        voice_engine="scripted", scripted_letter=0.01, limits={"live_messages_per_minute": 40}
    )
    async with Page(server) as page:
        for _ in range(200):
            await page.live.send(bytes(480))  # 10 ms
        await page.send(type="text", text="Hello.")
        await page.until("transcript", user="Hello.")
    async with Page(server) as page:
        for _ in range(41):
            await page.live.send(b"")
        assert (await page.until("error"))["code"] == "rate_limited"
