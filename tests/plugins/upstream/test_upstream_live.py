"""Live audio that Microsoft's streaming server for VibeVoice-ASR-Streaming recognizes.

`tests/engines/test_live_engine_interface.py` has what every engine promises.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from live_client import LiveClient
from moonshine_voice import get_assets_path
from service_process import PATIENCE_S, wait_until
from streaming_stand_in import StreamingStandIn, fingerprint
from upstream_engine_samples import PATIENT_LIMITS
from upstream_stand_ins import OpenAiStandIn

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.engines.engine_selection import choose_engine, choose_live_engine
from sidecar.interfaces.engine_interface import LoadOptions, UpstreamOptions
from sidecar.interfaces.live_events import RECOGNITION_FAILED, NoticeRaised
from sidecar.interfaces.live_options import EndpointingOptions, LiveOptions, LiveOrder, TurnControl
from sidecar.plugins import load_settings
from sidecar.plugins.upstream import PLUGIN
from sidecar.plugins.upstream.engine import UpstreamEngine
from sidecar.service.system_checks import CheckState

RATE = 24_000
Load = Callable[[str], UpstreamEngine]
WHOLE = LiveOptions(
    turns=TurnControl.CLIENT,
    endpointing=EndpointingOptions(threshold=0, neg_threshold=0),
    diarize=False,
    patience_s=PATIENCE_S,
)


@pytest.fixture
def there() -> Iterator[StreamingStandIn]:
    with StreamingStandIn() as found:
        yield found


@pytest.fixture(scope="module")
def speech() -> Block:
    """12 s: what is no speech goes to no server."""
    clip = decode_audio_file(Path(get_assets_path()) / "beckett.wav", RATE)
    return np.tile(clip, 2)[: 12 * RATE]


@pytest.fixture
def loaded() -> Iterator[Load]:
    """An engine with the server at an address."""
    engines = []

    def load(url: str) -> UpstreamEngine:
        engine = UpstreamEngine(PATIENT_LIMITS)
        list(engine.load(LoadOptions(upstream=UpstreamOptions((url,)), live=True)))
        engines.append(engine)
        return engine

    yield load
    for engine in engines:
        engine.scheduler.close()


def words(there: StreamingStandIn, sound: Block, chunks: range) -> str:
    """What the server says of these chunks of a stretch of sound."""
    said = (fingerprint(one, sound[one * there.chunk : (one + 1) * there.chunk]) for one in chunks)
    return " ".join(part.rpartition(":")[2].strip() for part in said)


def said(client: LiveClient) -> str:
    return " ".join(one.segment.text for one in client.finals)


def notices(client: LiveClient) -> set[str]:
    return {one.notice.code for one in client.told if isinstance(one, NoticeRaised)}


@pytest.mark.parametrize("chunk_frames", [15, 22])
def test_server_hears_each_sample_of_a_segment_once_and_its_words_are_the_finals(
    loaded: Load, speech: Block, chunk_frames: int
) -> None:
    with StreamingStandIn(chunk_frames=chunk_frames) as there:
        client = LiveClient(loaded(there.url), WHOLE)
        for _ in client.say(speech, 5_000):
            pass
        client.end()
    count = -(-len(speech) // there.chunk)
    assert there.sessions == [count]
    heard = np.pad(speech, (0, count * there.chunk - len(speech)))
    assert said(client).split() == words(there, heard, range(count)).split()


def test_each_segment_is_a_session_of_the_server_with_the_context_of_the_client(
    there: StreamingStandIn, loaded: Load, speech: Block
) -> None:
    options = LiveOptions(
        turns=WHOLE.turns, endpointing=WHOLE.endpointing, prompt="A talk", hotwords=("Ada",)
    )
    client = LiveClient(loaded(there.url), options)
    for _ in range(2):
        client.session.push(speech[: 4 * RATE])
        client.session.push(LiveOrder.COMMIT)
    client.end()
    assert there.asked == [{"context_info": "A talk\nAda"}] * 2
    assert there.sessions == [2, 2]


def test_window_whose_server_fails_goes_on_in_a_new_session_and_no_word_is_lost(
    there: StreamingStandIn, loaded: Load, speech: Block
) -> None:
    client = LiveClient(loaded(there.url), WHOLE)
    client.session.push(speech[: 7 * RATE])
    wait_until(lambda: there.sessions == [2], "two windows are heard")
    there.plan.append("reset")
    client.session.push(speech[7 * RATE :])
    client.end()
    assert len(there.sessions) == 2
    assert sum(there.sessions) == 5
    padded = np.pad(speech, (0, 5 * there.chunk - len(speech)))
    rest = padded[2 * there.chunk :]
    expected = f"{words(there, padded, range(2))} {words(there, rest, range(3))}"
    assert said(client).split() == expected.split()
    assert RECOGNITION_FAILED not in notices(client)


def test_server_that_is_gone_leaves_the_words_before_and_a_notice(
    loaded: Load, speech: Block
) -> None:
    with StreamingStandIn() as there:
        client = LiveClient(loaded(there.url), WHOLE)
        client.session.push(speech[: 7 * RATE])
        wait_until(lambda: there.sessions == [2], "two windows are heard")
    client.session.push(speech[7 * RATE :])
    client.end()
    assert said(client).split() == words(there, speech, range(2)).split()
    assert RECOGNITION_FAILED in notices(client)


def test_session_that_a_client_leaves_ends_at_the_server(
    there: StreamingStandIn, loaded: Load, speech: Block
) -> None:
    engine = loaded(there.url)
    client = LiveClient(engine, WHOLE)
    client.session.push(speech[: 5 * RATE])
    wait_until(lambda: there.sessions == [1], "a window is heard")
    assert there.open == 1
    client.session.close()
    del client
    wait_until(lambda: there.open == 0, "it has ended")


def test_server_without_live_audio_is_refused_at_the_load_and_an_absent_one_said_to_be_so(
    loaded: Load,
) -> None:
    with OpenAiStandIn() as there, pytest.raises(errors.ModelLoadFailed, match="takes live audio"):
        loaded(there.url)
    with pytest.raises(errors.SidecarError) as caught:
        loaded(there.url)
    assert caught.value.code == "upstream_unreachable"


def test_live_audio_leaves_the_machine_only_if_the_live_engine_is_named() -> None:
    flags = {"engine": "upstream", "upstream": "http://127.0.0.1:9"}
    for named, engine in (("auto", "moonshine"), ("upstream", "upstream")):
        settings = load_settings(**flags, live_engine=named)
        live, _ = choose_live_engine(settings, choose_engine(settings))
        assert live is not None
        assert live.spec.name == engine
        assert (live.upstream is not None) is (engine == "upstream")


def test_live_audio_goes_to_a_server_beside_an_engine_for_files_and_doctor_asks_that_server() -> (
    None
):
    with StreamingStandIn() as there:
        settings = load_settings(engine="scripted", live_engine="upstream", upstream=there.url)
        live, _ = choose_live_engine(settings, choose_engine(settings))
        assert live is not None
        assert live.upstream is not None
        assert PLUGIN.checks is not None
        [finding] = PLUGIN.checks(settings)
    assert finding.state is CheckState.GOOD
