"""The command line, run as people run it: a process, its output, its exit code."""

import gc
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import httpx
import moonshine_voice
import psutil
import pytest
import tiny_vibevoice
from command_terminal import (
    Terminal,
    browser_that,
    check_one_line,
    installed_command,
    interrupt,
)
from http_file_server import FileHost
from recordings import wav
from service_process import (
    PATIENCE_S,
    Server,
    StartServer,
    check_end,
    counting_listener,
    free_port,
    new_file,
    popen,
    run_command,
    runs,
    told_by,
    wait_for_ends,
    wait_until,
)
from systems import IN_WINDOWS, IN_WINE

from sidecar import cli, errors
from sidecar.checkpoints import packaged_model
from sidecar.cli import doctor
from sidecar.cli.backends import settings_for_person, start_child_service
from sidecar.cli.doctor import READY, next_step
from sidecar.cli.request_flags import RequestFlags
from sidecar.cli.transcribe import TranscribeCommandOptions
from sidecar.config.settings import Settings
from sidecar.engines import scripted_engine
from sidecar.installation import install_command
from sidecar.interfaces.engine_interface import LoadOptions
from sidecar.plugins import settings_class
from sidecar.service.system_checks import CheckFinding, CheckState
from sidecar.version import __version__
from sidecar.workers import worker_process

BECKETT = Path(moonshine_voice.get_assets_path()) / "beckett.wav"
SUCCESS = Path(moonshine_voice.get_assets_path()) / "success.wav"
posix = pytest.mark.posix("a terminal of POSIX")


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, VIBEVOICE_ENGINE="scripted")


def test_transcribe_with_embedded_engine_prints_words_with_speaker_and_no_error_output(terminal):
    run = terminal.run("transcribe", BECKETT, fresh=True, VIBEVOICE_ENGINE="moonshine")
    check_end(run.returncode, run.stderr)
    assert run.stderr == ""
    assert "Speaker_0: Ever tried" in run.stdout
    assert "no matter" in run.stdout.lower()


@pytest.mark.slow_except("json")
@pytest.mark.parametrize("fmt", ["text", "json", "srt"])
def test_transcribe_prints_the_same_with_and_without_server(fmt, terminal, server):
    words = ("transcribe", BECKETT, "--format", fmt)
    alone = terminal.run(*words)
    served = terminal.run(*words, "--server", server.url)
    assert (served.returncode, served.stderr) == (0, "")
    assert served.stdout == alone.stdout
    assert served.stdout


def test_words_are_requested_for_subtitles_unless_declined_and_for_json_only_on_request():
    def command(fmt, **request):
        options = TranscribeCommandOptions([], format=fmt, request=RequestFlags(**request))
        return options.options

    assert "words" not in command("json")
    assert command("srt")["words"] == "true"
    assert command("vtt", words=False)["words"] == "false"
    assert command("json", words=True)["words"] == "true"


@pytest.mark.slow_except("/dev/stdin")
@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_recording_from_stdin_has_the_segments_of_its_file_and_leaves_no_spool_file(
    name, terminal, server
):
    expected = terminal.run("transcribe", SUCCESS, "--format", "json")
    ways = {"-": [], "/dev/stdin": ["--server", f"127.0.0.1:{server.port}"]}[name]
    words = [*installed_command(), "transcribe", name, *ways, "--format", "json", "--output", "out"]
    temp = terminal.home / "temp"
    temp.mkdir()
    copy = "import shutil, sys; shutil.copyfileobj(open(sys.argv[1], 'rb'), sys.stdout.buffer)"
    with popen([sys.executable, "-c", copy, SUCCESS], stdout=subprocess.PIPE) as cat:
        env = {**terminal.env, "VIBEVOICE_SPOOL_DIR": str(temp)}
        run = run_command(words, cwd=terminal.home, env=env, stdin=cat.stdout)
    assert (run.returncode, run.stderr) == (0, b"")
    written = (terminal.home / "out/stdin.json").read_text("utf-8")
    there, here = json.loads(written), json.loads(expected.stdout)
    assert there["segments"] == here["segments"]
    assert list(temp.iterdir()) == []


@posix
def test_stdin_that_is_named_twice_is_refused_in_one_line(terminal):
    run = terminal.run("transcribe", "-", "/dev/stdin")
    check_one_line(run, 78, "named twice")


def test_no_diarize_and_language_options_take_effect_with_and_without_server(terminal, server):
    words = ("--no-diarize", "--language", "de", "--diarization", "accurate", "--format", "json")
    for way in ([], ["--server", f"127.0.0.1:{server.port}"]):
        run = terminal.run("transcribe", SUCCESS, *words, *way)
        assert run.returncode == 0, run.stderr
        about = json.loads(run.stdout)["metadata"]
        assert (about["diarized"], about["language"]) == (False, "de")


@pytest.mark.slow
def test_engine_without_server_is_loaded_at_the_given_precision(terminal):
    run = terminal.run("transcribe", SUCCESS, "--precision", "int8", "--format", "json")
    assert json.loads(run.stdout)["metadata"]["model_precision"] == "int8"


@pytest.mark.slow
def test_ignored_options_are_warned_of_on_stderr_and_in_the_transcript(terminal):
    words = ("--hotwords", "Nagg, Nell", "--prompt", "Endgame", "--speakers", "2")
    run = terminal.run("transcribe", SUCCESS, *words, "--precision", "bf16", "--format", "json")
    assert run.returncode == 0
    for said in ("hotwords", "num_speakers", "no bf16"):
        assert said in run.stderr
    warnings = json.loads(run.stdout)["metadata"]["warnings"]
    assert {one["code"] for one in warnings} == {"option_ignored", "precision_substituted"}


def test_ignored_option_is_reported_once_for_several_recordings(terminal, server):
    way = ("--server", f"127.0.0.1:{server.port}")
    run = terminal.run("transcribe", SUCCESS, BECKETT, "--hotwords", "Nagg", *way)
    assert run.returncode == 0
    (line,) = [line for line in run.stderr.splitlines() if "hotwords" in line]
    assert "2 of 2 recordings: " in line


@pytest.mark.slow
def test_estimate_of_a_file_or_of_minutes_is_the_same_sentence_with_and_without_server(
    terminal, server
):
    alone = terminal.run("estimate", SUCCESS)
    assert (alone.returncode, alone.stderr) == (0, "")
    fits = f"{SUCCESS}: fits: fp32, the engine 'scripted' takes any length in the same memory"
    assert alone.stdout.startswith(fits)
    served = terminal.run("estimate", SUCCESS, "--server", server.url)
    assert served.stdout.startswith(fits)
    short = terminal.run("estimate", "--minutes", 5, "--server", server.url)
    assert (short.returncode, short.stderr) == (0, "")
    assert short.stdout.startswith(f"5 min: {fits.removeprefix(f'{SUCCESS}: ')}")


@pytest.mark.parametrize("served", [False, True])
def test_separate_channels_are_estimated_as_a_recording_each(served, terminal, start_server):
    minute = bytes(2 * 8_000 * 60)
    call = new_file(terminal.home / "call.wav", wav(5 * minute, rate=8_000, channels=2))
    no_paces = str(terminal.home / "data")  # else those that another test measured
    moonshine = {"VIBEVOICE_ENGINE": "moonshine", "VIBEVOICE_DATA_DIR": no_paces}
    to = ["--server", start_server(engine="moonshine").url] if served else []
    both = terminal.run("estimate", call, *to, "--channels", "separate", "--track", 1, **moonshine)
    assert (both.returncode, both.stderr) == (0, "")
    assert "usually" in both.stdout
    mixed = terminal.run("estimate", call, *to, **moonshine)
    twice = terminal.run("estimate", "--minutes", 5, *to, **moonshine)
    assert both.stdout.removeprefix(str(call)) == twice.stdout.removeprefix("5 min")
    assert both.stdout != mixed.stdout


def test_estimate_exits_0_if_it_fits_and_1_with_the_precisions_that_would_if_not(terminal):
    tiny = {
        "VIBEVOICE_ENGINE": "vibevoice",
        "VIBEVOICE_MODEL_PATH": str(tiny_vibevoice.checkpoint("tiny")),
        "VIBEVOICE_DEVICE": "cpu",
        "VIBEVOICE_MEMORY_LIMIT_MB": "590",
    }
    run = terminal.run("estimate", BECKETT, "--precision", "fp32", **tiny)
    assert (run.returncode, run.stderr) == (1, "")
    assert "does not fit; bf16 or int4 or int8 would" in run.stdout
    del tiny["VIBEVOICE_ENGINE"]
    run = terminal.run("estimate", BECKETT, "--engine", "vibevoice", **tiny)
    assert (run.returncode, run.stderr) == (0, "")
    assert "fits: bf16" in run.stdout
    assert run.stdout.endswith("; how long it takes is known after a first recording\n")


def test_estimate_for_a_named_card_says_what_fits_it_and_the_next_smaller_and_larger(terminal):
    run = terminal.run("estimate", "--card", "12GB", "--minutes", 90, "--precision", "auto")
    assert (run.returncode, run.stderr) == (0, "")
    own, smaller, larger = run.stdout.splitlines()
    assert own.startswith("90 min: 12GB: fits: int4, ")
    assert " windows of " in own
    assert smaller.startswith("90 min: 10GB: fits: ")
    assert larger.startswith("90 min: 16GB: fits: ")
    run = terminal.run("estimate", "--card", "12GB", "--minutes", 90, "--format", "json")
    body = json.loads(run.stdout)
    assert own == f"90 min: {body['sentence']}"
    assert body["smaller"]["sentence"] in smaller
    assert terminal.run("estimate", "--card", "6GB", "--minutes", 90).returncode == 1


def test_estimate_for_a_card_is_refused_for_whisper_and_counts_live_sessions_of_streaming(terminal):
    run = terminal.run("estimate", "--card", "12GB", "--minutes", 90, "--engine", "whisper")
    assert run.returncode == 2
    assert "--card knows VibeVoice engines only" in run.stderr
    for name, said in (("", "int4"), ("-1.5b", "bf16")):
        live = f"vibevoice-streaming{name}"
        run = terminal.run("estimate", "--card", "12GB", "--minutes", 90, "--engine", live)
        own = run.stdout.splitlines()[0]
        assert own.startswith(f"90 min: 12GB: fits: {said}, ")
        assert " live sessions at once" in own


def test_missing_or_bad_file_or_empty_folder_is_a_line_of_error_and_other_files_are_transcribed(
    terminal,
):
    junk = new_file(terminal.home / "junk.wav", b"this is no recording" * 100)
    (terminal.home / "empty").mkdir()
    run = terminal.run("transcribe", "gone.wav", BECKETT, junk, "empty", SUCCESS)
    assert run.returncode == 1
    gone, unknown, folder = run.stderr.splitlines()
    assert gone == "vibevoice-asr: gone.wav: There is no such file. Check the path."
    assert unknown.startswith(f"vibevoice-asr: {junk}: The content is not audio")
    assert folder == (
        "vibevoice-asr: empty: There are no recordings in this folder. In folders only endings "
        "such as .wav count; name other files themselves."
    )
    assert [line for line in run.stdout.splitlines() if line.startswith("#")] == [
        "# beckett.wav",
        "# success.wav",
    ]


@pytest.mark.parametrize(
    "words",
    [("transcribe", ""), ("transcribe", "--output", "", SUCCESS), ("serve", "--data-dir", "")],
    ids=["argument", "option", "setting"],
)
def test_empty_path_is_refused_and_is_not_the_working_folder(words, terminal):
    shutil.copy(SUCCESS, terminal.home)
    run = terminal.run(*words)
    check_one_line(run, 2, "path is empty")
    assert run.stdout == ""


@pytest.mark.posix("arguments of any bytes")
@pytest.mark.parametrize(
    "words",
    [
        ("transcribe", SUCCESS, "--hotwords", "\udcff"),
        ("live", SUCCESS, "--prompt", "\udcff"),
        ("people", "add", "\udcff", SUCCESS),
        ("jobs", "list", "--state", "\udcff"),
    ],
    ids=lambda words: words[0],
)
def test_text_that_is_not_valid_unicode_is_refused_in_one_line(words, terminal, server):
    run = terminal.run(*words, "--server", server.url)
    check_one_line(run, 2, "is not valid Unicode")
    assert run.stdout == ""


@pytest.mark.posix("files of POSIX")
def test_control_characters_of_a_file_name_are_printed_as_escapes(terminal):
    names = "\x1b]0;owned\x07\x1b[2J.wav", "\u202ednuos.wav", "\N{ARABIC LETTER BEH}\u200d.wav"
    for name in names[:2]:
        (terminal.home / name).write_bytes(b"this is no recording" * 100)
    shutil.copy(BECKETT, terminal.home / names[2])
    run = terminal.run("transcribe", *names, SUCCESS)
    assert "# \N{ARABIC LETTER BEH}\u200d.wav\n" in run.stdout, "a letter that joins is one"
    assert r"vibevoice-asr: \x1b]0;owned\x07\x1b[2J.wav: " in run.stderr
    assert r"\u202ednuos.wav: " in run.stderr
    (terminal.home / names[0]).write_bytes(BECKETT.read_bytes())
    for words in (["transcribe", names[0], SUCCESS], ["estimate", names[0]]):
        run = terminal.run(*words)
        assert r"\x1b[2J.wav" in run.stdout
        assert not {"\x1b", "\x07"} & set(run.stdout + run.stderr)


def test_output_folder_is_made_and_gets_one_file_for_each_recording_even_of_equal_name(terminal):
    for name in ("one", "two"):
        (terminal.home / name).mkdir()
        shutil.copy(SUCCESS, terminal.home / name / "talk.wav")
    run = terminal.run(
        *("transcribe", "one/talk.wav", "two/talk.wav", BECKETT),
        *("--format", "srt", "--output", "new/subtitles"),
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    written = sorted((terminal.home / "new" / "subtitles").glob("[!.]*"))
    assert [path.name for path in written] == ["beckett.srt", "talk-2.srt", "talk.srt"]
    assert all("-->" in path.read_text("utf-8") for path in written)


def test_output_named_by_a_dash_is_standard_output(terminal):
    run = terminal.run("transcribe", SUCCESS, "--output", "-")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout
    assert not (terminal.home / "-").exists()


def test_output_whose_name_is_too_long_is_cut_and_one_whose_name_a_folder_has_gets_a_number(
    terminal,
):
    longer = f"{'b' * 251}.wav"
    shutil.copy(SUCCESS, terminal.home / longer)
    (terminal.home / "out" / "beckett.json").mkdir(parents=True)
    run = terminal.run("transcribe", longer, BECKETT, "--format", "json", "--output", "out")
    told = "beckett.json exists and is kept; the output is beckett-2.json"
    check_one_line(run, 0, told)
    written = sorted(path.name for path in (terminal.home / "out").glob("[!.]*"))
    assert written == [f"{'b' * 250}.json", "beckett-2.json", "beckett.json"]


def test_transcript_of_a_namesake_and_an_edited_one_are_kept_by_all_ways_to_transcribe(terminal):
    for day, speech in (("mon", SUCCESS), ("tue", BECKETT)):
        (terminal.home / day).mkdir()
        shutil.copy(speech, terminal.home / day / "rec.wav")
    for day, told in (("mon", ""), ("tue", "rec.txt exists and is kept; the output is rec-2.txt")):
        run = terminal.run("transcribe", f"{day}/rec.wav", "--output", "out")
        assert (run.returncode, told in run.stderr) == (0, True)
    out = terminal.home / "out"
    (out / "rec.txt").write_text("corrected by hand", "utf-8")
    again = terminal.run("transcribe", "mon/rec.wav", "--output", "out")
    check_one_line(
        again, 0, f"{Path('mon/rec.wav')}: rec.txt exists and is kept; the output is rec-3.txt."
    )
    texts = {path.name: path.read_text("utf-8") for path in out.glob("[!.]*")}
    assert texts["rec.txt"] == "corrected by hand"
    assert len(set(texts.values())) == 3
    resumed = terminal.run(
        "transcribe", "mon/rec.wav", "tue/rec.wav", "--output", "out", "--resume"
    )
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert {path.name: path.read_text("utf-8") for path in out.glob("[!.]*")} == texts


class AnotherProgram(FileHost):
    """A server that has no address of ours."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.head(request, 404, 0, {})


def test_key_log_that_cannot_be_opened_costs_a_line_and_no_command(terminal, server):
    keys = {"SSLKEYLOGFILE": str(terminal.home / "none" / "keys.log")}
    named = ("--server", server.url)
    for words in (("status", *named), ("transcribe", SUCCESS, *named), ("transcribe", SUCCESS)):
        run = terminal.run(*words, **keys)
        check_one_line(run, 0, f"SSLKEYLOGFILE={keys['SSLKEYLOGFILE']} is ignored: No such file")
        assert run.stdout
    keys["SSLKEYLOGFILE"] = str(terminal.home / "keys.log")
    assert terminal.run("status", *named, **keys).stderr == ""


def test_status_of_a_server_that_is_another_program_is_one_line_of_error(terminal):
    with AnotherProgram() as other:
        run = terminal.run("status", "--server", other.url)
    check_one_line(run, 1, "not this service", "404")


IN_WAKEUP = re.compile(r"Exception ignored when .* wakeup fd:\n(?:.*\n)*?BlockingIOError: .*\n")
"""What Python says in Wine, which may refuse a byte from the thread of Ctrl-C as if the buffer of
an idle socket were full (`send` of Microsoft's documentation: WSAEWOULDBLOCK)."""


def interrupted(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """What Ctrl-C makes of a command."""
    interrupt(process)
    out, wrong = process.communicate(timeout=PATIENCE_S)
    wrong = IN_WAKEUP.sub("", wrong) if IN_WINE else wrong
    return subprocess.CompletedProcess(process.args, process.returncode, out, wrong)


def test_ctrl_c_of_transcribe_exits_130_prints_nothing_and_leaves_no_process(terminal):
    with terminal.start("transcribe", BECKETT, fresh=True, **held(terminal)) as process:
        parent = psutil.Process(process.pid)
        # The first child on Windows is the host of its hidden console.
        wait_until(lambda: len(parent.children()) > IN_WINDOWS, "the engine is at work")
        children = parent.children(recursive=True)
        ended = interrupted(process)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
    wait_for_ends(children)


def test_ctrl_c_among_several_files_names_those_written_and_resume_skips_them(terminal):
    out = terminal.home / "out"
    words = ("transcribe", *tones(terminal.home, 1, 2), "--output", out)
    with terminal.start(*words, **held(terminal)) as process:
        wait_until((out / "1.txt").exists, "the first is written")
        ended = interrupted(process)
    check_one_line(ended, 130, f"1 of 2 written to {out}: 1.txt.", "--resume", "skips these")
    assert not (out / "2.txt").exists()
    before = (out / "1.txt").stat().st_mtime_ns
    assert terminal.run(*words, "--resume").returncode == 0
    assert (out / "2.txt").exists()
    assert (out / "1.txt").stat().st_mtime_ns == before


def test_ctrl_c_prints_a_transcript_that_waited_for_the_one_before_it(
    terminal, start_server: StartServer
):
    slow = start_server(scripted_speed=1)
    files = tones(terminal.home, 600, 1, 601)
    to = ("--server", f"127.0.0.1:{slow.port}", "--at-once", "2")
    with terminal.start("transcribe", *files, *to) as process:
        wait_until(
            lambda: any(job["duration"] == 601 for job in slow.jobs()),
            "the third is sent, as the second is done",
        )
        ended = interrupted(process)
    assert ended.returncode == 130
    assert ended.stdout.startswith("# 1.wav\n[00:00:00.0] Speaker_0: "), ended
    assert "Interrupted: 1 of 3 transcribed." in ended.stderr


def test_ctrl_c_before_the_first_output_cancels_its_jobs_and_does_not_offer_to_resume(
    terminal, start_server: StartServer
):
    slow = start_server(scripted_speed=1)
    files = tones(terminal.home, 600, 601)
    words = ("transcribe", *files, "--output", "out", "--server", f"127.0.0.1:{slow.port}")
    with terminal.start(*words) as process:
        wait_until(slow.jobs, "it is at work")
        ended = interrupted(process)
    check_one_line(ended, 130, "Interrupted: nothing of 2 written.", "same command again")
    assert "--resume" not in ended.stderr
    wait_until(lambda: slow.jobs() == [], "its jobs are cancelled and forgotten")
    wait_until(lambda: slow.health()["engine_state"] == "ready", "nobody works on them")


def held(terminal: Terminal) -> dict[str, str]:
    """The environment in which the scripted engine goes no further than the first second."""
    return {"VIBEVOICE_SCRIPTED_HOLD": str(new_file(terminal.home / "hold", ""))}


def tones(folder: Path, *seconds: int) -> list[Path]:
    """Recordings of so many seconds."""
    for count in seconds:
        (folder / f"{count}.wav").write_bytes(wav(b"\x00\x30" * 8000 * count, rate=8000))
    return [folder / f"{count}.wav" for count in seconds]


INTERRUPTED_IMPORT = """
import signal, sys
from sidecar.cli import main

class Interrupts:
    def find_spec(self, name, *rest):
        if name == "typer":
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupts())
sys.argv = ["vibevoice-asr", "doctor"]
main()
"""


def test_ctrl_c_during_imports_prints_no_traceback(terminal):
    run = told_by([sys.executable, "-c", INTERRUPTED_IMPORT], env=terminal.env, cwd=terminal.home)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")


WITHOUT_LOAD_TEST = """
import sys
from sidecar.cli import main

sys.modules["vibevoice_asr_load_test"] = None  # as after a pull into an editable installation
sys.argv[0] = "vibevoice-asr"
main()
"""


@pytest.mark.slow_except("words3")
@pytest.mark.parametrize(
    "words",
    [("--version",), ("--help",), ("doctor", "--help"), ("bench", "live"), ("bench", "--help")],
)
def test_without_load_test_package_bench_exits_78_with_remedy_and_other_commands_work(
    words, terminal
):
    program = [sys.executable, "-c", WITHOUT_LOAD_TEST, *words]
    run = told_by(program, env=terminal.env, cwd=terminal.home)
    if words[0] == "bench":
        check_one_line(run, 78, "vibevoice_asr_load_test", install_command(""))
    else:
        assert (run.returncode, run.stderr) == (0, "")


def test_recording_without_speech_exits_0_with_a_line_on_stderr(terminal):
    quiet = new_file(terminal.home / "quiet.wav", wav(bytes(160_000)))
    run = terminal.run("transcribe", quiet, VIBEVOICE_ENGINE="moonshine")
    assert run.stdout == ""
    check_one_line(run, 0, "quiet.wav", "No speech was found")


@pytest.mark.slow
@posix
def test_terminal_shows_a_progress_bar_with_the_time_left(terminal):
    hold = new_file(terminal.home / "hold", "5")  # the bar stands until the time left is shown
    given = {"VIBEVOICE_SCRIPTED_SPEED": "5", "VIBEVOICE_SCRIPTED_HOLD": str(hold)}
    time_left = rb"beckett\.wav .* \d+%\S* \S*\d:\d\d:\d\d"
    code, _, out = terminal.shown(
        "transcribe", BECKETT, piped=True, once=(time_left, hold.unlink), **given
    )
    assert code == 0
    assert "Speaker_0" in out


@posix
def test_lines_longer_than_a_narrow_terminal_are_printed_unbroken(terminal):
    code, shown, _ = terminal.shown("transcribe", BECKETT, COLUMNS="24")
    assert code == 0
    assert re.search(rb"\[00:00:00\.0\] Speaker_0: [0-9a-f]{8}\r\n", shown), shown


@posix
def test_failed_file_shows_counts_of_written_and_failed_and_success_in_a_pipe_shows_none(terminal):
    junk = new_file(terminal.home / "junk.wav", b"this is no recording" * 100)
    words = ("transcribe", BECKETT, junk, SUCCESS, "--output", "texts")
    code, shown, _ = terminal.shown(*words, piped=True)
    assert code == 1
    assert shown.splitlines()[-1] == b"vibevoice-asr: 2 written, 1 failed."
    quiet = terminal.run("transcribe", BECKETT, SUCCESS, "--output", "texts")
    assert (quiet.returncode, quiet.stderr) == (0, ""), "a script hears of no success"
    assert terminal.run(*words).stderr.splitlines()[-1] == "vibevoice-asr: 2 written, 1 failed."


def test_status_shows_address_pid_engine_and_version_of_named_or_local_service(terminal, server):
    for way in (["--server", server.url], []):
        run = terminal.run("status", *way, VIBEVOICE_PORT=str(server.port))
        assert (run.returncode, run.stderr) == (0, "")
        shown = {line[:15].strip(): line[15:].strip() for line in run.stdout.splitlines()}
        assert shown["address"] == server.url
        assert shown["now"] == "Ready"
        assert shown["process"] == str(server.health()["pid"])
        assert shown["engine"] == f"{scripted_engine.SPEC.title} (scripted)"
        assert shown["version"] == __version__
        assert shown["waiting"] == "0 recordings"
        assert len(shown) <= 12, "what matters first, and not the names of other protocols"
        assert "vllm" not in shown
        assert "monitor --once" in shown["more"]


def test_jobs_list_without_a_service_asks_once_and_is_one_line_of_error(terminal):
    with counting_listener() as (port, asked):
        with terminal.start("jobs", "list", "--server", f"127.0.0.1:{port}") as process:
            wait_until(lambda: process.poll() is not None or asked[1:], "it gives up")
            process.kill()
        assert len(asked) == 1, "nobody waits for a service that is not there"
    run = terminal.run("jobs", "list", VIBEVOICE_PORT=str(free_port()))
    check_one_line(run, 1, "No service answers", "vibevoice-asr")


def test_open_starts_service_opens_its_page_is_joined_by_a_second_and_ctrl_c_ends_service(terminal):
    seen = terminal.home / "seen"
    tells = "Path('part').write_text(sys.argv[1], 'utf-8'); Path('part').replace('seen')"
    port = free_port()
    given = {"VIBEVOICE_PORT": str(port), "BROWSER": browser_that(terminal.home, tells)}
    opened = terminal.start("open", **given)
    try:
        wait_until(seen.exists, "the browser is called")
        assert seen.read_text("utf-8") == f"http://127.0.0.1:{port}/"
        page = httpx.get(
            seen.read_text("utf-8"), headers={"Accept": "text/html"}, timeout=PATIENCE_S
        )
        assert "<html" in page.text
        about = httpx.get(f"http://127.0.0.1:{port}/v1/page/about", timeout=PATIENCE_S).json()
        assert about["keeps_seconds"] == 86_400, "corrections take hours"
        service = httpx.get(f"http://127.0.0.1:{port}/health", timeout=PATIENCE_S).json()["pid"]
        again = terminal.run("open", **given)
        assert (again.returncode, again.stderr) == (0, "")
        interrupt(opened)
        out, said = opened.communicate(timeout=PATIENCE_S)
    finally:
        opened.kill()
        opened.wait()
    assert (opened.returncode, out) == (130, "")
    assert "No service runs here" in said
    wait_until(lambda: not runs(service), "the service ends with it")


def test_open_with_print_or_server_and_no_service_is_one_line_of_error_for_that_option(terminal):
    port = free_port()
    nobody = terminal.run("open", "--print", VIBEVOICE_PORT=str(port))
    check_one_line(nobody, 1, "No service answers", "or name another with --server URL")
    assert "leave --server out" not in nobody.stderr, "nobody named one"
    nobody = terminal.run("open", "--server", f"127.0.0.1:{port}")
    check_one_line(nobody, 1, "No service answers", "or omit --server: then the command starts one")
    assert "transcribe" not in nobody.stderr


def test_open_starts_service_with_given_options_and_refuses_them_for_a_running_one(terminal):
    port = free_port()
    given = {"BROWSER": browser_that(terminal.home), "VIBEVOICE_ENGINE": "auto"}
    words = ["--engine", "scripted", "--language", "de"]
    with opened(terminal, "--port", port, *words, VIBEVOICE_JOB_RETENTION="30d", **given) as url:
        assert url == f"http://127.0.0.1:{port}"
        about = httpx.get(f"{url}/v1/page/about", timeout=PATIENCE_S).json()
        assert about["engine"]["name"] == "scripted"
        spoken = {"audio": ("voice.wav", wav(b"\x10\x20" * 16_000))}
        answer = httpx.post(f"{url}/transcribe", files=spoken, timeout=PATIENCE_S).json()
        assert answer["metadata"]["language"] == "de"
        assert about["keeps_seconds"] == 30 * 86_400, "who says how long is heard"
        again = terminal.run("open", "--port", port, **given)
        assert (again.returncode, again.stderr) == (0, "")
        check_one_line(terminal.run("open", "--port", port, *words), 78, "Stop it first")


def test_open_with_port_0_starts_a_service_at_a_free_port(terminal):
    with opened(terminal, "--port", 0, BROWSER=browser_that(terminal.home)) as url:
        assert int(url.rpartition(":")[2]) > 0


@contextmanager
def opened(terminal: Terminal, *words: object, **env: str) -> Iterator[str]:
    """The address that `open` says while it serves."""
    process = terminal.start("open", *words, **env)
    try:
        said = process.stderr.readline() + process.stderr.readline()
        (url,) = re.findall(r"Serving at (http://127\.0\.0\.1:\d+) until Ctrl-C\.", said)
        yield url
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("given", "retention"),
    [({}, "1d"), ({"keep_jobs": True}, None), ({"job_retention": "5m"}, "5m")],
)
def test_service_of_open_keeps_results_for_a_day_unless_set(
    given, retention, monkeypatch, tmp_path
):
    monkeypatch.setenv("VIBEVOICE_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").touch()
    assert settings_for_person(given).get("job_retention") == retention
    (tmp_path / "config.toml").write_text('job_retention = "2h"\n', "utf-8")
    assert settings_for_person(given).get("job_retention") == given.get("job_retention")


def test_service_started_by_a_command_imports_no_module_of_the_working_folder(
    terminal, monkeypatch
):
    trap = terminal.home / "sidecar" / "__init__.py"
    trap.parent.mkdir()
    trap.write_text("raise SystemExit('the folder was imported')\n", "utf-8")
    monkeypatch.chdir(terminal.home)
    for name, value in {**terminal.env, "VIBEVOICE_DATA_DIR": str(terminal.home)}.items():
        monkeypatch.setenv(name, value)
    with start_child_service({"port": 0}) as (_, ready):
        assert ready is not None


def test_open_without_browser_prints_the_link_and_that_it_works_once_if_it_signs_in(
    tmp_path, server, start_server: StartServer, monkeypatch, capsys
):
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    monkeypatch.setenv("VIBEVOICE_DATA_DIR", str(tmp_path))
    assert cli.run(["open", "--server", f"127.0.0.1:{server.port}"]) == 0
    plain = capsys.readouterr()
    assert plain.out == f"http://127.0.0.1:{server.port}/\n"
    assert "There is no browser here" in plain.err
    assert "once" not in plain.err
    monkeypatch.setenv("VIBEVOICE_TOKEN", "a-token-of-the-service")
    url = f"127.0.0.1:{start_server(token='a-token-of-the-service').port}"
    assert cli.run(["open", "--server", url]) == 0
    signed = capsys.readouterr()
    assert "/#open=" in signed.out
    assert "There is no browser here" in signed.err
    assert "once, within two minutes" in signed.err


@pytest.mark.slow_except("PRECISON", "bf16", "port", "auto")
@pytest.mark.parametrize(
    ("settings", "code", "said", "next_step"),
    [
        ("PRECISON=fp16", 0, "There is no setting VIBEVOICE_PRECISON", "VIBEVOICE_PRECISION?"),
        ("PRECISION=bf16", 0, "The engine 'scripted' has no bf16; fp32 is used", ""),
        ("PORT=99999", 1, "Bad setting: port", "docs/settings.md"),
        ("MODEL_PATH=HOME ENGINE=auto", 1, "has no config.json", "VIBEVOICE_MODEL_PATH"),
        ("MODEL_PATH=HOME ENGINE=scripted", 0, "has no config.json", "VIBEVOICE_MODEL_PATH"),
        (
            "VOICE_ENGINE=moonshine DATA_DIR=HOME",
            1,
            "There is no voice for 'moonshine' in HOME/voices",
            "Run: vibevoice-asr pull voice",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_doctor_reports_faults_with_remedies_and_fails_on_fatal_ones(
    settings, code, said, next_step, tmp_path, monkeypatch, capsys
):
    """In this process; that the embedded engine can be loaded is the next test's."""
    home = str(tmp_path)
    pairs = [pair.split("=") for pair in settings.replace("HOME", home).split()]
    given = {f"VIBEVOICE_{name}": value for name, value in pairs}
    defaults = {"VIBEVOICE_ENGINE": "scripted", "VIBEVOICE_PORT": str(free_port())}
    for name, value in {**defaults, **given}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(doctor, "examine", partial(doctor.examine, light_engines=()))
    assert doctor.doctor(report=False, file=None) == code
    shown = capsys.readouterr().out
    assert shown.startswith("Not ready: " if code else "Ready: ")
    assert said.replace("HOME", home) in shown
    assert shown.splitlines()[-1].startswith("Next: ")
    assert next_step in shown.splitlines()[-1]
    optional = shown.partition("\nOptional, not here:\n")[2]
    assert "no engine at all" not in optional


def test_doctor_reports_what_is_installed_and_the_next_step(terminal):
    port = free_port()
    settings = {"ENGINE": "auto", "PORT": str(port), "WHISPER_MODEL": "base"}
    given = {f"VIBEVOICE_{name}": value for name, value in settings.items()}
    run = terminal.run("doctor", **given)
    assert (run.returncode, run.stderr) == (0, "")
    for part in (
        "live       moonshine (auto): ",
        "(serves)",
        "voice",
        "GPU",
        "ffmpeg version",
        "; English and 99 more; ",
    ):
        assert part in run.stdout
    assert "  checkpoint " not in run.stdout, "nothing of a healthy machine is missing"
    assert f"{port} on" in run.stdout
    assert run.stdout.splitlines()[-1].startswith("Next: ")
    assert run.stdout.startswith("Ready: ")
    needed, optional = run.stdout.split("\nOptional, not here:\n")
    assert "--  " not in needed
    served = next(line for line in needed.splitlines() if "(serves)" in line)
    packaged = packaged_model.is_installed()  # unpacked as by the first start of a service
    assert ("Whisper" in served) is packaged, served
    assert {line[:4] for line in optional.splitlines()[:-2]} == {"--  "}


def test_doctor_without_missing_parts_prints_no_list_of_optional_ones(capsys):
    doctor.print_findings([CheckFinding("version", CheckState.GOOD, "1")], READY)
    assert "Optional" not in capsys.readouterr().out


def test_report_has_no_name_of_a_user_however_a_folder_is_written(tmp_path, monkeypatch):
    log = (tmp_path / "data/log/vibevoice-asr.log", tmp_path / "report.zip")
    log[0].parent.mkdir(parents=True)
    windows = r"""C:\Users\Anna Muster\AppData C:\\Users\\Anna Muster\\x
        "\"C:\\\\Users\\\\Anna Muster\\\\x\"" "c:/users/anna muster/y"
        file:///C:/Users/Anna%20Muster/z \\?\C:\Users\Anna Muster: C:\Users\ANNAMU~1\Temp"""
    for home, text in (
        (r"C:\Users\Anna Muster", windows),
        ("/home/anna", "/home/anna/x '/home/anna' file:///home/anna/y /home/annabel/z"),
        ("/Users/anna", "/Users/anna/Library /users/anna"),
        ("/srv/anna", "/srv/anna/x"),
    ):
        monkeypatch.setenv("USERPROFILE" if sys.platform == "win32" else "HOME", home)
        log[0].write_text(text, "utf-8")
        assert doctor.write(log[1], text, Settings(data_dir=tmp_path / "data")) == 0
        with zipfile.ZipFile(log[1]) as report:
            said = b"\n".join(map(report.read, report.namelist())).decode()
        log[1].unlink()
        assert "anna" not in said.lower()
        assert said.count("~") == 2 * len(re.findall("anna", text, re.IGNORECASE))


@pytest.mark.slow
def test_doctor_names_the_pid_of_the_service_at_the_port(terminal, server):
    run = terminal.run("doctor", VIBEVOICE_PORT=str(server.port))
    assert f"pid {server.health()['pid']}" in run.stdout
    assert run.returncode == 0


def test_doctor_says_how_to_install_each_engine_whose_packages_are_missing(monkeypatch):
    monkeypatch.setattr("sidecar.engines.missing_packages", lambda spec: ["torch"])
    found = {one.text.partition(":")[0]: one.text for one in doctor.examine_engines(Settings())}
    for engine in ("whisper", "voxtral", "vibevoice"):
        assert f"without torch (pip install -e '.[{engine}]'" in found[engine]


def test_next_step_is_the_remedy_of_the_first_worst_finding():
    good = CheckFinding("a", CheckState.GOOD, "", "never")
    absent = CheckFinding("b", CheckState.ABSENT, "", "never")
    worse = CheckFinding("c", CheckState.WARNING, "", "mend c")
    worst = [
        CheckFinding("d", CheckState.BAD, "", "mend d"),
        CheckFinding("e", CheckState.BAD, "", "mend e"),
    ]
    assert next_step([good, absent]) == READY
    assert next_step([good, worse, absent]) == "mend c"
    assert next_step([worse, *worst]) == "mend d"


def test_version_is_that_of_the_package(terminal):
    run = terminal.run("--version")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"vibevoice-asr {__version__}\n", "")


@pytest.mark.slow_except("words2")
@pytest.mark.parametrize("words", [[], ["serve"], ["transcribe"], ["status"]])
def test_help_has_examples(words, terminal):
    run = terminal.run(*words, "--help")
    assert run.returncode == 0
    assert "Example" in run.stdout
    assert "vibevoice-asr" in run.stdout.partition("Example")[2]


def test_help_shows_path_as_the_kind_of_a_path_argument(terminal):
    assert "<path>" in terminal.run("jobs", "backup", "--help").stdout


def test_help_of_serve_lists_flag_and_variable_of_every_setting(terminal):
    text = terminal.run("serve", "--help").stdout
    for name in settings_class().model_fields:
        assert f"--{name.replace('_', '-')} " in text, name
        assert f"VIBEVOICE_{name.upper()}." in text, name


@pytest.mark.slow_except("journal_key")
@pytest.mark.parametrize("name", ["token", "upstream_key", "journal_key", "llm_key", "speech_key"])
def test_secret_as_argument_is_refused_with_another_way_to_give_it_and_not_printed(name, terminal):
    run = terminal.run("serve", f"--{name.replace('_', '-')}", "not-for-logs" * 9)
    check_one_line(run, 78, name, "@FILE")
    assert "not-for-logs" not in run.stdout + run.stderr


def test_shell_completes_commands_and_values_of_options(terminal):
    ask = {"_VIBEVOICE_ASR_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert "transcribe" in terminal.run(COMP_WORDS="vibevoice-asr tr", **ask).stdout
    ask["COMP_CWORD"] = "3"
    run = terminal.run(COMP_WORDS="vibevoice-asr serve --log-level wa", **ask)
    assert run.stdout.split() == ["warning"]


@pytest.mark.slow_except("parrot", "soon", "grpc")
@pytest.mark.parametrize(
    ("line", "env", "parts"),
    [
        ("--port 99999", {}, ["port", "docs/settings.md"]),
        ("serve --engine parrot", {}, ["engine", "docs/settings.md"]),
        ("", {"VIBEVOICE_KEEP_ALIVE": "soon"}, ["keep_alive", "docs/settings.md"]),
        (
            "node --port 0 --grpc-port 0 --wyoming-port 0",
            {},
            ["role 'node'", "grpc_port and wyoming_port", "fronts"],
        ),
        ("node --port 0 --talk-ports original", {}, ["role 'node'", "talk_ports", "fronts"]),
    ],
    ids=str,
)
def test_invalid_setting_exits_with_78_and_one_line_that_names_it(line, env, parts, terminal):
    check_one_line(terminal.run(*line.split(), **env), 78, *parts)


@pytest.mark.slow_except("words0")
@pytest.mark.parametrize("words", [[], ["--log-level", "info"], ["serve"]])
def test_serve_imports_none_of_rich_httpx_numpy_soundfile_and_moonshine_voice(words, tmp_path):
    with Server(
        tmp_path, [sys.executable, "-X", "importtime", "-m", "sidecar.main", *words]
    ) as server:
        log = server.log()
    imported = {line.rpartition("|")[2].strip() for line in log.splitlines() if "|" in line}
    assert "uvicorn" in imported
    assert imported.isdisjoint({"rich", "httpx", "numpy", "soundfile", "moonshine_voice"})


async def test_worker_command_loads_an_engine_refuses_an_unknown_request_and_ends_when_closed(
    monkeypatch,
):
    monkeypatch.setattr(worker_process, "worker_command", lambda: [*installed_command(), "worker"])
    child = worker_process.WorkerProcess("frozen")
    try:
        load = {"engine": scripted_engine.SPEC.factory, "options": LoadOptions().to_wire()}
        assert await child.ask("load", **load) == {"loaded": 1.0}
        with pytest.raises(errors.EngineFailed):
            await child.ask("juggle")
    finally:
        await child.close()
    assert not child.alive


@pytest.mark.parametrize("words", [["worker"], ["--version"]])
def test_garbage_collection_is_on_while_a_command_runs(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    collects: list[bool] = []

    def look(*_: object, **__: object) -> int:
        collects.append(gc.isenabled())
        return 0

    command = SimpleNamespace(main=look)
    monkeypatch.setattr("sidecar.workers.worker_main.main", look)
    monkeypatch.setattr("sidecar.cli.command_table.build_command", lambda: command)
    monkeypatch.setattr(sys, "argv", ["vibevoice-asr", *words])
    try:
        with suppress(SystemExit):
            cli.main()
    finally:
        gc.enable()
    assert collects == [True]
