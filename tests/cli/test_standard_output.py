"""Standard output of every command: UTF-8, and an error if it cannot be written."""

import ast
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import moonshine_voice
import pytest
from command_terminal import Terminal, check_one_line, installed_command
from recordings import long
from service_process import Server, new_file, popen, run_command

SUCCESS = Path(moonshine_voice.get_assets_path()) / "success.wav"
ROOT = Path(__file__).parents[2]
posix = pytest.mark.posix("programs for Linux")
FULL = os.path.exists("/dev/full")
RESULTS = [
    *(["--help"], ["serve", "--help"], ["--version"], ["doctor"]),
    *(["token", "list", "--folder", "."], ["estimate", str(SUCCESS)]),
    ["transcribe", str(SUCCESS)],
]
"""Commands by what writes their results: typer, and our own functions."""


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, VIBEVOICE_ENGINE="scripted", VIBEVOICE_LIVE_ENGINE="none")


def named(words: list[str]) -> str:
    return " ".join(word for word in words if "/" not in word)


@posix
@pytest.mark.slow_except("-estimate0")
@pytest.mark.parametrize(
    ("redirection", "why", "words"),
    [
        # A service may be started without a standard output.
        *((">&-", "Bad file descriptor", words) for words in RESULTS if words[0] != "serve"),
        *((">/dev/full", "No space left on device", words) for words in RESULTS if FULL),
    ],
    ids=lambda value: named(value) if isinstance(value, list) else "",
)
def test_standard_output_that_cannot_be_written_is_one_line_of_error(
    redirection: str, why: str, words: list[str], terminal: Terminal
) -> None:
    if words[0] == "token":
        terminal.run("token", "create", "--folder", ".", "--subject", "anna")
    line = f"{shlex.join([*installed_command(), *words])} {redirection}"
    run = run_command(line, shell=True, cwd=terminal.home, env=terminal.env, text=True)
    check_one_line(run, 1, f"standard output: cannot be written: {why}.")


@posix
@pytest.mark.skipif(not FULL, reason="Linux's device")
def test_result_longer_than_the_buffers_that_cannot_be_written_is_one_line_of_error(
    terminal: Terminal,
) -> None:
    new_file(terminal.home / "long.wav", long(600))
    line = f"{shlex.join(installed_command())} transcribe long.wav --format json >/dev/full"
    run = run_command(line, shell=True, cwd=terminal.home, env=terminal.env, text=True)
    check_one_line(run, 1, "standard output: cannot be written: No space left on device.")


@pytest.mark.slow_except("estimate")
@pytest.mark.parametrize("words", RESULTS, ids=named)
def test_closed_pipe_of_standard_output_prints_no_error_and_transcribe_exits_1(
    words: list[str], terminal: Terminal
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with popen(
        [*installed_command(), *words],
        cwd=terminal.home,
        env=terminal.env,
        stdout=writer,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(writer)
        _, said = process.communicate()
    assert b"Traceback" not in said
    assert b"standard output" not in said
    assert words[0] != "transcribe" or process.returncode == 1


@pytest.mark.slow_except("[]")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_results_are_utf_8_whatever_the_encoding_of_the_console(
    unbuffered: str, terminal: Terminal
) -> None:
    name = "\N{CJK UNIFIED IDEOGRAPH-5F55}.wav"
    shutil.copy(SUCCESS, terminal.home / name)
    windows = {"PYTHONIOENCODING": "cp1252", "PYTHONUNBUFFERED": unbuffered}
    run = terminal.run("estimate", name, fresh=True, **windows)  # terminals decode UTF-8
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(f"{name}: fits")


@pytest.mark.slow
def test_monitor_is_utf_8_whatever_the_encoding_of_the_console(
    terminal: Terminal, server: Server
) -> None:
    run = terminal.run(
        "monitor", "--once", "--server", server.url, fresh=True, PYTHONIOENCODING="ascii"
    )
    assert run.stderr == ""
    assert run.returncode == 0
    assert not run.stdout.isascii(), "its table has a dash of no ASCII"


def test_no_command_module_prints_to_standard_output_by_bare_print() -> None:
    bare = [
        f"{path.name}:{node.lineno}"
        for path in sorted((ROOT / "sidecar/cli").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "print"
        and "file" not in [keyword.arg for keyword in node.keywords]
    ]
    assert bare == [], "print_text is for results"
