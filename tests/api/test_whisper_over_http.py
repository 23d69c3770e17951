"""Whisper over HTTP: the real architecture, at a size that knows two clips by heart."""

import io
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_whisper
from service_process import Server, check_problem
from tiny_vibevoice import clip
from tiny_whisper import LANGUAGES, PLAY, PROSE

from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.engines.whisper.whisper_decoder import WhisperRecognizer, WhisperRequest
from sidecar.interfaces.engine_interface import Precision

RATE = 16_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Whisper in fp32: int8 has other sums on each kind of processor, and other words with them."""
    model, home = tiny_whisper.model(), tmp_path_factory.mktemp("Modelle für später")
    folder = shutil.copytree(model, home / model.name)
    people = {"people": "1", "data_dir": home, "journal_key": "0123456789abcdef" * 4}
    whisper = {"engine": "whisper", "precision": "fp32", "model_path": folder}
    with Server(home, **whisper, keep_alive=-1, **people) as running:
        yield running


def audio(name: str) -> bytes:
    return clip(name).read_bytes()


def said(body: dict) -> str:
    return " ".join(segment["text"] for segment in body["segments"])


def check_right(body: dict, name: str) -> None:
    assert body["status"] == "success"
    assert said(body) == tiny_whisper.text(name)
    assert body["metadata"]["language"] == LANGUAGES[name]


@pytest.mark.parametrize("name", [PLAY, PROSE])
def test_recording_is_transcribed_in_its_language_with_its_speakers(
    name: str, server: Server
) -> None:
    body = server.post(audio(name)).json()
    check_right(body, name)
    about = body["metadata"]
    assert (about["engine"], about["model_precision"]) == ("whisper", "fp32")
    assert about["model"] == tiny_whisper.model().name
    assert about["diarized"] is True
    assert about["num_speakers"] == (2 if name == PLAY else 1)
    assert about["warnings"] == []
    words = [word for segment in body["segments"] for word in segment.get("words", [])]
    assert len(words) == len(tiny_whisper.text(name).split())
    starts = [word["start_time"] for word in words]
    assert starts == sorted(starts)


@pytest.mark.slow
def test_enrolled_speaker_is_identified_in_a_whisper_transcript(server: Server) -> None:
    samples, rate = soundfile.read(clip(PLAY))
    nagg = io.BytesIO()
    soundfile.write(nagg, samples[: 8 * rate], rate, format="WAV")
    sent = {"data": {"name": "Nagg"}, "files": {"audio": ("nagg.wav", nagg.getvalue())}}
    person = server.client.post("/v1/people", **sent).raise_for_status().json()
    body = server.post(audio(PLAY)).json()
    forgotten = server.client.delete(f"/v1/people/{person['id']}")
    check_right(body, PLAY)
    names = {(one["speaker"], one.get("name")) for one in body["segments"]}
    assert names == {("Speaker_0", "Nagg"), ("Speaker_1", None)}
    assert forgotten.status_code == 204


def test_whisper_transcript_without_diarization_has_the_same_words(server: Server) -> None:
    body = server.post(audio(PLAY), diarize="false").json()
    check_right(body, PLAY)
    assert body["metadata"]["diarized"] is False


def test_requested_language_is_reported_as_given_and_an_unsupported_one_returns_422(
    server: Server,
) -> None:
    body = server.post(audio(PROSE), language="de-CH").json()
    assert body["metadata"]["language"] == "de-CH"
    assert said(body) == tiny_whisper.text(PROSE)
    check_problem(server.post(audio(PROSE), language="tlh"), 422, "language_unsupported")


@pytest.mark.slow
def test_prompt_gives_no_warning_temperature_is_repeatable_and_token_limit_truncates(
    server: Server,
) -> None:
    """What a prompt does to a tiny model is chance; that a limit holds is not."""
    body = server.post(audio(PROSE), prompt="Beckett", hotwords="Worstward Ho").json()
    assert body["metadata"]["warnings"] == []
    again = [server.post(audio(PROSE), temperature="0.3").json() for _ in range(2)]
    assert said(again[0]) == said(again[1])
    cut = server.post(audio(PLAY), max_tokens="5").json()
    assert [one["code"] for one in cut["metadata"]["warnings"]] == ["output_truncated"]
    assert tiny_whisper.text(PLAY).startswith(said(cut).rstrip("?. "))
    assert len(said(cut)) < len(tiny_whisper.text(PLAY)) / 2


def recording(*parts: str | float) -> bytes:
    """Clips, and seconds of silence, one after the other."""
    pieces = [
        decode_audio_file(clip(part), RATE)
        if isinstance(part, str)
        else np.zeros(round(part * RATE))
        for part in parts
    ]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(pieces), RATE, subtype="PCM_16", format="WAV")
    return file.getvalue()


@pytest.mark.slow
def test_recording_in_two_languages_is_transcribed_in_both_with_a_warning(server: Server) -> None:
    body = server.post(recording(PLAY, 60.0, PROSE)).json()
    assert said(body) == f"{tiny_whisper.text(PLAY)} {tiny_whisper.text(PROSE)}"
    assert body["metadata"]["language"] == LANGUAGES[PLAY]
    (warning,) = body["metadata"]["warnings"]
    assert warning["code"] == "several_languages"
    assert "de " in warning["message"]
    german = [one for one in body["segments"] if "scheitern" in one["text"]]
    assert all(88 <= one["start_time"] <= one["end_time"] <= 97.3 for one in german)


def asked(server: Server, what: str, name: str, **fields: str) -> dict:
    files, fields = {"file": (f"{name}.wav", audio(name))}, {"model": "whisper-1", **fields}
    response = server.client.post(f"/v1/audio/{what}", files=files, data=fields)
    return dict(response.raise_for_status().json())


class Prompted:
    """A model of CTranslate2 that keeps its prompts."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.prompts: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def generate(self, encoded: Any, prompts: list[list[int]], **options: Any) -> Any:
        self.prompts += prompts
        return self._real.generate(encoded, prompts, **options)


def test_translation_uses_the_translate_task(server: Server) -> None:
    """This one was taught a single task, and does that whatever it is asked for."""
    body = asked(server, "translations", PLAY, response_format="verbose_json")
    assert (body["task"], body["language"]) == ("translate", "english")
    assert body["text"]
    from faster_whisper import WhisperModel

    whisper = WhisperModel(str(tiny_whisper.model()), "cpu", local_files_only=True)
    whisper.model = prompted = Prompted(whisper.model)
    model = WhisperRecognizer(whisper, Precision.FP32, "tiny")
    samples = decode_audio_file(clip(PLAY), RATE)[: 5 * RATE]
    for translate in (False, True):
        model.recognize(samples, WhisperRequest("en", translate=translate))
    names = ("<|transcribe|>", "<|translate|>")
    tasks = [whisper.hf_tokenizer.token_to_id(name) for name in names]
    assert [set(prompt) & set(tasks) for prompt in prompted.prompts] == [{tasks[0]}, {tasks[1]}]
