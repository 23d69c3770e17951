"""How long work takes, as far as anybody can tell."""

import json
import logging
import random
import threading
from pathlib import Path

import pytest

from sidecar import files
from sidecar.jobs.duration_prediction import (
    DEFAULT_WORK_PER_AUDIO_S,
    DURATION_FILE_NAME,
    MAX_FITS,
    MIN_JOB_S,
    MIN_MEASURED_JOBS,
    REMEMBERED_JOBS,
    UNKNOWN_AUDIO_S,
    DurationFile,
    DurationFit,
    DurationFits,
    DurationKey,
    DurationPredictor,
    estimate_remaining_s,
    remaining_s,
)


def test_predicted_duration_is_a_guess_until_a_job_of_that_precision_is_measured() -> None:
    pace = DurationPredictor()
    assert pace.seconds("int8", 100.0) == 100.0 * DEFAULT_WORK_PER_AUDIO_S
    assert pace.seconds("int8", 100.0, 7.0) == 7.0
    assert pace.seconds("int8", None) == UNKNOWN_AUDIO_S * DEFAULT_WORK_PER_AUDIO_S
    pace.learn("int8", 200.0, 20.0)
    assert pace.seconds("int8", 100.0, 7.0) == 10.0
    assert pace.seconds("fp32", 100.0, 7.0) == 7.0, "another precision is another pace"


def test_outliers_and_old_measurements_do_not_change_predicted_duration() -> None:
    pace = DurationPredictor()
    for took in (10.0, 10.0, 500.0):
        pace.learn("int8", 100.0, took)
    assert pace.seconds("int8", 100.0) == 10.0
    for _ in range(REMEMBERED_JOBS):
        pace.learn("int8", 100.0, 30.0)
    assert pace.seconds("int8", 100.0) == 30.0
    pace.learn("int8", 0.0, 30.0)


def test_predicted_and_remaining_seconds_have_a_minimum() -> None:
    assert DurationPredictor().seconds("int8", 0.0) == MIN_JOB_S
    assert remaining_s(60.0, 20.0, None) == 40.0
    assert remaining_s(60.0, 20.0, 0.25) == 48.75, "a quarter by its own pace"
    assert remaining_s(60.0, 80.0, None) == remaining_s(60.0, 80.0, 1.0) == MIN_JOB_S


def test_remaining_time_weighs_own_pace_of_job_more_the_further_it_is() -> None:
    assert estimate_remaining_s(None, 20.0, None) is None, "nobody can tell"
    assert estimate_remaining_s(60.0, 20.0, None) == 40.0
    assert estimate_remaining_s(None, 20.0, 0.25) == 60.0
    assert estimate_remaining_s(100.0, 5.0, 0.5) == 27.5  # 10 s by its own pace, 100 s by others'
    slow_start = estimate_remaining_s(100.0, 20.0, 0.02)
    assert slow_start is not None
    assert slow_start < 150, "not the 980 s that the start alone would come to"
    assert estimate_remaining_s(60.0, 80.0, None) == MIN_JOB_S
    assert estimate_remaining_s(60.0, 80.0, 1.0) == MIN_JOB_S


def test_remaining_time_of_resumed_attempt_uses_only_its_own_progress() -> None:
    """60 % were done before; 5 s brought it to 70 %: 30 % more take 15 s, not 2 s."""
    assert estimate_remaining_s(None, 5.0, 0.7, 0.6) == pytest.approx(15.0)
    assert estimate_remaining_s(100.0, 5.0, 0.7, 0.6) == pytest.approx((5 + 90) * 0.3)
    assert remaining_s(60.0, 5.0, 0.6, 0.6) == pytest.approx(19.0)
    assert estimate_remaining_s(60.0, 5.0, 0.6, 0.6) == pytest.approx(19.0)
    assert estimate_remaining_s(None, 5.0, 0.6, 0.6) is None


@pytest.mark.parametrize("fraction", [0.5, 0.5001, 0.505])
def test_slow_first_seconds_of_resumed_attempt_hardly_change_its_remaining_time(
    fraction: float,
) -> None:
    """Its seek and its decoding are in those 20 s, and what is done is rounded."""
    assert 150 < remaining_s(360.0, 20.0, fraction, 0.5) < 200


def test_predicted_duration_is_within_a_quarter_despite_a_quarter_of_outliers() -> None:
    chance = random.Random(7)
    for _ in range(50):
        begin_s, per_s = chance.uniform(0.0, 5.0), chance.uniform(0.01, 2.0)
        lengths = [chance.choice([5, 20, 60, 300, 1800]) * chance.uniform(1, 2) for _ in range(12)]
        pace = DurationPredictor()
        for number, length_s in enumerate(lengths):
            wrong = chance.uniform(5.0, 50.0) if number % 4 == 3 else 1.0
            pace.learn("int8", length_s, (begin_s + per_s * length_s) * wrong)
        for length_s in (10.0, 1000.0):
            right = begin_s + per_s * length_s
            assert pace.seconds("int8", length_s) == pytest.approx(max(MIN_JOB_S, right), rel=0.25)


def test_predicted_load_time_is_the_median_and_does_not_change_predicted_duration() -> None:
    pace = DurationPredictor()
    assert pace.load_s("int8") == 0.0
    for took in (10.0, 12.0, 400.0):
        pace.learn_load("int8", took)
    assert pace.load_s("int8") == 12.0
    assert pace.seconds("int8", 100.0) == 100.0 * DEFAULT_WORK_PER_AUDIO_S


def predictor(engine: str, model: str, known: DurationFits | None = None) -> DurationPredictor:
    """One of a model that stays."""
    return DurationPredictor(lambda precision: DurationKey(engine, model, precision), known)


def test_durations_are_kept_over_restart_by_engine_model_and_precision_until_enough_new_ones(
    tmp_path: Path,
) -> None:
    pace = predictor("whisper", "small")
    pace.learn("int8", 100.0, 50.0)
    pace.learn_load("int8", 3.0)
    DurationFile(tmp_path / "data").write(pace.fits)
    known = DurationFile(tmp_path / "data").read()
    assert known == {DurationKey("whisper", "small", "int8"): DurationFit(0.0, 0.5, 3.0)}
    again = predictor("whisper", "small", known)
    assert (again.seconds("int8", 10.0, 99.0), again.load_s("int8")) == (5.0, 3.0)
    for engine, model, precision in (
        ("whisper", "tiny", "int8"),
        ("moonshine", "small", "int8"),
        ("whisper", "small", "fp32"),
    ):
        assert not predictor(engine, model, known).knows(precision)
    for measured in range(MIN_MEASURED_JOBS):
        assert again.seconds("int8", 10.0) == 5.0, f"{measured} are too few to know better"
        again.learn("int8", 10.0, 10.0)
    assert again.seconds("int8", 10.0) == 10.0
    other = predictor("moonshine", "", known)
    other.learn("fp32", 10.0, 1.0)
    assert [*other.fits] == [*known, DurationKey("moonshine", "", "fp32")]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"version": 2, "paces": []}',
        b'{"version": 1, "paces": [7]}',
        json.dumps({"version": 1, "paces": [{"engine": "a"}]}).encode(),
        *(
            b'{"version":1,"paces":[{"engine":"a","model":"","precision":"b","begin_s":0,'
            b'"per_s":%s,"load_s":0}]}' % number
            for number in (b"-1", b"NaN", b"1e300", b'"1"', b"true", b"1" * 4000)
        ),
        b" " * (65 << 10),
    ],
)
def test_broken_duration_file_is_logged_and_ignored(
    broken: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / DURATION_FILE_NAME).write_bytes(broken)
    with caplog.at_level(logging.WARNING):
        assert DurationFile(tmp_path).read() == {}
    assert "cannot be read" in caplog.text


def test_duration_file_keeps_only_the_last_fits_and_failed_writes_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    many = {
        DurationKey("engine", str(number), "int8"): DurationFit(0.0, 0.1)
        for number in range(3 * MAX_FITS)
    }
    DurationFile(tmp_path).write(many)
    assert [*DurationFile(tmp_path).read()] == [*many][-MAX_FITS:]
    (tmp_path / "file").touch()
    nowhere = DurationFile(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        nowhere.write(many)
        nowhere.write(many)
    assert len(caplog.records) == 1
    DurationFile(None).write(many)
    assert DurationFile(None).read() == {}


async def test_hanging_write_of_duration_file_is_logged_and_left_to_one_daemon_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread that hangs is a daemon: asyncio's own would hold the process."""
    begun, goes_on, threads = threading.Event(), threading.Event(), list[threading.Thread]()

    def hang(*_: object) -> None:
        threads.append(threading.current_thread())
        begun.set()
        goes_on.wait()

    monkeypatch.setattr(files, "write", hang)
    file = DurationFile(tmp_path, write_timeout_s=0.01)
    try:
        for number in range(2):
            await file.persist({DurationKey(str(number)): DurationFit()})
        assert "the disk hangs" in caplog.text
        assert begun.wait(10)
        assert [thread.daemon for thread in threads] == [True]
    finally:
        goes_on.set()
