"""Whatever bytes come in: an answer below 500, nothing left behind, and nothing leaks."""

import contextlib
import gc
import os
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import psutil
import pytest
from byte_accidents import mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import Studio, wav
from service_process import MB, Server, StartServer, check_problem, wait_until

SEEDS = (
    *("wav-s16", "wav-adpcm", "flac", "mp3-cbr", "mp3-id3", "ogg-vorbis", "ogg-opus", "m4a"),
    *("aac", "webm-opus", "wma", "aiff", "au", "caf", "amr-nb", "w64", "rf64", "mov"),
)
MORE = int(os.environ.get("VIBEVOICE_FUZZ", "0"))
"""So many of each kind, and others each time; CONTRIBUTING.md says when."""
FUZZ = settings(
    deadline=None,
    database=None,
    derandomize=not MORE,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check_answer(server: Server, audio: bytes) -> None:
    response = server.post(audio)
    if response.status_code != 200:
        check_problem(
            response,
            {400, 413, 415, 422},
            {"audio_empty", "audio_format_unsupported", "audio_undecodable", "audio_too_long"},
        )
    assert not server.leftovers()


@settings(FUZZ, max_examples=MORE or 40)
@given(audio=st.binary(max_size=4000))
def test_random_bytes_as_audio_cause_no_server_error_and_leave_no_file(
    server: Server, audio: bytes
) -> None:
    check_answer(server, audio)


@settings(FUZZ, max_examples=MORE or settings.default.max_examples)
@given(name=st.sampled_from(SEEDS), chance=st.randoms(use_true_random=True))
def test_damaged_recording_causes_no_server_error_and_leaves_no_file(
    server: Server, studio: Studio, name: str, chance: random.Random
) -> None:
    check_answer(server, mutated(studio.bytes(name), chance))


@settings(FUZZ, max_examples=MORE or 40)
@given(
    body=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [
                    *(b"--frontier\r\n", b"\r\n", b"--frontier--\r\n", b"\r\n--frontier", b"--"),
                    b'Content-Disposition: form-data; name="audio"; filename="a"\r\n\r\n',
                    b'Content-Disposition: form-data; name="language"\r\n\r\n',
                    b"Content-Transfer-Encoding: base64\r\n",
                    b"Content-Disposition: ;;=;\r\n\r\n",
                ]
            ),
        ),
        max_size=12,
    ).map(b"".join)
)
def test_random_form_is_refused_without_a_server_error_and_leaves_no_file(
    server: Server, body: bytes
) -> None:
    response = server.client.post(
        "/transcribe",
        content=body,
        headers={"Content-Type": "multipart/form-data; boundary=frontier"},
    )
    assert response.status_code in (400, 413, 415, 422), response.text[:500]
    assert not server.leftovers()


def at_rest(server: Server) -> list[int]:
    """How many descriptors each of its processes has, the most first, once the service has closed
    all connections, which nobody uses any more."""

    def counted() -> list[int] | None:
        with contextlib.suppress(psutil.NoSuchProcess):  # as one that has ended just now is
            if {one.status for one in server.process.net_connections()} == {psutil.CONN_LISTEN}:
                return sorted((one.num_fds() for one in server.family()), reverse=True)
        return None

    found: list[int] = wait_until(counted, "nobody is connected")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["upload", "path"])
def test_hundreds_of_bad_and_good_requests_leak_no_descriptor_memory_or_file(
    kind: str, start_server: StartServer, studio: Studio
) -> None:
    server = start_server()
    chance = random.Random(7)
    good = [studio.path(name) for name in ("wav-s16", "ogg-opus", "mp3-cbr", "m4a")]
    bad = [b"", b"no audio", wav(b""), wav(bytes(99), channels=0), b"OggS" + bytes(50), b"fLaC"]
    paths = ["/no/such/file", "/dev/zero", "/etc", "relative", "/etc/hostname"]

    def request(number: int) -> int:
        if number % 8 == 0:
            audio = good[number // 8 % len(good)]
            sent = (
                server.post(audio.read_bytes())
                if kind == "upload"
                else server.post_path(str(audio))
            )
        elif kind == "upload":
            sent = server.post(bad[number % len(bad)])
        else:
            sent = server.post_path(paths[number % len(paths)])
        return sent.status_code

    def round_of(count: int) -> list[int]:
        numbers = list(range(count))
        chance.shuffle(numbers)
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(request, numbers))

    round_of(40)
    with ThreadPoolExecutor(4) as pool:  # until each of its processes has decoded something
        list(pool.map(request, range(0, 24 * 8, 8)))
    gc.collect()
    wait_until(lambda: server.health()["engine_state"] == "ready", "idle")
    before = at_rest(server)
    memory = server.rss()
    answers = round_of(160)
    assert answers.count(200) == 20
    assert not [status for status in answers if status >= 500]
    wait_until(
        lambda: all(now <= then for now, then in zip_longest(at_rest(server), before, fillvalue=0)),
        f"no more descriptors than before: {before}",
    )
    assert server.rss() - memory <= 20 * MB
    assert not server.leftovers()
    assert "Traceback" not in server.log()
