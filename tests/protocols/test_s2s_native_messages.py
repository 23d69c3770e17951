"""A conversation in our own words: sound as fast as it is made, dropped and held at a word, and
what was heard as the player says it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from s2s_client import Page, tone
from service_process import Server

LONG = " ".join(
    ["This is a long answer that goes on and on, so that somebody can say something first."] * 9
)


class OurPage(Page):
    """A client that knows more than the first page did."""

    async def begins(self, **wishes: Any) -> dict[str, Any]:
        await self.send(type="begin", **wishes)
        return await self.until("began")

    def words(self, type: str) -> list[dict[str, Any]]:
        """All messages of that type."""
        return [one for one in self.messages if isinstance(one, dict) and one["type"] == type]


async def test_both_sides_are_told_as_they_come_and_sound_comes_before_it_is_heard(
    talks: Server,
) -> None:
    async with OurPage(talks) as page:
        began = await page.begins()
        assert (began["model"], began["speaks"], began["synthetic"]) == ("repeat", "scripted", True)
        speaking = asyncio.create_task(page.speak(tone(60.0)))
        while not (await page.until("person_saying"))["text"]:
            pass
        speaking.cancel()
        await asyncio.wait({speaking})
        await page.speak(tone(0.5) + tone(0.8, 0))
        said = await page.until("person_said")
        latency = await page.until("latency")
        assert latency["total_s"] >= latency["endpoint_s"] > 0
        await page.until("reply_ended", ending="completed")
        written = "".join(one["text"] for one in page.words("reply_written"))
        assert written.split() == f"You said: {said['text']}".split()
        await page.send(type="text", text=LONG)
        turn = (await page.until("reply_started"))["turn"]
        heard = page.heard_s
        while page.heard_s - heard < 4:  # of its sound; none of that was reported as heard
            await page.next()
        assert not [one for one in page.words("reply_ended") if one["turn"] == turn]


async def test_what_is_typed_has_a_length_and_more_is_refused_and_said(talks: Server) -> None:
    async with OurPage(talks) as page:
        await page.begins()
        long = "What is to be known. " * 2000
        await page.send(type="text", text=long)
        assert (await page.until("person_said"))["text"] == long.strip()
        await page.send(type="interrupt")
        await page.send(type="text", text="x" * 65_537)
        assert (await page.until("error"))["code"] == "field_invalid"


async def test_who_speaks_over_it_has_it_held_first_and_then_cut_where_the_ear_was(
    talks: Server,
) -> None:
    async with OurPage(talks) as page:
        await page.begins()
        await page.send(type="text", text=LONG)
        turn = (await page.until("reply_started"))["turn"]
        await page.sound()
        speaking = asyncio.create_task(page.speak(tone(1.0) + tone(0.8, 0)))
        await page.until("hold", turn=turn)
        await page.until("clear", turn=turn)
        ended = await page.until("reply_ended", turn=turn)
        assert ended["ending"] == "interrupted"
        await page.send(type="played", turn=turn, seconds=0.6, cleared=True)
        cut = await page.until("reply_truncated", turn=turn)
        assert cut["text"] == "You said…"
        await page.until("person_said", typed=False)
        await page.until("reply_ended", ending="completed")
        await speaking
        await page.send(type="end")
        transcript = (await page.until("ended"))["transcript"]
    assert [one["text"] for one in transcript["segments"]][:2] == [LONG, "You said…"]


async def test_a_failure_of_the_model_is_told_once_by_the_reply_that_it_ends(
    start_server: Callable[..., Server],
) -> None:
    gone = asyncio.Event()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as model:
        port = model.sockets[0].getsockname()[1]
        server = await asyncio.to_thread(
            start_server, llm=f"http://127.0.0.1:{port}", voice_engine="none"
        )
        async with OurPage(server) as page:
            await page.begins()
            await page.send(type="text", text="How are you?")
            await page.until("reply_started", turn=1)
            gone.set()
            await page.until("reply_ended", turn=1, ending="failed")
            await page.send(type="end")
            await page.until("ended")
            assert [one["turn"] for one in page.words("error")] == [1]


async def test_a_player_that_played_nothing_yet_was_not_heard(talks: Server) -> None:
    async with OurPage(talks) as page:
        await page.begins()
        await page.send(type="text", text=LONG)
        turn = (await page.until("reply_started"))["turn"]
        await page.sound()
        for _ in range(8):
            await page.send(type="played", turn=turn, seconds=0)
            await asyncio.sleep(0.1)
        await page.send(type="played", turn=turn, seconds=0)
        await page.send(type="interrupt")
        ended = await page.until("reply_ended", turn=turn)
        assert ended["ending"] == "cancelled"
        assert len(ended["text"].split()) <= 1, (
            "since it last said so no time has passed to speak of"
        )
        # who dropped it by itself says where
        await page.send(type="text", text=LONG)
        turn = (await page.until("reply_started"))["turn"]
        heard = page.heard_s
        while page.heard_s - heard < 2:
            await page.next()
        await page.send(type="interrupt", turn=turn, seconds=1.2)
        ended = await page.until("reply_ended", turn=turn)
        assert ended["text"].startswith("You said: This")
        assert ended["text"].endswith("…")
        assert len(ended["text"].split()) < 8


async def test_a_conversation_becomes_a_transcript_of_two_and_a_job_where_it_is_kept(
    talks: Server,
) -> None:
    async with OurPage(talks) as page:
        await page.begins()
        await page.send(type="text", text="Hello there.")
        await page.until("reply_ended")
        await page.send(type="end", keep=True)
        ended = await page.until("ended")
    text = ended["written"]["text"].splitlines()
    assert [line.partition("] ")[2] for line in text] == [
        "Speaker_0: Hello there.",
        "Machine (repeat): You said: Hello there.",
    ]
    assert "-->" in ended["written"]["srt"]
    (job,) = talks.client.get("/v1/jobs").json()["jobs"]
    assert (job["id"], job["state"]) == (ended["job"], "done")
    kept = talks.client.get(f"/v1/jobs/{job['id']}/transcript").json()
    assert kept["segments"] == ended["transcript"]["segments"]
    talks.client.delete(f"/v1/jobs/{job['id']}")


async def test_voice_and_model_are_chosen_and_what_there_is_not_is_said(talks: Server) -> None:
    parts = talks.client.get("/v1/talk").json()
    assert parts["thinks"] == {"name": "repeat", "models": ["repeat"]}
    assert parts["speaks"]["voices"] == ["low", "high"]
    async with OurPage(talks) as page:
        low = await _sound_of(page, await page.begins(voice="low", model="repeat"))
        await page.send(type="change", voice="high")
        assert await _sound_of(page, await page.until("began", voice="high")) != low
        await page.send(type="change", voice="none such")
        await page.send(type="text", text="Hello.")
        assert (await page.until("error"))["code"] == "voice_unknown"
        assert (await page.until("reply_ended"))["text"] == "You said: Hello.", "it is read"
        await page.send(type="change", model="none such")
        assert "/v1/talk" in (await page.until("error", code="model_not_found"))["hint"]
        for wrong in ({"rate": 1}, {"voice": 7}):
            await page.send(type="begin", **wrong)
            assert (await page.until("error"))["code"] == "field_invalid"
        await page.send(type="played", turn=99, seconds=1.0, cleared=True)
        await page.send(type="text", text="Still here.")
        await page.until("person_said", text="Still here.")


async def test_a_begin_that_asks_for_what_is_not_there_changes_nothing(talks: Server) -> None:
    async with OurPage(talks) as page:
        await page.send(type="begin", model="none such", rate=48_000)
        assert (await page.until("error"))["code"] == "model_not_found"
        codes, transcript = await page.turn("Hello.")  # in the words of the first page
        assert (codes, transcript["assistant"]) == ([], "You said: Hello.")
        assert page.words("reply_ended") == []
        assert (await page.begins(model="repeat"))["rate"] == 24_000
        await page.send(type="text", text="And now?")
        assert (await page.until("reply_ended"))["text"] == "You said: And now?"


async def _sound_of(page: OurPage, _: Any) -> bytes:
    await page.send(type="text", text="Hello.")
    sound = await page.sound()
    await page.until("reply_ended")
    return sound


async def test_a_voice_that_does_not_exist_is_refused_and_nothing_changes(talks: Server) -> None:
    assert talks.client.get("/v1/talk").json()["speaks"]["voices"], "they are known from now on"
    async with OurPage(talks) as page:
        await page.send(type="begin", voice="nobody's")
        refused = await page.until("error")
        assert refused["code"] == "voice_unknown"
        assert "There are: " in refused["hint"]
        began = await page.begins(voice="")
        await page.send(type="change", voice="nobody's")
        assert (await page.until("error"))["code"] == "voice_unknown"
        await page.send(type="change", voice="")
        assert (await page.until("began"))["voice"] == began["voice"]


async def test_a_voice_is_chosen_while_an_answer_to_somebody_else_takes_long(
    start_server: Callable[..., Server],
) -> None:
    talks = start_server(voice_engine="scripted", scripted_hangs="eternally", conversations=3)
    assert talks.client.get("/v1/talk").json()["speaks"]["voices"] == ["low", "high"]
    async with OurPage(talks) as other, OurPage(talks) as page:
        await other.begins()
        await other.send(type="text", text="Hello, and then eternally")
        await other.sound()
        ended = asyncio.create_task(other.until("reply_ended"))
        assert (await page.begins(voice="high"))["voice"] == "high"
        await page.send(type="change", voice="low")
        assert (await page.until("began"))["voice"] == "low"
        await page.send(type="change", voice="nobody's")
        assert (await page.until("error"))["code"] == "voice_unknown"
        assert not ended.done(), "nobody waited for its end"
        await other.send(type="interrupt")
        await ended


async def test_the_latency_has_a_part_from_the_first_words_to_the_first_phrase(
    talks: Server,
) -> None:
    async with OurPage(talks) as page:
        await page.begins()
        await page.send(type="text", text="How are you?")
        latency = await page.until("latency")
        parts = [latency[f"{name}_s"] for name in ("thought", "phrased", "voiced")]
        assert all(part >= 0 for part in parts)
        assert latency["total_s"] >= sum(parts) - 0.001, "nothing of a typed turn begins early"
