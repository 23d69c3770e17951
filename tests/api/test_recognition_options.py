"""Prompt, hotwords, speakers, temperature, tokens: the wire's part, on an engine without use for
them. What they do is in test_vibevoice_over_http.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from service_process import Server, check_problem

from sidecar.engines import ENGINES

STEERING: dict[str, Any] = {
    "hotwords": "Nagg, Nell",
    "prompt": "Samuel Beckett",
    "num_speakers": 2,
    "temperature": 0.5,
    "max_tokens": 4096,
    "windows": "parallel",
}
Send = Callable[..., Any]


@pytest.fixture(params=["form", "json"])
def send(request: pytest.FixtureRequest, server: Server, voice: bytes, tmp_path: Path) -> Send:
    """Posts a recording with fields, in either form of the request."""
    if request.param == "form":
        return lambda **fields: server.post(voice, **{k: str(v) for k, v in fields.items()})
    (tmp_path / "voice.wav").write_bytes(voice)
    return lambda **fields: server.post_path(str(tmp_path / "voice.wav"), **fields)


def warnings_of(response: Any) -> list[dict[str, str]]:
    assert response.status_code == 200, response.text[:500]
    return list(response.json()["metadata"]["warnings"])


def test_engine_without_steering_transcribes_and_warns_of_ignored_options(send: Send) -> None:
    (warning,) = warnings_of(send(**STEERING))
    assert warning["code"] == "option_ignored"
    for field in ("hotwords", "prompt", "num_speakers", "temperature", "max_tokens", "windows"):
        assert field in warning["message"]
    assert warning["message"].endswith("The engines 'vibevoice' and 'whisper' can.")
    able = [spec.name for spec in ENGINES if spec.steerable and not spec.prompt_only]
    named = ["vibevoice", "whisper"]
    assert able == [*named, "moonshine-whisper"], "the warning names them, and Whisper is in one"
    (warning,) = warnings_of(send(num_speakers=3))
    assert "num_speakers" in warning["message"]
    assert "prompt" not in warning["message"]


def test_ignored_options_with_default_values_cause_no_warning(send: Send) -> None:
    assert warnings_of(send(temperature=0, hotwords="", context="  ")) == []


def test_unknown_fields_give_at_most_ten_short_warnings_that_name_the_nearest_field(
    send: Send,
) -> None:
    (warning,) = warnings_of(send(lanuage="en"))
    assert warning["code"] == "field_unknown"
    assert "'lanuage'" in warning["message"]
    assert "'language'" in warning["message"]
    strange = warnings_of(send(**{"xyzzy": "1", "\x1b[31m" + "q" * 200: "2"}))
    assert [one["code"] for one in strange] == ["field_unknown"] * 2
    assert "'xyzzy'" in strange[0]["message"]
    assert "\x1b" not in strange[1]["message"]
    assert len(strange[1]["message"]) < 150
    assert len(warnings_of(send(**{f"field_{at}": "1" for at in range(40)}))) == 10


def test_query_fields_are_read_and_overridden_by_those_of_the_body(
    server: Server, voice: bytes
) -> None:
    response = server.client.post(
        "/transcribe?language=de&diarize=false&lanuage=fr",
        files={"audio": ("a.wav", voice)},
        data={"diarize": "true"},
    )
    (warning,) = warnings_of(response)
    assert "'lanuage'" in warning["message"]
    metadata = response.json()["metadata"]
    assert (metadata["language"], metadata["diarized"]) == ("de", True)


def test_speakers_is_an_alias_of_num_speakers_and_a_contradiction_is_refused(send: Send) -> None:
    (warning,) = warnings_of(send(speakers=3))
    assert "num_speakers" in warning["message"]
    (warning,) = warnings_of(send(speakers=3, num_speakers=3))
    assert warning["code"] == "option_ignored"
    check_problem(send(speakers=0), 422, "field_invalid")
    response = send(speakers=2, num_speakers=3)
    check_problem(response, 422, "field_invalid")
    assert "'speakers'" in response.json()["detail"]


def test_prompt_of_4096_chinese_characters_is_accepted(send: Send) -> None:
    (warning,) = warnings_of(send(prompt="長" * 4096))
    assert warning["code"] == "option_ignored"


def test_every_recognition_option_is_in_the_openapi_schema_with_an_example(server: Server) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    for path, names in (("/transcribe", [*STEERING, "context"]), ("/v1/estimate", ["prompt"])):
        content = paths[path]["post"]["requestBody"]["content"]
        for form in ("application/json", "multipart/form-data"):
            properties = content[form]["schema"]["properties"]
            for name in names:
                assert properties[name]["type"]
                assert properties[name].get("examples") or name == "context"
