"""`vibevoice-asr bench` against real services, and what its figures are made of."""

import csv
import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import psutil
import pytest
from module_services import service_of_module
from scripted_speech import RATE, sound
from service_process import Server
from vibevoice_asr_load_test import LoadTestInvalid
from vibevoice_asr_load_test import run as load_test_run
from vibevoice_asr_load_test.run import LoadTestRow, most_held
from vibevoice_asr_load_test.speech import LoadTestMode, script_of, starts, utterances
from vibevoice_asr_load_test.statistics import (
    NAMES,
    LoadTestSession,
    LoadTestUtterance,
    figures_of,
    format_of,
    parse_bound,
    percentile,
    ratios,
    render,
)
from vibevoice_asr_load_test.target import CpuShare, LoadTestLiveWire, LoadTestTarget
from websockets.sync.server import ServerConnection, serve

from sidecar.cli import run
from sidecar.limit_overrides import VARIABLE

THEIRS = [
    "session_id", "responses", "success", "error_code", "send_duration_seconds",
    "first_response_seconds", "tail_duration_seconds", "total_duration_seconds",
    "decode_buffer_wait_seconds", "decode_queue_wait_seconds", "decode_inference_seconds",
    "decode_response_emit_seconds", "decode_total_seconds",
]  # fmt: skip
"""Columns by which operators of gRPC servers read such logs."""
QUICK = ["--seconds", "1", "--talk", "1", "--ramp-interval", "0"]


slow = service_of_module(grpc_port=0, live_sessions=3, scripted_hear=0.5)
"""A service with room for three sessions, that takes its time over what it hears."""


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIBEVOICE_ENGINE", "scripted")
    monkeypatch.setenv(VARIABLE, '{"bench_settle": 0.2}')


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wire", "mode", "refused"),
    [
        ("live", "talk", "live_full"),
        ("streaming", "conversation", "server_at_capacity"),
        ("grpc", "talk", "ERR1008"),
    ],
)
def test_bench_reports_figures_by_number_of_sessions_and_logs_sessions_with_refusals(
    wire: str,
    mode: str,
    refused: str,
    slow: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = tmp_path / "sessions.csv"
    words = ["--sessions", "2,4", "--mode", mode, "--pause", "0.8", "--format", "csv", *QUICK]
    logging = ["--session-log-path", str(log), "--max-session-logs", "4"]
    code = run(["bench", "live", "--server", slow.url, "--wire", wire, *words, *logging])
    said = capsys.readouterr()
    assert code == 0, said.err
    two, four = rows(said.out)
    assert list(two) == ["side", *NAMES]
    assert (two["sessions"], two["held"], two["errors"], two["lost"]) == ("2", "2", "0", "0")
    assert (four["sessions"], four["held"], four["errors"]) == ("4", "3", "1")
    assert two["turns"] == "2"
    for name in ("first_p50", "final_p99", "rtf_p95", "service_cpu"):
        assert float(two[name]) > 0, name
    sessions = rows(log.read_text("utf-8"))
    assert list(sessions[0])[:13] == THEIRS
    assert [one["error_code"] for one in sessions].count("OK") == 5
    assert {one["error_code"] for one in sessions} == {"OK", refused}
    heard = next(one for one in sessions if one["success"] == "true")
    assert int(heard["responses"]) > 0
    assert float(heard["first_response_seconds"]) < float(heard["total_duration_seconds"])
    if wire != "streaming":  # which tells nothing of it
        went_well = [one for one in sessions if one["success"] == "true"]
        took = [float(one["decode_inference_seconds"]) for one in went_well]
        assert all(one == 0 or one >= 0.5 for one in took), "what came in the pause took nothing"


@pytest.mark.slow
def test_bench_measures_two_services_in_turns_at_each_load_and_a_broken_bound_is_exit_code_1(
    slow: Server, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--sessions", "1,4", "--against", server.url, *QUICK]
    bounds = ["--fail-if", "held<1x", "--fail-if", "errors>1"]
    code = run(["bench", "live", "--server", slow.url, *words, *bounds])
    said = capsys.readouterr()
    assert code == 1
    order = [line.split(": ")[1] for line in said.err.splitlines() if " x " in line]
    mine, other = f"live {slow.url}", f"live {server.url}"
    assert order == [f"1 x {mine}", f"1 x {other}", f"4 x {other}", f"4 x {mine}"]
    (failed,) = [line for line in said.err.splitlines() if "failed:" in line]
    assert "held<1x" in failed
    (head, *_), _ = (table.splitlines() for table in said.out.split("\n\n"))
    assert [cell.strip() for cell in head.split("|")[1:-1]] == ["figure", mine, other, "ratio"]


@pytest.mark.system
@pytest.mark.slow
def test_bench_starts_a_service_and_measures_it_by_two_protocols(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--start", "--wire=grpc", "--against=live", "--sessions=2", "--format=jsonl"]
    code = run(["bench", "live", *words, *QUICK, "--fail-if", "lost>0", "--fail-if", "held<1x"])
    said = capsys.readouterr()
    assert code == 0, said.err
    one, other = (json.loads(line) for line in said.out.splitlines())
    assert one["side"].startswith("grpc ")
    assert other["side"].startswith("live ")
    assert one["service_cpu"] > 0
    assert one["turns"] == other["turns"] == 2


def test_idle_bench_sessions_are_held_without_turns(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--mode", "idle", "--sessions", "2", "--seconds", "0.5", "--format", "jsonl"]
    assert run(["bench", "live", "--server", server.url, *words, "--wire", "streaming"]) == 0
    said = capsys.readouterr()
    row = json.loads(said.out)
    measured = row["other_cpu"] is not None  # Windows does not say what other programs take
    held = ", while other programs took" if measured else "."
    assert f"held 2 at once, of 2{held}" in said.err.splitlines()[-1]
    assert (row["held"], row["turns"], row["final_p50"], row["audio_per_s"]) == (2, 0, None, 0)


@pytest.mark.parametrize("wire", ["live", "streaming"])
def test_bench_counts_a_server_that_never_answers_as_timeouts(
    wire: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = {"bench_settle": 0.2, "bench_ready": 0.1, "bench_answer": 0.3}
    monkeypatch.setenv(VARIABLE, json.dumps(limits))

    def listen(socket: ServerConnection) -> None:
        for _ in socket:
            pass

    with serve(listen, "127.0.0.1", 0) as mute:
        threading.Thread(target=mute.serve_forever, daemon=True).start()
        where = f"http://127.0.0.1:{mute.socket.getsockname()[1]}"
        words = ["--sessions", "2", "--warm-up", "0", "--format", "jsonl", *QUICK]
        words += ["--seconds", "0.2", "--talk", "0.2"]
        assert run(["bench", "live", "--server", where, "--wire", wire, *words]) == 1
        mute.shutdown()
    said = capsys.readouterr()
    assert json.loads(said.out)["errors"] == 2
    assert "2 failed (timeout)" in said.err


def test_bench_measures_recordings_on_every_file_protocol_and_names_an_undecodable_one(
    server: Server, voice: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "voice.wav").write_bytes(voice)
    (tmp_path / "not.wav").write_bytes(b"RIFF of nothing")
    for wire, other in (("jobs", "openai"), ("transcribe", "jobs")):
        words = ["--sessions", "2", "--wire", wire, "--against", other, "--format", "jsonl"]
        sent = ["bench", "files", str(tmp_path / "voice.wav"), "--server", server.url]
        assert run([*sent, *words]) == 0
        for line in capsys.readouterr().out.splitlines():
            row = json.loads(line)
            assert (row["held"], row["turns"], row["lost"]) == (2, 4, 0), row
            assert row["audio_per_s"] > 0
            assert 0 < row["rtf_p50"] <= row["rtf_p99"]
            assert (row["first_p50"] is None) == (not row["side"].startswith("jobs"))
    assert run(["bench", "files", str(tmp_path / "not.wav"), "--server", server.url]) == 1
    assert "not.wav: The content is not audio" in capsys.readouterr().err


def test_bench_without_grpc_says_what_to_install_or_enable(
    slow: Server,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["bench", "live", "--server", server.url, "--wire", "grpc"]) == 1
    assert "--grpc-port" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "grpc", None)
    assert run(["bench", "live", "--server", slow.url, "--wire", "grpc"]) == 78
    assert "pip install -e '.[grpc]'" in capsys.readouterr().err


def test_import_of_the_bench_command_does_not_import_the_client() -> None:
    module = "sidecar.plugins.load_test.command"
    code = f"import sys, {module}; sys.exit('vibevoice_asr_client' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # every start imports the command


def test_bench_script_of_a_conversation_alternates_speech_and_silence() -> None:
    clips = [sound((2.0, 0.3)), sound((1.5, 0.3))]
    first, second = (
        script_of(LoadTestMode.CONVERSATION, clips, 9.0, 2.0, number) for number in (0, 1)
    )
    assert [part.speech for part in first.parts] == [True, False, True, False, True, False]
    assert not second.parts[0].speech
    assert [one.speech for one in second.parts[1:]] == [True, False] * (len(second.parts) // 2)
    assert first.parts[0].sound != second.parts[1].sound
    assert first.seconds >= 9.0
    assert script_of(LoadTestMode.IDLE, [], 5.0, 2.0, 0).seconds == 5.0
    assert sum(one.speech for one in script_of(LoadTestMode.TALK, clips, 0.0, 2.0, 0).parts) == 1


def test_bench_sessions_start_in_steps_of_the_given_size_and_interval() -> None:
    assert starts(4, 2, 5.0, 1.0) == [0.0, 0.5, 5.0, 5.5]
    assert starts(3, 9, 1.0, 0.0) == [0.0, 1.0, 2.0]
    assert len(starts(100, 5, 2.0, 0.1)) == 100
    assert max(starts(100, 5, 2.0, 0.1)) < 8.1


def test_bench_utterances_begin_and_end_with_speech_and_have_a_least_length() -> None:
    raw = sound((1.0, 0.0), (1.0, 0.3), (0.2, 0.0), (0.5, 0.3), (4.0, 0.0), (2.5, 0.3), (1.0, 0.0))
    samples = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
    lengths = [len(one) / 2 / RATE for one in utterances(samples, 2.0)]
    assert lengths == pytest.approx([1.7, 2.0], abs=0.03), "half a second is no utterance of two"
    assert utterances(np.zeros(16_000, np.float32), 1.0) == []
    assert utterances(np.zeros(0, np.float32), 1.0) == []


def test_bench_results_are_counted_and_timed_by_the_utterance_they_belong_to() -> None:
    visit = LoadTestSession("0")
    visit.turns = [LoadTestUtterance(at, 10 + at, 2 + at, ended=12 + at) for at in (0.0, 4.0)]
    visit.heard(visit.turn_at(1.0), 11.0, final=False)
    visit.heard(visit.turn_at(1.0), 11.5, final=True)
    visit.heard(visit.turn_at(1.9), 12.6, final=True)
    assert visit.lost == 1
    visit.heard(visit.turn_at(5.0), 15.9, final=True)
    assert (visit.lost, visit.responses) == (0, 4)
    assert visit.first_s == [1.0, pytest.approx(1.9)]
    assert visit.final_s == [pytest.approx(0.6), 0.0], (
        "what is there before the end waits for nobody"
    )


def test_bench_figures_are_percentiles_and_ratios_skip_missing_values() -> None:
    assert percentile([], 50) is None
    assert percentile([3.0], 99) == 3.0
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    good = LoadTestSession("0", sound_s=8.0, pace=[0.5])
    bad = LoadTestSession("1", error_code="live_full")
    figures = figures_of([good, bad], 4.0, (0.25, 1.5, 0.75))
    assert list(figures) == list(NAMES)
    assert (figures["held"], figures["errors"], figures["audio_per_s"]) == (1, 1, 2.0)
    assert (figures["service_cpu"], figures["engine_cpu"]) == (0.25, 1.5)
    assert figures["other_cpu"] == 0.75
    other = figures_of([good], 2.0, None)
    compared = ratios(figures, other)
    assert compared["sessions"] == 2.0
    assert compared["errors"] is None
    assert compared["service_cpu"] is None
    assert compared["audio_per_s"] == 0.5


def test_last_line_of_bench_has_the_most_sessions_held_and_the_cpu_of_other_programs() -> None:
    def row(held: int, sessions: int, others: float | None) -> LoadTestRow:
        side = LoadTestTarget("live http://10.0.0.5:8765", LoadTestLiveWire.LIVE, "")
        cpu = None if others is None else (0.1, 0.5, others)
        visits = [
            LoadTestSession(str(n), error_code="" if n < held else "live_full")
            for n in range(sessions)
        ]
        return LoadTestRow(side, sessions, visits, figures_of(visits, 4.0, cpu))

    busy = most_held([row(14, 16, 0.31), row(4, 32, 1.42), row(4, 40, 1.4)], 2)
    assert busy == (
        "this machine held 14 at once, of 16, while other programs took 0.3 to 1.4 of its 2 cores."
    )
    elsewhere = most_held([row(8, 8, None), row(16, 16, None)], 2)
    assert elsewhere == "live http://10.0.0.5:8765 held 16 at once, of 16."


def test_cpu_of_other_programs_is_counted_apart_from_the_services() -> None:
    idle = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with idle:
        # real time: a share times its time is processor time, which the program takes anywhere
        began, share = time.monotonic(), CpuShare(psutil.Process(idle.pid))
        program = "import time\nwhile time.process_time() < 0.5: pass"
        subprocess.run([sys.executable, "-c", program], check=True)
        use = share.so_far()
        passed_s = time.monotonic() - began  # real time: as above
        idle.communicate(b"\n")
    assert use is not None
    assert use.others * passed_s >= 0.25  # of 0.5; systems count in ticks
    assert use.others > use.service + use.engines


@pytest.mark.parametrize(
    "times",
    [
        {"user": 3.0, "nice": 1.0, "system": 2.0, "idle": 9.0, "guest": 2.0, "guest_nice": 1.0},
        {"user": 3.0, "nice": 1.0, "system": 2.0, "idle": 9.0},
        {"user": 4.0, "system": 2.0, "idle": 9.0, "interrupt": 1.0, "dpc": 1.0},
    ],
    ids=["Linux", "macOS", "Windows"],
)
def test_share_of_other_programs_is_of_times_of_the_machine_as_each_system_has_them(
    times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = SimpleNamespace(cpu_times=lambda: (0.0, 0.0), children=lambda recursive: [])
    now = dict.fromkeys(times, 0.0)
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(**now))
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    monkeypatch.setattr(time, "monotonic", lambda: now["idle"])
    share = CpuShare(cast(psutil.Process, idle))
    now |= times
    assert share.so_far() == pytest.approx((0.0, 0.0, 6.0 / 9.0))


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("final_p95>0.8", True),
        ("final_p95>0.9", False),
        ("final_p95 > 1.2x", True),
        ("final_p95>1.6x", False),
        ("held<3", True),
        ("held<2", False),
        ("held<1.5x", True),
        ("first_p50>1", True),
        ("service_cpu>2x", True),
    ],
)
def test_absolute_or_relative_bench_bound_is_reported_only_if_a_figure_breaks_it(
    text: str, broken: bool
) -> None:
    nothing = dict.fromkeys(NAMES)
    figures = nothing | {"final_p95": 0.9, "held": 2, "service_cpu": 0.1}
    other = nothing | {"final_p95": 0.6, "held": 2}
    said = parse_bound(text, compared=True).broken(figures, other)
    assert (said is not None) == broken
    assert said is None or text.replace(" ", "") in said


def test_bench_table_of_one_service_has_a_column_for_each_session_count() -> None:
    side = LoadTestTarget("here", LoadTestLiveWire.LIVE, "http://127.0.0.1:1")
    found = [
        [load_test_run.LoadTestRow(side, many, (), dict.fromkeys(NAMES, float(many)))]
        for many in (1, 16)
    ]
    head, _, first, *rest = load_test_run.render_results(found, "markdown").splitlines()
    assert [cell.strip() for cell in head.split("|")[1:-1]] == ["figure", "1", "16"]
    assert [cell.strip() for cell in first.split("|")[1:-1]] == [NAMES[0], "1.000", "16.000"]
    assert len(rest) == len(NAMES) - 1
    single = load_test_run.render_results(found[:1], "markdown").splitlines()[0]
    assert side.name in single


def test_bench_rows_are_written_in_every_format_and_an_unknown_one_is_refused() -> None:
    lines = [{"a": 1, "b": 0.12345, "success": "true"}, {"a": 2, "b": None, "success": "false"}]
    assert render(lines, "csv") == "a,b,success\n1,0.123,true\n2,,false\n"
    assert render(lines, "tsv").splitlines()[1] == "1\t0.123\ttrue"
    assert render(lines, "markdown").splitlines()[2] == "| 1 | 0.123 | true    |"
    first = json.loads(render(lines, "jsonl").splitlines()[0])
    assert first == {"a": 1, "b": 0.123, "success": True}
    assert {format_of(None, Path(f"x{end}")) for end in (".md", ".tsv")} == {"markdown", "tsv"}
    assert format_of("csv", Path("x.md")) == "csv"
    with pytest.raises(LoadTestInvalid):
        format_of("xml", None)
