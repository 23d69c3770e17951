"""`vibevoice-asr jobs list`, `cancel` and `delete` against a real service."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from service_process import Server, wait_until
from vibevoice_asr_client.models import Job, Progress

from sidecar import errors
from sidecar.auth.identity import ANONYMOUS, OwnerLimits
from sidecar.auth.token_issuing import TokenIssuer
from sidecar.cli import jobs, run
from sidecar.jobs.reservations import check_jobs
from sidecar.storage.job_backup import BackupSummary

Told = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> TokenIssuer:
    made = TokenIssuer(tmp_path_factory.mktemp("issuer") / "tokens")
    made.create("nobody")
    return made


@pytest.fixture(scope="module")
def service(issuer: TokenIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A slow one, which tells owners apart."""
    home = tmp_path_factory.mktemp("service")
    settings = {"queue_limit": 64, "scripted_speed": 0.01, "preload": True}
    with Server(home, token_keys=issuer.keys.public, **settings) as running:
        # what comes until then begins together
        wait_until(lambda: running.health()["model_loaded"], "the engine is loaded")
        yield running


@pytest.fixture
def told(
    service: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Told:
    """Run `jobs …` as somebody; the exit code, the lines, and what was said beside them."""

    def say(token: str, *words: str) -> tuple[int, list[str], str]:
        monkeypatch.setenv("VIBEVOICE_CLIENT_TOKEN", token)
        code = run(["jobs", *words, "--server", f"http://127.0.0.1:{service.port}"])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return say


def submit(service: Server, token: str, voice: bytes) -> str:
    head = {"Authorization": f"Bearer {token}"}
    answer = service.client.post("/v1/jobs", files={"audio": voice}, headers=head)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize(
    ("position", "said"), [(0, "next"), (3, "3 in the queue"), (None, "- in the queue")]
)
def test_waiting_job_is_listed_with_its_position(position: int | None, said: str) -> None:
    raw = {"position": position, "created": "2026-11-23T10:00:00Z"}
    job = Job("0f3a", "queued", Progress("queued"), raw=raw)
    assert jobs.job_line(job).split("  ")[-1] == said


def test_jobs_are_listed_cancelled_and_deleted_by_their_owner_and_by_no_other(
    service: Server, issuer: TokenIssuer, told: Told, voice: bytes
) -> None:
    (anna, _), (bert, _) = issuer.create("anna"), issuer.create("bert")
    # The one behind the first may have been sent to the engine's process ahead of time.
    first, ahead, second = (submit(service, anna, voice) for _ in range(3))
    other = submit(service, bert, voice)
    code, lines, _ = told(anna, "list")
    assert code == 0
    assert [line.split()[0] for line in lines] == [first, ahead, second]
    assert "in the queue" in lines[2]
    assert second in [line.split()[0] for line in told(anna, "list", "--state", "queued")[1]]
    code, _, said = told(anna, "list", "--state", "queued,gone")
    assert code == 1
    assert "'gone', which is not a state of a job. Use one or more of: queued" in said

    code, _, said = told(anna, "cancel", second)
    assert (code, said.strip().endswith(f"cancelled: {second}")) == (0, True)
    states = {line.split()[0]: line.split()[1] for line in told(anna, "list")[1]}
    assert states[second] == "cancelled", "it is ended, and still there"
    code, _, said = told(anna, "cancel", second)
    assert (code, said.strip().endswith(f"already cancelled, unchanged: {second}")) == (0, True)

    code, _, said = told(anna, "delete", second[:-4])
    assert (code, said.strip().endswith(f"deleted: {second}")) == (0, True)
    assert [line.split()[0] for line in told(anna, "list")[1]] == [first, ahead]
    for word in ("cancel", "delete"):
        code, _, said = told(anna, word, other)
        assert code == 1
        assert "No ids of your jobs begin with" in said
        assert "jobs list" in said
    assert [line.split()[0] for line in told(bert, "list")[1]] == [other]


def test_cancel_with_ambiguous_job_id_prefix_is_refused(
    service: Server, issuer: TokenIssuer, told: Told, voice: bytes
) -> None:
    token, _ = issuer.create("cora")
    ids = [submit(service, token, voice) for _ in range(17)]  # two begin with the same digit
    shared = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    code, _, said = told(token, "cancel", shared)
    assert code == 1
    assert "ids of your jobs begin with" in said
    assert len(told(token, "list")[1]) == len(ids)


def test_job_id_prefix_below_six_characters_deletes_nothing(
    service: Server, issuer: TokenIssuer, told: Told, voice: bytes
) -> None:
    token, _ = issuer.create("dora")
    only = submit(service, token, voice)
    for given in (only[0], only[:5], ""):
        code, _, said = told(token, "delete", given)
        assert code == 1
        assert "at least 6 characters" in said
        assert "jobs list" in said
    assert [line.split()[0] for line in told(token, "list")[1]] == [only]
    assert told(token, "delete", only[:6])[0] == 0
    assert told(token, "list")[1] == []


def test_wrong_token_is_one_line_of_error(told: Told) -> None:
    code, lines, said = told("x" * 20, "list")
    assert (code, lines) == (1, [])
    assert len(said.splitlines()) == 1


def test_backup_summary_has_singular_and_plural() -> None:
    said = jobs.summary_line(BackupSummary(jobs=1, recordings=2, size=0))
    assert said == "1 job, 2 recordings, 0.0 MB"
    said = jobs.summary_line(BackupSummary(jobs=2, recordings=1, size=0))
    assert said == "2 jobs, 1 recording, 0.0 MB"


def test_refusal_over_the_job_limit_has_number_of_jobs_and_limit() -> None:
    who = replace(ANONYMOUS, limits=OwnerLimits(jobs=1))
    with pytest.raises(errors.JobsLimited, match="Your jobs that wait or run: 1; the limit is 1"):
        check_jobs(who, 1)
