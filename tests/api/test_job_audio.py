"""`/v1/jobs/{id}/audio` on a real service: whole, by ranges, over a start, and to nobody else."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from recordings import wav
from service_process import Server, check_problem, new_file, wait_until
from vibevoice_asr_client import Client

from sidecar.auth.token_issuing import TokenIssuer

KEY = "0123456789abcdef" * 4
MIB = 1 << 20
SECONDS = 40


def spoken(number: int, seconds: int = SECONDS) -> bytes:
    """A recording like no other, of more than one sealed piece: 32 kB a second."""
    block = hashlib.sha256(bytes([number])).digest()
    return bytes(wav(block * (seconds * 1000), rate=16_000, bits=16))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("Aufnahmen für später")


def living(home: Path, room_mb: int = 3, **settings: object) -> Server:
    kept = {"keep_jobs": 1, "data_dir": home, "journal_key": KEY, "keep_recordings_mb": room_mb}
    quick = {"job_retention": "1h", "scripted_speed": 100_000}
    return Server(home / "server", **kept, **quick, **settings)


def audio(server: Server, job_id: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.client.get(f"/v1/jobs/{job_id}/audio", headers=named)


def has_recording(server: Server, job_id: str) -> bool:
    return bool(server.client.get(f"/v1/jobs/{job_id}").json()["recording"])


@pytest.fixture(scope="module")
def keeping(home: Path) -> Iterator[Server]:
    with living(home) as running:
        yield running


@pytest.fixture(scope="module")
def job_id(keeping: Server) -> str:
    return keeping.done(spoken(0))


def test_recording_is_returned_unchanged_as_a_sandboxed_attachment_that_is_not_cached(
    keeping: Server, job_id: str
) -> None:
    answer = audio(keeping, job_id)
    assert (answer.status_code, answer.content == spoken(0)) == (200, True)
    with Client(str(keeping.client.base_url)) as client:
        assert client.recording(job_id) == spoken(0)
    assert has_recording(keeping, job_id)
    said = answer.headers
    assert said["content-type"] == "audio/wav"
    assert said["content-length"] == str(len(spoken(0)))
    assert said["accept-ranges"] == "bytes"
    assert said["content-disposition"].startswith("attachment; filename=")
    assert said["x-content-type-options"] == "nosniff"
    assert "sandbox" in said["content-security-policy"]
    assert said["cache-control"] == "no-store"
    head = keeping.client.head(f"/v1/jobs/{job_id}/audio")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == said["content-length"]


def test_page_of_an_allowed_origin_may_request_a_range_and_read_all_headers(
    keeping: Server, job_id: str
) -> None:
    path, page = f"/v1/jobs/{job_id}/audio", {"Origin": "tauri://localhost"}
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"}
    assert keeping.client.options(path, headers=page | asked).status_code == 200
    answer = keeping.client.get(path, headers=page | {"Range": "bytes=-5"})
    exposed = {
        *(
            name.strip()
            for name in answer.headers["access-control-expose-headers"].lower().split(",")
        ),
        *("cache-control", "content-type", "content-length"),  # what any page may read
    }
    own = {"access-control-allow-origin", "access-control-expose-headers", "vary", "date", "server"}
    safety = {
        *("content-security-policy", "cross-origin-resource-policy"),
        *("x-content-type-options", "x-frame-options"),
    }
    assert answer.headers.keys() - exposed - own - safety == set()
    assert "content-range" in answer.headers


def test_any_byte_range_is_returned_also_across_stored_blocks(keeping: Server, job_id: str) -> None:
    whole = spoken(0)
    size = len(whole)
    assert size > MIB
    for asked, begin, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, size),
        (f"bytes={MIB - 10}-{MIB + 9}", MIB - 10, MIB + 10),
        (f"bytes={MIB}-", MIB, size),
        ("bytes=-5", size - 5, size),
        (f"bytes=-{size * 2}", 0, size),
        (f"bytes=7-{size * 2}", 7, size),
    ):
        answer = audio(keeping, job_id, Range=asked)
        assert answer.status_code == 206, asked
        assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{size}"
        assert answer.content == whole[begin:end], asked


def test_invalid_or_multiple_range_gets_the_whole_recording_and_one_beyond_its_end_416(
    keeping: Server, job_id: str
) -> None:
    size = len(spoken(0))
    for asked in ("bytes=0-1,5-6", "lines=1-2", "bytes=9-3", "bytes=-"):
        answer = audio(keeping, job_id, Range=asked)
        assert (answer.status_code, answer.content == spoken(0)) == (200, True), asked
    for asked in (f"bytes={size}-", "bytes=-0"):
        answer = audio(keeping, job_id, Range=asked)
        check_problem(answer, 416, "range_unsatisfiable")
        assert answer.headers["content-range"] == f"bytes */{size}"


def test_range_is_returned_if_if_range_is_the_current_etag_and_else_the_whole(
    keeping: Server, job_id: str
) -> None:
    tag = audio(keeping, job_id).headers["etag"]
    assert audio(keeping, job_id, Range="bytes=0-0", If_Range=tag).status_code == 206
    other = audio(keeping, job_id, Range="bytes=0-0", If_Range='"other"')
    assert (other.status_code, other.content == spoken(0)) == (200, True)


def test_disconnect_during_playback_leaves_no_open_file(keeping: Server, job_id: str) -> None:
    name = f"/v1/jobs/{job_id}/audio"
    before = keeping.process.num_fds()
    for _ in range(20):
        with keeping.client.stream("GET", name) as answer:
            next(answer.iter_bytes())
    wait_until(lambda: keeping.process.num_fds() <= before + 1, "all are closed")


def test_kept_recording_is_encrypted_and_deleted_with_its_job(keeping: Server, home: Path) -> None:
    own = spoken(7, 2)
    job_id = keeping.done(own)
    assert audio(keeping, job_id).content == own
    for path in home.rglob("*"):
        assert not path.is_file() or own[200:264] not in path.read_bytes(), path
    files = len(_uploads(home))
    assert keeping.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert len(_uploads(home)) == files - 1
    check_problem(audio(keeping, job_id), 404, "job_not_found")


def test_audio_of_a_recording_damaged_on_disk_in_any_piece_returns_409_audio_lost(
    keeping: Server, home: Path
) -> None:
    job_id = keeping.done(spoken(8))
    path = max(_uploads(home), key=lambda one: one.stat().st_mtime_ns)
    sealed = path.read_bytes()
    for at in (MIB + 100, 100):  # the second of two pieces, the last, is known at once
        damaged = bytearray(sealed)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        check_problem(audio(keeping, job_id), 409, "audio_lost")
    path.write_bytes(sealed)
    assert audio(keeping, job_id).content == spoken(8)
    assert keeping.client.delete(f"/v1/jobs/{job_id}").status_code == 204


@pytest.mark.slow
def test_only_an_owners_oldest_recordings_over_the_limit_are_deleted_also_at_a_restart(
    tmp_path: Path,
) -> None:
    issuer = TokenIssuer(tmp_path / "tokens")
    ada, bob = ({"Authorization": f"Bearer {issuer.create(name)[0]}"} for name in ("ada", "bob"))
    keys = issuer.keys.public
    with living(tmp_path, token_keys=keys) as server:
        server.client.headers.update(bob)
        theirs = server.done(spoken(9))
        server.client.headers.update(ada)
        ids = [server.done(spoken(number)) for number in range(4)]
        kept = [has_recording(server, one) for one in ids]
        wait_until(
            lambda: [has_recording(server, one) for one in ids] == [False, False, True, True],
            f"two of 1.25 MB have room in 3 MB: {kept}",
        )
        check_problem(audio(server, ids[0]), 404, "recording_not_kept")
        check_problem(audio(server, theirs), 404, "job_not_found")
        assert server.client.get(f"/v1/jobs/{ids[0]}/transcript").status_code == 200
    with living(tmp_path, room_mb=2, token_keys=keys) as server:
        server.client.headers.update(ada)
        assert [has_recording(server, one) for one in ids] == [False, False, False, True]
        assert audio(server, ids[3]).content == spoken(3)
        server.client.headers.update(bob)
        assert audio(server, theirs).content == spoken(9)
    with living(tmp_path, room_mb=0, token_keys=keys) as server:
        server.client.headers.update(bob)
        check_problem(audio(server, theirs), 404, "recording_not_kept")
        assert _uploads(tmp_path) == []


def test_audio_of_a_job_whose_recording_is_not_kept_returns_404(
    server: Server, keeping: Server, tmp_path: Path
) -> None:
    job_id = server.done(spoken(1, 1))
    check_problem(audio(server, job_id), 404, "recording_not_kept")
    assert not has_recording(server, job_id)
    server.client.delete(f"/v1/jobs/{job_id}")
    named = new_file(tmp_path / "mine.wav", spoken(2, 1))
    answer = keeping.client.post("/v1/jobs", json={"audio_path": str(named)})
    job_id = answer.raise_for_status().json()["id"]
    keeping.wait_state(job_id, "done")
    check_problem(audio(keeping, job_id), 404, "recording_not_kept")
    check_problem(audio(keeping, "nothing"), 404, "job_not_found")


def _uploads(home: Path) -> list[Path]:
    return [path for path in (home / "jobs/uploads").iterdir() if path.suffix != ".store"]
