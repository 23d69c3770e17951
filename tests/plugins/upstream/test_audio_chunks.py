"""Cut at pauses, within limits, nothing lost; addresses and keys as they may be written."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from service_process import new_file
from upstream_engine_samples import Sound

from sidecar.config.secret_settings import host_of, parse_server_url
from sidecar.errors import SettingsInvalid
from sidecar.interfaces.engine_interface import LoadOptions, UpstreamOptions
from sidecar.plugins.upstream import audio_chunks
from sidecar.plugins.upstream.settings import UpstreamSettings, upstream_options

RATE = 1_000


def beeps(seconds: float) -> Sound:
    """Noise with a pause of half a second after each five."""
    dice = np.random.default_rng(5)
    samples = dice.integers(-3000, 3000, round(seconds * RATE)).astype(np.float32) / 32768
    for at in range(5 * RATE, len(samples), 5 * RATE):
        samples[at : at + RATE // 2] = 0
    return Sound(samples, RATE)


@given(seconds=st.floats(0.5, 90), longest_s=st.floats(12, 40))
def test_chunks_cover_the_audio_in_order_within_their_limit(
    seconds: float, longest_s: float
) -> None:
    sound = beeps(seconds)
    found = list(audio_chunks.cut_into_chunks(sound, RATE, longest_s))
    assert (
        np.concatenate([one.samples for one in found]) == audio_chunks.to_16_bit(sound.samples)
    ).all()
    assert [one.last for one in found] == [False] * (len(found) - 1) + [True]
    assert all(one.duration_s <= longest_s + 0.01 for one in found)
    for before, after in pairwise(found):
        assert after.start_s == pytest.approx(before.end_s)


def test_chunks_and_their_halves_are_cut_in_pauses() -> None:
    first, *_ = audio_chunks.cut_into_chunks(beeps(60), RATE, 24)
    assert first.end_s == pytest.approx(20.25, abs=0.3)
    one, other = first.halves()
    assert one.end_s == other.start_s
    assert one.end_s % 5 == pytest.approx(0.25, abs=0.3)


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=99))
def test_flac_keeps_16_bit_samples_exactly(values: list[int]) -> None:
    given_samples = np.array(values, np.int16)
    assert (audio_chunks.to_16_bit(audio_chunks.to_float(given_samples)) == given_samples).all()
    read, _ = soundfile.read(
        io.BytesIO(audio_chunks.AudioChunk(0.0, given_samples, 16_000, True).flac()), dtype="int16"
    )
    assert (read == given_samples).all()


@pytest.mark.parametrize(
    ("written", "url", "host"),
    [
        ("http://box:8000", "http://box:8000", "box:8000"),
        (" http://box:8000/v1/ ", "http://box:8000", "box:8000"),
        ("https://asr.example.org", "https://asr.example.org", "asr.example.org:443"),
        ("http://[::1]:9", "http://[::1]:9", "[::1]:9"),
        ("http://box/asr/v1", "http://box/asr", "box:80"),
    ],
)
def test_upstream_address_is_normalized(written: str, url: str, host: str) -> None:
    assert parse_server_url(written, "upstream") == url
    assert host_of(url) == host


@pytest.mark.parametrize(
    "written",
    [
        *("", "ollama", "box:8000", "ftp://box", "http://", "http://box?x=1", "http://box:99999"),
        *("http://\u202ebox", "http://[::1", "http://me:pw@box"),
    ],
)
def test_invalid_address_or_one_with_password_is_refused_and_not_printed(written: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        parse_server_url(written, "upstream")
    assert not written or written not in str(caught.value)
    assert "pw" not in f"{caught.value.detail}{caught.value.hint}"


def test_upstream_engine_without_address_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="no server"):
        upstream_options(UpstreamSettings())


def keys_in(file: Path) -> tuple[str, ...]:
    urls = ("http://a", "http://b")
    return upstream_options(UpstreamSettings(upstream=urls, upstream_key=f"@{file}")).keys


def test_key_file_has_one_key_or_one_for_each_upstream(tmp_path: Path) -> None:
    assert keys_in(new_file(tmp_path / "one", "one\n", 0o600)) == ("one", "one")
    assert keys_in(new_file(tmp_path / "two", "one\n\ntwo\n", 0o600)) == ("one", "two")


@pytest.mark.parametrize(
    ("text", "mode", "wrong"),
    [
        pytest.param(
            "one", 0o644, "Other users may read", marks=pytest.mark.posix("permissions of POSIX")
        ),
        ("1\n2\n3", 0o600, "3 lines"),
        ("\n", 0o600, "no key"),
        ("schlüssel", 0o600, "ASCII"),
    ],
)
def test_key_file_that_others_may_read_or_without_a_key_for_each_upstream_is_refused(
    text: str, mode: int, wrong: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsInvalid, match=wrong):
        keys_in(new_file(tmp_path / "keys", text, mode))


def test_upstream_options_survive_serialization_and_are_printed_without_keys() -> None:
    options = LoadOptions(
        upstream=UpstreamOptions(("http://a",), ("sesame",), "vllm", "m", None, 2.0, 9.0)
    )
    assert LoadOptions.from_wire(options.to_wire()) == options
    assert "sesame" not in repr(options)
