"""Jobs that outlive a crash: real services, killed in the middle, and started again."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from recordings import wav
from service_clock import AHEAD_S, clocked_command, put_ahead
from service_process import Server, free_port, new_file, wait_until
from sse_reader import follow

from sidecar.jobs.sqlite_event_log import STOP_NOTE
from sidecar.storage.job_backup import back_up_jobs, restore_jobs
from sidecar.storage.job_journal import JOURNAL_FILE

KEY = "0123456789abcdef0123456789abcdef"
SECONDS = 40
SETTLES = 5


def spoken(number: int, seconds: int = SECONDS) -> bytes:
    """A recording that is like no other: noise, 8 bit at 2 kHz."""
    return wav(random.Random(number).randbytes(2000 * seconds), rate=2000, bits=8)


class Kept:
    """A service that keeps its jobs, over all its lives."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.home, self.port = home, free_port()
        self.settings = {"keep_jobs": 1, "data_dir": home, "journal_key": KEY}
        self.settings |= {"scripted_speed": 40, "scripted_settles": SETTLES}
        self.settings |= {"job_retention": "1h", **settings}

    def start(self) -> Server:
        return Server(self.home / "server", port=self.port, **self.settings)

    def hold(self, seconds: int = 1) -> Path:
        """Have attempts of its next life stop behind so many seconds, while this file is there;
        then they go on at once."""
        self.home.mkdir(exist_ok=True)
        file = new_file(self.home / "hold", str(seconds))
        self.settings |= {"scripted_hold": file, "scripted_speed": 0}
        return file

    def move(self) -> None:
        """Have its folder elsewhere from now on, as after a backup was brought back."""
        moved = self.home / "moved" / "jobs"
        moved.parent.mkdir()
        (self.home / "jobs").rename(moved)
        self.settings["data_dir"] = moved.parent

    def stored_events(self, job_id: str) -> int:
        """How many events of a job are on the disk."""
        with closing(sqlite3.connect(self.home / "jobs" / JOURNAL_FILE)) as database:
            count = "SELECT count(*) FROM events WHERE job = ?"
            return int(database.execute(count, (job_id,)).fetchone()[0])

    def files(self) -> list[Path]:
        return [path for path in (self.home / "jobs").rglob("*") if path.is_file()]

    def written(self) -> bytes:
        """All that is in them; the recording of a job that has ended may go meanwhile."""
        found = b""
        for path in self.files():
            with suppress(FileNotFoundError):
                found += path.read_bytes()
        return found


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Kept]:
    made: list[Kept] = []

    def make(**settings: object) -> Kept:
        made.append(Kept(tmp_path / str(len(made)), **settings))
        return made[-1]

    return make


@pytest.fixture(scope="module")
def right(server: Server) -> Callable[[int], list[str]]:
    """What a recording says, by a service that nobody kills."""
    known: dict[int, list[str]] = {}

    def texts(number: int) -> list[str]:
        if number not in known:
            body = server.post(spoken(number)).raise_for_status().json()
            known[number] = [segment["text"] for segment in body["segments"]]
        return known[number]

    return texts


def texts_of(server: Server, job_id: str) -> list[str]:
    """What was said in a job, once it is done."""
    server.wait_state(job_id, "done")
    return [segment["text"] for segment in server.transcript(job_id)["segments"]]


def kill(process: psutil.Process) -> None:
    """It is dead then; a worker is a zombie until the service looks at it again."""
    with suppress(psutil.NoSuchProcess):
        process.kill()
        wait_until(
            lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
            "it is dead",
        )


def test_job_of_killed_service_resumes_from_its_resume_point_and_followers_miss_no_event(
    kept: Callable[..., Kept], right: Callable[[int], list[str]]
) -> None:
    life = kept(scripted_speed=8)
    with life.start() as server:
        job_id = server.submit(spoken(1))
        waiting = server.submit(spoken(2, 5))
        server.segments(job_id, 2 * SETTLES + 1)  # some is settled
        done_s = server.job(job_id)["progress"]["audio_seconds_done"]
        with follow(server, job_id) as events:
            heard = [next(events) for _ in range(3 * SETTLES)]
        kill(server.process)
    life.move()
    hold = life.hold()
    with life.start() as server:
        found = server.job(job_id)
        assert found["state"] in ("queued", "running")
        assert found["id"] == job_id
        settled = found["progress"]["audio_seconds_done"]
        assert settled >= 2 * SETTLES
        assert done_s - settled <= 2 * SETTLES, "too much of it is done again"
        hold.unlink()
        assert texts_of(server, job_id) == right(1)
        assert len(texts_of(server, waiting)) == 5
        with follow(server, job_id, heard[-1].id) as events:
            rest = list(events)
        numbers = [event.id for event in (*heard, *rest)]
        assert numbers == sorted({*numbers}), "a number means two things"
        assert [event.name for event in rest if event.name in ("put_back", "done")] == [
            "put_back",
            "done",
        ]
        said = {e.data["index"]: e.data["segment"] for e in (*heard, *rest) if e.name == "segment"}
        assert [said[index]["text"] for index in sorted(said)] == right(1)
        uploads = life.home / "moved" / "jobs" / "uploads"
        wait_until(lambda: len(list(uploads.iterdir())) == 1, "ended jobs need no recording")


def test_job_of_killed_service_resumes_in_its_second_channel(
    kept: Callable[..., Kept], server: Server
) -> None:
    channels = (random.Random(number).randbytes(2000 * 20) for number in (1, 2))
    content = wav(bytes(sum(zip(*channels, strict=True), ())), channels=2, rate=2000, bits=8)
    life = kept(scripted_speed=8)
    with life.start() as first:
        job_id = first.submit(content, channels="separate")
        first.segments(job_id, 2 * SETTLES + 4)  # of the second channel too
        kill(first.process)
    hold = life.hold()
    with life.start() as second:
        assert second.job(job_id)["progress"]["audio_seconds_done"] >= 10
        hold.unlink()
        found = texts_of(second, job_id)
    whole = server.post(content, channels="separate").json()["segments"]
    assert len(found) == 2 * 20
    assert found == [one["text"] for one in whole]


@pytest.mark.parametrize(("told", "attempts"), [(True, 1), (False, 2)])
def test_kill_of_a_service_counts_as_an_attempt_unless_it_was_told_to_stop_before(
    kept: Callable[..., Kept], told: bool, attempts: int
) -> None:
    life = kept(scripted_settles=2 * SECONDS, shutdown_grace="20m")
    hold = life.hold()
    with life.start() as server:
        job_id = server.submit(spoken(1))
        server.segments(job_id, 1)
        if told:
            server.process.stop()
            wait_until(lambda: (life.home / "jobs" / STOP_NOTE).exists(), "it is told")
        assert server.job(job_id)["state"] == "running"
        kill(server.process)
    hold.unlink()
    with life.start() as server:
        assert not (life.home / "jobs" / STOP_NOTE).exists(), "it is about the last service"
        assert server.wait_state(job_id, "done")["attempts"] == attempts


@pytest.mark.slow
def test_jobs_of_backup_of_running_service_resume_in_another_data_folder(
    kept: Callable[..., Kept], right: Callable[[int], list[str]], tmp_path: Path
) -> None:
    life, file = kept(), tmp_path / "jobs.tar"
    hold = life.hold(SETTLES + 1)
    with life.start() as server:
        job_id, waiting = server.submit(spoken(1)), server.submit(spoken(2, 5))
        begin_and_segments_and_resume_point = 1 + SETTLES + 1
        wait_until(
            lambda: life.stored_events(job_id) >= begin_and_segments_and_resume_point, "settled"
        )
        assert back_up_jobs(life.home / "jobs", file).recordings == 2
        assert server.job(job_id)["state"] == "running", "it does not notice"
        kill(server.process)
    hold.unlink()
    life.settings |= {"data_dir": life.home / "restored"}
    assert restore_jobs(file, life.home / "restored" / "jobs").jobs == 2
    with life.start() as server:
        assert server.job(job_id)["progress"]["audio_seconds_done"] >= SETTLES
        assert texts_of(server, job_id) == right(1)
        assert len(texts_of(server, waiting)) == 5


@pytest.mark.slow
def test_job_files_are_private_and_have_no_plaintext_and_nothing_of_an_expired_job(
    kept: Callable[..., Kept], right: Callable[[int], list[str]], tmp_path: Path
) -> None:
    command = clocked_command(tmp_path)
    life = kept(command=command, scripted_speed=0, job_retention=f"{AHEAD_S - 1}s")
    texts = right(1)
    with life.start() as server:
        server.client.post("/transcribe", files={"audio": spoken(2)}).raise_for_status()
        job_id = server.done(spoken(1))
        data = life.written()
        assert job_id.encode() in data
        for text in (*texts, "scripted"):
            assert text.encode() not in data
        assert spoken(1)[100:200] not in data
        for path in (life.home / "jobs", life.home / "jobs" / "uploads"):
            assert path.stat().st_mode & 0o777 == 0o700
        for path in life.files():
            if path.name.startswith("jobs.db"):
                assert path.stat().st_mode & 0o777 == 0o600
        put_ahead(server)
        wait_until(lambda: not server.jobs(), "it is forgotten")
        wait_until(lambda: job_id.encode() not in life.written(), "gone")
