"""Every live wire, of a front that hears nothing itself: what it promises, it promises there, too.

The tests are those of the wires; only who hears is another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import test_grpc_stt
import test_live_messages
import test_realtime_transcription
import test_s2s_routes
import test_yap_routes
from grpc_client import Client
from remote_live_services import Ears
from service_process import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two hear for it."""
    home = tmp_path_factory.mktemp("front")
    more = {"grpc_port": 0, "voice_engine": "scripted", "conversations": 2}
    with Ears(home, **more) as front:  # type: ignore[arg-type]
        yield front


@pytest.fixture
def talks(server: Server) -> Server:
    return server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.health()["grpc_port"]) as client:
        yield client


for _wire, _names in {
    test_live_messages: (
        "test_a_conversation_from_begin_to_summary",
        "test_who_comes_again_is_told_what_is_there_and_hears_what_was_missed",
        "test_orders_end_drop_and_change_turns",
        "test_whatever_is_said_is_as_the_document_for_generators_has_it",
    ),
    test_yap_routes: (
        "test_a_conversation_goes_as_it_always_did",
        "test_a_cancel_does_not_overtake_what_has_ended_before",
        "test_nothing_follows_a_cancel_and_the_next_request_is_whole",
    ),
    test_realtime_transcription: (
        "test_a_conversation_is_the_golden_one_and_each_event_of_the_package_s_own_type",
    ),
    test_s2s_routes: (
        "test_who_speaks_is_heard_and_answered_aloud",
        "test_who_speaks_over_an_answer_ends_it_and_what_was_not_heard_was_not_said",
    ),
    test_grpc_stt: ("test_each_utterance_is_told_once_as_final_behind_its_partials",),
}.items():
    for _name in _names:
        globals()[_name] = getattr(_wire, _name)


def test_all_of_them_were_heard_elsewhere(server: Server) -> None:
    assert isinstance(server, Ears)
    assert server.health()["live_engine"] == "upstream"
    told = [one.client.get("/metrics").text for one in server.ears]
    opened = [re.search(r'live_sessions_opened_total\{wire="lease"\} (\d+)', one) for one in told]
    assert all(opened), "both of them"
