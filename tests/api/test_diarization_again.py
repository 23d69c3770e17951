"""`POST /v1/jobs/{id}/diarize` against a real service with the embedded engine."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_process import Server, check_problem, run_command
from two_fronts_and_node import Fronts
from vibevoice_asr_client import Client
from vibevoice_asr_client.codes import TranscriptChanged
from wheel_recordings import clip_wav

KEY = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("diarize")
    with Server(home, engine="moonshine", data_dir=home / "kept", journal_key=KEY) as up:
        yield up


@pytest.fixture(scope="module")
def play_job(embedded: Server) -> str:
    """A job of two people in a play, with the history that other tests left."""
    return embedded.done(clip_wav("endgame_nagg_nell"))


def diarize(server: Server, job_id: str, headers: Any = None, **fields: Any) -> httpx.Response:
    return server.client.post(f"/v1/jobs/{job_id}/diarize", json=fields, headers=headers)


def test_mono_recording_with_separate_channels_can_be_diarized_again(embedded: Server) -> None:
    job_id = embedded.done(clip_wav("endgame_nagg_nell"), channels="separate")
    assert diarize(embedded, job_id, num_speakers=1).status_code == 200


def test_recording_with_skipped_seconds_keeps_its_times_also_when_it_is_diarized_again(
    embedded: Server, play_job: str
) -> None:
    skipped = 12.0
    job_id = embedded.done(clip_wav("endgame_nagg_nell"), skip_seconds=skipped)
    whole, rest = (embedded.transcript(one)["segments"] for one in (play_job, job_id))
    assert skipped - 0.1 <= rest[0]["start_time"], "a segment begins a little before its speech"
    behind = [one for one in whole if one["start_time"] > skipped + 1]
    assert [one["text"] for one in rest][-len(behind) :] == [one["text"] for one in behind]
    for one, same in zip(behind, rest[-len(behind) :], strict=True):
        assert same["start_time"] == pytest.approx(one["start_time"], abs=0.3)
    assert diarize(embedded, job_id, num_speakers=1).status_code == 200
    again = embedded.transcript(job_id)["segments"]
    assert (again[0]["start_time"], again[-1]["end_time"]) == (
        rest[0]["start_time"],
        rest[-1]["end_time"],
    )


def edit(server: Server, job_id: str, *operations: dict[str, Any]) -> httpx.Response:
    path, body = f"/v1/jobs/{job_id}/transcript", {"operations": [*operations]}
    return server.client.patch(path, json=body).raise_for_status()


def lines(server: Server, job_id: str) -> list[tuple[str, str | None, str]]:
    segments = server.transcript(job_id)["segments"]
    return [(one["speaker"], one.get("name"), one["text"]) for one in segments]


def said(server: Server, job_id: str) -> list[str]:
    return [word for *_, text in lines(server, job_id) for word in text.split()]


def test_diarizing_again_keeps_texts_and_matching_names_and_can_be_undone(
    embedded: Server,
) -> None:
    job_id = embedded.done(clip_wav("endgame_nagg_nell"))  # its history is looked at
    first = lines(embedded, job_id)
    assert {speaker for speaker, *_ in first} == {"Speaker_0", "Speaker_1"}
    edit(
        embedded,
        job_id,
        {"op": "rename", "speaker": "Speaker_0", "name": "Nagg"},
        {"op": "rename", "speaker": "Speaker_1", "name": "Nell"},
        {"op": "text", "segment": 0, "text": "Corrected by hand."},
        {"op": "move", "segments": [1], "speaker": "Speaker_0"},
    )
    edited = said(embedded, job_id)
    answer = diarize(embedded, job_id, {"If-Match": '"1"'}, num_speakers=1)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert answer.headers["etag"] == '"2"'
    assert (body["revision"], body["undo"], body["redo"]) == (2, 2, 0)
    assert body["speakers"] == [{"speaker": "Speaker_0", "name": "Nagg"}]
    assert body["not_carried"] == {"names": ["Nell"], "reassignments": 1}
    assert body["segment_count"] == len(lines(embedded, job_id))
    assert {speaker for speaker, *_ in lines(embedded, job_id)} == {"Speaker_0"}
    assert said(embedded, job_id) == edited

    three = diarize(embedded, job_id, num_speakers=3).json()
    assert len(three["speakers"]) == 3
    assert said(embedded, job_id) == edited
    anyhow = diarize(embedded, job_id).json()
    assert [one["name"] for one in anyhow["speakers"]].count("Nagg") == 1
    assert len(anyhow["speakers"]) == 2
    assert [one[0] for one in lines(embedded, job_id)] == [one[0] for one in first]

    history = embedded.client.get(f"/v1/jobs/{job_id}/transcript/history").json()
    assert [one["operations"] for one in history["entries"][1:]] == [
        [{"op": "diarize", "num_speakers": 1}],
        [{"op": "diarize", "num_speakers": 3}],
        [{"op": "diarize"}],
    ]
    for _ in range(4):
        undone = edit(embedded, job_id, {"op": "undo"}).json()
    assert lines(embedded, job_id) == first
    assert undone["segment_count"] == len(first)
    assert edit(embedded, job_id, {"op": "redo"}).json()["redo"] == 3
    assert said(embedded, job_id) == edited


def test_edit_after_diarizing_again_returns_412_without_if_match_and_applies_with_star(
    embedded: Server, play_job: str
) -> None:
    diarize(embedded, play_job, {"If-Match": "*"}, num_speakers=1).raise_for_status()
    path = f"/v1/jobs/{play_job}/transcript"
    body = {"operations": [{"op": "rename", "speaker": "Speaker_0", "name": "Hamm"}]}
    check_problem(embedded.client.patch(path, json=body), 412, "transcript_changed")
    embedded.client.patch(path, json=body, headers={"If-Match": "*"}).raise_for_status()
    assert "Hamm" in {name for _, name, _ in lines(embedded, play_job)}
    unknown = embedded.client.patch("/v1/jobs/no/transcript", json=body, headers={"If-Match": "*"})
    check_problem(unknown, 404, "job_not_found")


def test_diarizing_again_keeps_the_number_within_min_speakers_and_max_speakers(
    embedded: Server, play_job: str
) -> None:
    assert len(diarize(embedded, play_job, max_speakers=1).json()["speakers"]) == 1
    assert len(diarize(embedded, play_job, min_speakers=3).json()["speakers"]) == 3
    limits = {"min_speakers": 1, "max_speakers": 5}
    found = diarize(embedded, play_job, **limits).json()
    assert (len(found["speakers"]), found["warnings"]) == (2, [])


def test_diarizing_again_warns_of_a_number_that_the_voices_do_not_have(
    embedded: Server, play_job: str
) -> None:
    found = diarize(embedded, play_job, num_speakers=19).json()
    [warning] = found["warnings"]
    assert warning["code"] == "speaker_count_differs"
    assert f"has {len(found['speakers'])} speakers; the request named 19" in warning["message"]


def test_number_of_speakers_that_was_not_kept_is_a_warning_until_the_owner_edits_them(
    embedded: Server,
) -> None:
    job_id = embedded.done(clip_wav("endgame_nagg_nell"), min_speakers="19")

    def warnings() -> list[str]:
        return [one["code"] for one in embedded.transcript(job_id)["metadata"]["warnings"]]

    assert warnings() == ["speaker_count_differs"]
    edit(embedded, job_id, {"op": "rename", "speaker": "Speaker_0", "name": "Nagg"})
    assert warnings() == []


def test_diarizing_again_with_an_outdated_if_match_returns_412(
    embedded: Server, play_job: str
) -> None:
    late = diarize(embedded, play_job, {"If-Match": '"999"'}, num_speakers=2)
    check_problem(late, 412, "transcript_changed")


@pytest.mark.parametrize(
    "fields",
    [
        {"num_speakers": 0},
        {"num_speakers": 21},
        {"num_speakers": 2, "max_speakers": 3},
        {"min_speakers": 3, "max_speakers": 2},
        {"num_speakers": 2, "speakers": 3},
        {"language": "en"},
    ],
)
def test_diarizing_again_with_invalid_or_contradictory_numbers_or_an_unknown_field_is_refused(
    embedded: Server, play_job: str, fields: dict[str, Any]
) -> None:
    check_problem(diarize(embedded, play_job, **fields), 422, "field_invalid")


def test_diarizing_again_without_a_kept_diarization_returns_409_with_reason_and_remedy(
    embedded: Server,
) -> None:
    undiarized = embedded.done(clip_wav("beckett"), diarize="false")
    answer = diarize(embedded, undiarized, num_speakers=2)
    check_problem(answer, 409, "diarization_not_kept")
    assert "num_speakers" in answer.json()["hint"]
    assert "without diarization" in answer.json()["detail"]
    private = embedded.done(clip_wav("beckett"), recognise="false")
    check_problem(diarize(embedded, private, num_speakers=2), 409, "diarization_not_kept")
    check_problem(diarize(embedded, "nobody-s", num_speakers=2), 404, "job_not_found")


def test_command_and_client_diarize_a_job_again_and_report_conflicts(
    embedded: Server, play_job: str
) -> None:
    rename = {"op": "rename", "speaker": "Speaker_0", "name": "Nagg"}
    with closing(Client(embedded.url)) as client:
        client.diarize(play_job, 3)
        with pytest.raises(TranscriptChanged, match="diarized again"):
            client.edit(play_job, [rename])
        client.edit(play_job, [rename], client.history(play_job)["revision"])
        assert len(client.diarize(play_job, min_speakers=3)["speakers"]) == 3
        with pytest.raises(TranscriptChanged):
            client.diarize(play_job, 2, revision=0)
    start = sys.executable, "-m", "sidecar.main", "jobs", "diarize", play_job[:12]
    one = run_command([*start, "--num-speakers", "1", "--server", embedded.url], text=True)
    assert (one.returncode, one.stdout) == (0, "Speaker_0  Nagg\n"), one.stderr
    assert f": {play_job}" in one.stderr
    unclear = [*start, "--num-speakers", "1", "--max-speakers", "2", "--server", embedded.url]
    refused = run_command(unclear, text=True)
    assert refused.returncode == 1
    assert "'num_speakers' cannot be combined" in refused.stderr


@pytest.mark.slow
def test_job_of_another_node_is_diarized_again_by_any_front(tmp_path: Path, journal: str) -> None:
    with Fronts(tmp_path, journal, engine="moonshine") as fronts:
        job_id = fronts.done(clip_wav("endgame_nagg_nell"))
        one, another = fronts.fronts
        assert len(diarize(one, job_id, num_speakers=1).json()["speakers"]) == 1
        words = said(another, job_id)
        assert (
            len(diarize(another, job_id, {"If-Match": '"1"'}, num_speakers=3).json()["speakers"])
            == 3
        )
        assert said(one, job_id) == words
        check_problem(diarize(one, job_id, {"If-Match": '"1"'}), 412, "transcript_changed")
        edit(one, job_id, {"op": "undo"})
        assert {speaker for speaker, *_ in lines(another, job_id)} == {"Speaker_0"}


@pytest.mark.slow
def test_kept_job_has_its_new_speakers_after_a_restart_and_is_diarized_again_and_undone(
    tmp_path: Path,
) -> None:
    settings = {"engine": "moonshine", "keep_jobs": "1", "journal_key": KEY}
    with Server(tmp_path, data_dir=tmp_path / "kept", **settings) as up:
        job_id = up.done(clip_wav("endgame_nagg_nell"))
        assert len(diarize(up, job_id, num_speakers=1).json()["speakers"]) == 1
        before = lines(up, job_id)
    with Server(tmp_path, data_dir=tmp_path / "kept", **settings) as up:
        assert lines(up, job_id) == before
        assert len(diarize(up, job_id, num_speakers=2).json()["speakers"]) == 2
        edit(up, job_id, {"op": "undo"})
        assert lines(up, job_id) == before
