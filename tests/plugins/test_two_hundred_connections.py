"""Two hundred clients at once, each with a connection of its own, on this system's event loop: on
Windows that of completion ports, which counts no descriptors and calls no readers."""

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_client import chunks_of
from grpc_in_process import Caller, Inside
from live_wire import heard, rest, say, wire
from module_services import service_of_module
from scripted_speech import pieces, sound
from service_process import PATIENCE_S, Server

CLIENTS = 200
OWN_WORD = 2 / 1000
"""Difference in loudness by which the words of two clients differ."""

many = service_of_module(live_sessions=CLIENTS, live_delay=0, live_idle=PATIENCE_S)


def own_sound(number: int) -> bytes:
    """Speech that is as loud as that of no other client."""
    return sound((0.2, 0.0), (0.5, 0.2 + number * OWN_WORD), (0.8, 0.0))


def own_words(number: int) -> set[str]:
    """What is heard of it: a word for each quarter of a second, perhaps with a fainter end."""
    return {f"w{200 + number * 2 - rounded}" for rounded in (0, 1)}


@pytest.fixture
def all_here() -> asyncio.Barrier:
    """Where all clients wait for each other."""
    return asyncio.Barrier(CLIENTS)


async def test_two_hundred_websockets_at_once_are_each_told_the_words_of_their_own_sound(
    many: Server, all_here: asyncio.Barrier
) -> None:
    async def client(number: int) -> str:
        async with wire(many) as socket:
            await say(socket, "begin")
            await all_here.wait()
            for piece in pieces(own_sound(number)):
                await socket.send(piece)
            await say(socket, "finish")
            *_, last = (await rest(socket))[0]
            assert last["type"] == "summary", last
            return " ".join(one["text"] for one in last["transcript"]["segments"])

    await heard(many, own_sound(0))  # a service that has just started lets fewer wait
    texts = await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    for number, text in enumerate(texts):
        assert set(text.split()) & own_words(number), (number, text)


async def test_two_hundred_grpc_streams_at_once_are_each_told_the_words_of_their_own_sound(
    tmp_path: Path, all_here: asyncio.Barrier
) -> None:
    async def client(number: int) -> str:
        name = f"client {number}"
        async with Caller(port) as caller:
            await caller.channel.channel_ready()
            await all_here.wait()
            await caller.create(name)
            said = await caller.stream(*chunks_of(name, own_sound(number)), session_id=name)
            assert said.status is grpc.StatusCode.OK, said
            return " ".join(one.text for one in said.finals)

    async with Inside(tmp_path, live_sessions=CLIENTS, live_delay=0) as inside:
        port = await inside.listen(unused_s=PATIENCE_S)
        texts = await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    for number, text in enumerate(texts):
        assert set(text.split()) & own_words(number), (number, text)
