"""Opus packets on our own wire: a client that sends what a browser's encoder gives it."""

import sys
from typing import Any

import numpy as np
import pytest
from live_wire import next_of, rest, say, wire
from scripted_speech import pieces, talk
from service_process import Server

from sidecar import errors
from sidecar.audio.codecs import OPUS_RATE, OpusDecoder
from sidecar.installation import install_command


def packets(pcm16: bytes) -> list[bytes]:
    """Sound at 16 kHz in packets of 20 ms."""
    av: Any = pytest.importorskip("av")
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = OPUS_RATE, "mono", "s16"
    samples = np.repeat(np.frombuffer(pcm16, "<i2"), 3)
    found = []
    for at in range(0, len(samples), 960):
        part = samples[at : at + 960]
        frame = av.AudioFrame.from_ndarray(np.pad(part, (0, 960 - len(part)))[None], "s16", "mono")
        frame.sample_rate, frame.pts = OPUS_RATE, at
        found += [bytes(one) for one in encoder.encode(frame)]
    return found


def test_opus_packet_is_decoded_to_20_ms_of_samples_and_an_invalid_one_refused() -> None:
    sent = packets(b"".join(pieces(talk(0.5))))
    decoder = OpusDecoder()
    assert {len(decoder.samples(one)) for one in sent} == {2 * 960}
    for wrong in (b"", b"\x03\xff\xff", bytes(70_000), b"OggS" + bytes(60)):
        with pytest.raises(errors.SoundInvalid) as told:
            OpusDecoder().samples(wrong)
        assert "Opus" in told.value.hint


async def test_live_session_in_opus_counts_samples_at_opus_rate_and_ends_with_summary(
    server: Server,
) -> None:
    sent = packets(b"".join(pieces(talk(0.3, 0.2))))
    async with wire(server) as socket:
        await say(socket, "begin", encoding="opus", diarize=False)
        await next_of(socket, "began")
        for one in sent:
            await socket.send(one)
        before: list[dict[str, Any]] = []
        received = await next_of(socket, "received", before)
        assert received["received_samples"] == round(received["received_s"] * OPUS_RATE)
        await say(socket, "finish")
        told, code = await rest(socket)
    assert code == 1000
    assert [one["type"] for one in told][-1] == "summary"
    assert [one for one in before + told if one["type"] == "final"]


async def test_invalid_opus_packet_closes_with_sound_invalid(server: Server) -> None:
    async with wire(server) as socket:
        await say(socket, "begin", encoding="opus")
        await next_of(socket, "began")
        await socket.send(b"\x03\xff\xff")
        told, code = await rest(socket)
    assert (told[-1]["code"], code) == ("sound_invalid", 1007)


async def test_opus_session_with_a_rate_other_than_48_khz_is_refused(server: Server) -> None:
    async with wire(server) as socket:
        await say(socket, "begin", encoding="opus", rate=16_000)
        told, code = await rest(socket)
    assert (told[-1]["code"], code) == ("field_invalid", 1007)


def test_opus_without_its_package_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(errors.EncodingUnavailable) as told:
        OpusDecoder()
    assert install_command("opus") in told.value.hint
