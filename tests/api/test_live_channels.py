"""Two people in two channels of one live session, who talk over each other."""

import asyncio
import base64
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
from live_wire import heard, next_of, rest, say, wire
from scripted_speech import pieces
from service_process import Server
from test_live_messages import SAID
from wheel_recordings import RATE, clip

from sidecar.audio import Block
from sidecar.audio.loudness import MAX_PEAK, PEAKS_PER_SECOND

KEY = "0123456789abcdef" * 4
FRAME = 4
"""Bytes of a sample of both channels."""
STEREO = {"channels": 2, "channel_names": "Agent, Caller"}
Body = dict[str, Any]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("embedded")
    keeps = {"keep_jobs": 1, "data_dir": home, "journal_key": KEY, "keep_recordings_mb": 10}
    # Without a limit of delay no utterance is dropped on a slow machine.
    with Server(home, engine="moonshine", live_delay=0, **keeps) as running:
        yield running


def pcm(*channels: Block) -> bytes:
    """Channels interleaved, as long as the longest."""
    size = max(map(len, channels))
    samples = np.stack([np.pad(one, (0, size - len(one))) for one in channels], axis=1)
    return bytes((samples * 32767).astype("<i2").tobytes())


VOICES = clip("beckett"), clip("two_cities")[: 14 * RATE]
CALL = pcm(*VOICES)


def finals(told: list[Body], channel: int | None = None) -> list[Body]:
    return [one for one in told if one["type"] == "final" and one.get("channel") == channel]


def texts(told: list[Body]) -> list[str]:
    return [one["segment"]["text"] for one in told]


def words(texts: list[str]) -> list[str]:
    """Words without case and marks, however they are divided into segments."""
    return re.findall(r"[\w']+", " ".join(texts).casefold())


@pytest.fixture(scope="module")
def alone(embedded: Server) -> list[list[str]]:
    """What is final of each voice in a session of its own."""

    async def both() -> list[list[str]]:
        told = [await heard(embedded, pcm(one), diarize=False) for one in VOICES]
        assert not [one for each in told for one in each if "channel" in one]
        return [texts(finals(each)) for each in told]

    return asyncio.run(both())


def check_call(told: list[Body], alone: list[list[str]], *, killed: bool = False) -> None:
    """Every word is there, once, in its channel, in order and under the right name. An engine that
    takes over from one that was ``killed`` may write and divide them otherwise."""
    for channel, name in enumerate(("Agent", "Caller")):
        said = finals(told, channel)
        assert words(texts(said)) == words(alone[channel])
        assert killed or texts(said) == alone[channel]
        assert {one["segment"]["name"] for one in said} == {name}
        assert {one["segment"]["speaker"] for one in said} == {f"Speaker_{channel}"}
    every = [one for one in told if one["type"] == "final"]
    assert len({one["piece"] for one in every}) == len(every)
    ended = [one["turn"] for one in told if one["type"] == "turn_ended"]
    assert len(set(ended)) == len(ended)
    assert {one["turn"] for one in every} <= set(ended)
    transcript = told[-1]["transcript"]
    segments = sorted((one["segment"] for one in every), key=lambda one: float(one["start_time"]))
    assert transcript["segments"] == segments
    assert [one["name"] for one in transcript["metadata"]["speakers"]] == ["Agent", "Caller"]
    assert transcript["metadata"]["duration"] == pytest.approx(len(CALL) / FRAME / RATE, abs=0.001)
    numbers = [one["number"] for one in told if "number" in one]
    assert numbers == sorted(set(numbers))


async def test_people_who_talk_over_each_other_keep_their_words_and_names(
    embedded: Server, alone: list[list[str]]
) -> None:
    told = await heard(embedded, CALL, **STEREO)
    check_call(told, alone)
    assert "Ever tried" in alone[0][0]
    assert "best of times" in alone[1][0]
    of_channels = {"speech_started", "speech_stopped", "partial", "final", "turn_ended"}
    said = [one for one in told if one["type"] != "notice"]  # that partials are late may be one
    assert all(("channel" in one) == (one["type"] in of_channels) for one in said)
    for one in told:
        SAID.validate_json(json.dumps(one), strict=True)


async def test_client_that_reconnects_in_the_middle_of_a_call_misses_nothing(
    embedded: Server, alone: list[list[str]]
) -> None:
    begin, told = {"session": "call", **STEREO}, list[Body]()
    async with wire(embedded) as socket:
        await say(socket, "begin", **begin)
        for piece in pieces(CALL[: 8 * RATE * FRAME + 1], 6401):  # cut within a sample
            await socket.send(piece)
        told.append(await next_of(socket, "final", told))
        socket.transport.abort()
    had = [one for one in told if one["type"] not in ("began", "received", "partial")]
    async with wire(embedded) as socket:
        await say(socket, "begin", after=had[-1]["number"], **begin)
        samples = (await next_of(socket, "began"))["received_samples"]
        assert 0 < samples <= 8 * RATE
        for piece in pieces(CALL[samples * FRAME :]):
            await socket.send(piece)
        await say(socket, "finish")
        told = [*had, *(await rest(socket))[0]]
    check_call(told, alone)


async def check_resume_is_refused(server: Server, **begin: object) -> None:
    async with wire(server) as socket:
        await say(socket, "begin", session="one", after=0, **begin)
        told, code = await rest(socket)
    assert (told[-1]["code"], code) == ("field_invalid", 1007)


@pytest.mark.parametrize(("begin", "other"), [(STEREO, {}), ({}, STEREO)])
async def test_resume_with_other_channels_is_refused_and_leaves_the_session_as_it_is(
    server: Server, begin: Body, other: Body
) -> None:
    async with wire(server) as socket:
        await say(socket, "begin", session="one", **begin)
        await next_of(socket, "began")
        await check_resume_is_refused(server, **other)
        await say(socket, "finish")
        await next_of(socket, "summary")
        socket.transport.abort()
    await check_resume_is_refused(server, **other)
    async with wire(server) as socket:
        await say(socket, "begin", session="one", after=0, **begin)
        await next_of(socket, "summary")
        await socket.close(1000)


async def test_killed_worker_costs_no_word_of_either_channel(
    embedded: Server, alone: list[list[str]]
) -> None:
    told = list[Body]()
    async with wire(embedded) as socket:
        await say(socket, "begin", partials=False, **STEREO)  # late ones would be a notice
        for piece in pieces(CALL[: 6 * RATE * FRAME]):
            await socket.send(piece)
        told.append(await next_of(socket, "final", told))
        for one in embedded.processes("sidecar.workers.worker_main"):
            one.kill()
        for piece in pieces(CALL[6 * RATE * FRAME :]):
            await socket.send(piece)
        await say(socket, "finish")
        more, code = await rest(socket)
    told += more
    codes = [one["code"] for one in told if one["type"] == "notice"]
    assert codes == ["engine_restarted", "engine_loading"], "each is told once"
    assert code == 1000
    check_call(told, alone, killed=True)


async def test_commit_ends_and_cancel_drops_the_turns_of_both_channels(embedded: Server) -> None:
    voices = [one[: 3 * RATE] for one in VOICES]
    async with wire(embedded) as socket:
        await say(socket, "begin", turns="client", partials=False, **STEREO)
        await socket.send(pcm(*voices))
        await say(socket, "commit")
        ended = [await next_of(socket, "turn_ended") for _ in voices]
        await socket.send(pcm(*voices))
        await say(socket, "cancel")
        dropped = [await next_of(socket, "turn_dropped") for _ in voices]
        await say(socket, "change", turns="silence")
        while (received := await next_of(socket, "received"))["received_orders"] < 3:
            pass  # one from before
        await say(socket, "finish")
        told, _ = await rest(socket)
    assert sorted((one["channel"], one["turn"]) for one in ended) == [(0, 0), (1, 1)]
    assert all(one["committed"] and one["text"] for one in ended)
    assert sorted((one["channel"], one["turn"]) for one in dropped) == [(0, 2), (1, 3)]
    assert received["received_orders"] == 3
    assert received["received_samples"] == 6 * RATE
    assert len({one["name"] for one in told[-1]["transcript"]["segments"]}) == 2


async def test_kept_call_is_a_job_with_a_stereo_recording_and_names(embedded: Server) -> None:
    call = pcm(*(one[: 4 * RATE] for one in VOICES))
    summary = (await heard(embedded, call, keep=True, **STEREO))[-1]
    path = f"/v1/jobs/{summary['job']}"
    content = embedded.client.get(f"{path}/audio").content
    samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    assert (rate, samples.shape) == (RATE, (4 * RATE, 2))
    assert samples.tobytes() == call
    shown = embedded.client.get(f"{path}/transcript", params={"format": "text"}).text
    assert "Agent: Ever tried" in shown
    assert "Caller: It was the best" in shown
    peaks = base64.b64decode(embedded.client.get(f"{path}/peaks").json()["peaks"])
    assert len(peaks) == 4 * PEAKS_PER_SECOND
    loudest = np.abs(samples.astype(int)).max(axis=1).reshape(len(peaks), -1).max(axis=1)
    assert [*peaks] == pytest.approx(loudest / 32768 * MAX_PEAK, abs=1)


async def test_channel_in_which_nobody_speaks_has_no_events_speaker_or_segments(
    embedded: Server,
) -> None:
    right = VOICES[1][: 4 * RATE]
    told = await heard(embedded, pcm(0 * right, right), channels=2)
    assert {one["channel"] for one in told if "channel" in one} == {1}
    (speaker,) = told[-1]["transcript"]["metadata"]["speakers"]
    assert (speaker["speaker"], speaker["name"]) == ("Speaker_1", "Right")
    assert {one["speaker"] for one in told[-1]["transcript"]["segments"]} == {"Speaker_1"}


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        ({"channels": 3}, "channels"),
        ({"channel_names": "Agent"}, "'channels' is 1"),
        ({"channels": 2, "channel_names": "a, b, c"}, "3 names"),
        ({"channels": 2, "turns": "one"}, "'turns' cannot be 'one'"),
    ],
)
async def test_invalid_channel_options_of_a_live_session_are_refused(
    begin: Body, said: str, server: Server
) -> None:
    async with wire(server) as socket:
        await say(socket, "begin", **begin)
        told, code = await rest(socket)
    assert (told[-1]["code"], code) == ("field_invalid", 1007)
    assert said in told[-1]["message"]


async def test_channels_of_stereo_opus_packets_are_kept_apart(embedded: Server) -> None:
    av: Any = pytest.importorskip("av")
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "stereo", "s16"
    right = np.repeat((VOICES[1][: 4 * RATE] * 32767).astype("<i2"), 3)
    samples = np.stack([0 * right, right], axis=1)
    async with wire(embedded) as socket:
        await say(socket, "begin", encoding="opus", channels=2)
        for at in range(0, len(samples), 960):
            frame = av.AudioFrame.from_ndarray(
                samples[at : at + 960].reshape(1, -1), "s16", "stereo"
            )
            frame.sample_rate, frame.pts = 48_000, at
            for packet in encoder.encode(frame):
                await socket.send(bytes(packet))
        await say(socket, "finish")
        told, code = await rest(socket)
    assert code == 1000
    assert {one["channel"] for one in told if "channel" in one} == {1}
    assert "best of times" in told[-1]["transcript"]["segments"][0]["text"]
