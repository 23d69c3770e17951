"""`make run` as a person uses it: its port, and Ctrl-C during set-up and service."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from inner_pytest import inner_environment
from not_tested import missing
from service_process import REPOSITORY, new_file, told_by
from systems import posix_module

pty = posix_module("pty")
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason=missing("make", "make"))

PROGRAM = """#!/bin/sh
trap 'exit 130' INT
echo "arguments: $*"
[ -z "$EXIT_CODE" ] || exit "$EXIT_CODE"
while :; do sleep 0.1; done
"""
PIP = """#!/bin/sh
echo a line of pip
while :; do sleep 0.1; done
"""


@pytest.fixture(autouse=True)
def _no_make_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make test` runs these: a make in a make says which folder it enters."""
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose set-up is done, with a program that shows its arguments."""
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy2(REPOSITORY / name, tmp_path)
    for name, text in {"vibevoice-asr": PROGRAM, "python": PIP}.items():
        new_file(programs / name, text, 0o755)
    (tmp_path / ".venv/.installed-run").touch()
    return tmp_path


def make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return told_by(
        ["make", *words], cwd=folder, env={**os.environ, "EXIT_CODE": "0", **environment}
    )


def interrupted(folder: Path, begun: str) -> str:
    """The terminal after ``make run``, with Ctrl-C as soon as ``begun`` appeared."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvp("make", ["make", "run"])
    shown, sent = b"", False
    try:
        while data := os.read(terminal, 4096):
            shown += data
            if not sent and begun.encode() in shown:
                os.write(terminal, b"\x03")
                sent = True
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    assert sent
    return shown.decode()


def test_make_run_passes_port_of_its_command_line_and_not_of_the_environment(folder: Path) -> None:
    assert make(folder, "run", VIBEVOICE_PORT="9000").stdout == "arguments: demo\n"
    assert make(folder, "run", "PORT=9001").stdout == "arguments: demo --port 9001\n"


def test_make_run_passes_language_of_its_command_line_or_says_how_to_name_one(folder: Path) -> None:
    said = make(folder, "run", "AUDIO=talk.mp3", LANGUAGE="de_DE").stdout.splitlines()
    assert said == [
        "If it is not English, name its language: make run AUDIO='talk.mp3' LANGUAGE=de",
        "arguments: demo talk.mp3",
    ]
    english = make(folder, "run", "AUDIO=talk.mp3", "LANGUAGE=en").stdout
    assert english == "arguments: demo --language en talk.mp3\n"


def test_first_make_run_with_a_language_installs_extra_and_model_and_later_ones_do_not(
    folder: Path,
) -> None:
    for name in ("python", "vibevoice-asr"):
        noted = '[ "$1" = demo ] || echo "$*" >>said'
        program = f'#!/bin/sh\n{noted}\necho "arguments: $*"\n'
        new_file(folder / ".venv/bin" / name, program, 0o755)
    said = make(folder, "run", "AUDIO=talk.mp3", "LANGUAGE=de").stdout
    assert said.endswith("arguments: demo --language de talk.mp3\n")
    assert "-e .[languages,people]" in (folder / "said").read_text("utf-8")
    assert "pull whisper:base\n" in (folder / "said").read_text("utf-8")
    (folder / "said").unlink()
    again = make(folder, "run", "AUDIO=talk.mp3", "LANGUAGE=it").stdout
    assert again == "arguments: demo --language it talk.mp3\n"
    assert make(folder, "run", "AUDIO=talk.mp3").stdout == "arguments: demo talk.mp3\n"
    assert not (folder / "said").exists()


def test_failed_make_run_prints_the_exit_code_of_the_service(folder: Path) -> None:
    result = make(folder, "run", EXIT_CODE="75")
    assert result.returncode != 0
    assert "Error 75" in result.stderr


def test_ctrl_c_of_make_run_prints_no_error(folder: Path) -> None:
    shown = interrupted(folder, "arguments: demo")
    assert "Error" not in shown
    assert "Interrupt" not in shown


def test_make_exe_prints_its_steps_and_folder_and_writes_output_of_build_to_a_log(
    folder: Path,
) -> None:
    steps = {"pyinstaller": "echo INFO: a step; sleep 2", "python": "echo $1"}
    for name, step in steps.items():
        new_file(folder / ".venv/bin" / name, f"#!/bin/sh\n{step}\n", 0o755)
    (folder / ".venv/.installed-build").touch()
    shown = make(folder, "exe")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0] == "Building dist/vibevoice-asr: minutes (log: build/cpu.log)"
    assert "Built: dist/vibevoice-asr can be used. Testing it: minutes" in lines
    assert (folder / "build/cpu.log").read_text("utf-8") == "INFO: a step\n"


WITHOUT_TEST_TOOLS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"hypothesis", "looptime", "random_order", "xdist"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import pytest

sys.exit(pytest.main(["--collect-only", "-q", "-p", "pytest_asyncio.plugin", sys.argv[1]]))
"""


@pytest.mark.slow
def test_tests_of_executable_can_be_collected_without_tools_of_other_tests() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TEST_TOOLS, "tests/project/test_executable.py"],
        cwd=REPOSITORY,
        env=inner_environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_make_exe_prints_log_of_failed_build(folder: Path) -> None:
    new_file(folder / ".venv/bin/pyinstaller", "#!/bin/sh\necho no module; exit 1\n", 0o755)
    (folder / ".venv/.installed-build").touch()
    shown = make(folder, "exe")
    assert shown.returncode != 0
    assert "no module\nBuild failed; the lines above say why." in shown.stderr


def test_make_format_mends_what_it_can_and_fails_with_what_is_left(folder: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    (folder / ".venv/style/bin").mkdir(parents=True)
    (folder / ".venv/style/bin/ruff").symlink_to(ruff)
    (folder / ".venv/style/.installed").touch()
    module, numbers = folder / "long.py", map(str, range(1000, 1020))
    module.write_text(f"import sys\n\nprint({', '.join(numbers)})\n", "utf-8")
    assert max(map(len, module.read_text("utf-8").splitlines())) > 100
    style = make(folder, "style")
    assert "'make format' mends it." in style.stderr
    shown = make(folder, "format")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "import sys" not in module.read_text("utf-8")
    assert max(map(len, module.read_text("utf-8").splitlines())) <= 100
    module.write_text("print(\n\n1,  nobody_knows_it)\n", "utf-8")
    shown = make(folder, "format")
    assert shown.returncode != 0
    assert "nobody_knows_it" in shown.stdout
    assert module.read_text("utf-8") == "print(1, nobody_knows_it)\n"


def test_make_style_says_that_it_installs_tools_the_first_time_only(folder: Path) -> None:
    python = folder / "python"
    tool = '#!/bin/sh\nmkdir -p "$3/bin"\n' + "".join(
        f'printf \'#!/bin/sh\\n\' >"$3/bin/{name}"; chmod +x "$3/bin/{name}"\n'
        for name in ("python", "ruff", "lint-imports")
    )
    new_file(python, tool, 0o755)
    said = "Installing ruff and import-linter into .venv/style, once: some 15 s"
    assert said in make(folder, "style", f"PYTHON={python}").stdout.splitlines()
    assert "Installing" not in make(folder, "style", f"PYTHON={python}").stdout


def test_ctrl_c_in_set_up_of_make_run_says_how_to_go_on_and_prints_no_log(folder: Path) -> None:
    (folder / ".venv/.installed-run").unlink()
    shown = interrupted(folder, "s: a line of pip")
    assert "Set-up interrupted: repeat the command to go on." in shown
    assert "failed" not in shown
    assert "a line of pip" not in shown.partition("^C")[2]
