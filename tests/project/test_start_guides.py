"""The guides of docs/start: every command runs as it stands, or is listed here with the reason."""

import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from not_tested import missing
from postgres import cluster
from service_process import (
    REPOSITORY,
    StartServer,
    free_port,
    new_file,
    runs,
    wait_until,
    web,
)

from sidecar.cli.command_table import build_command

FOLDER = REPOSITORY / "docs/start"
PAGES = sorted(path.name for path in FOLDER.glob("*.md"))
PACKAGES = "half a gigabyte from an index; test_install_command.py installs the wheel"
SYSTEMD = "no systemd runs here; test_deploy_folder.py has the units checked by systemd-analyze"
NOT_EXECUTED: Mapping[str, str] = {
    "python3 -m venv .venv": PACKAGES,
    ". .venv/bin/activate": PACKAGES,
    "pip install .": PACKAGES,
    "pip install '.[auth]'": PACKAGES,
    "pip install '.[auth,postgres]'": PACKAGES,
    "pip install '.[espeak,microphone]'": PACKAGES,
    "pip install '.[languages]'": PACKAGES,
    "pip install '.[people]'": PACKAGES,
    "make exe": "minutes; test_executable.py tries the executable out",
    "python3 -m venv /opt/vibevoice-asr": SYSTEMD,
    "/opt/vibevoice-asr/bin/pip install '.[auth]'": SYSTEMD,
    "install -m 644 deploy/systemd/sysusers.conf /usr/lib/sysusers.d/vibevoice-asr.conf": SYSTEMD,
    "systemd-sysusers": SYSTEMD,
    "install -m 644 deploy/systemd/system/vibevoice-asr.service /etc/systemd/system/": SYSTEMD,
    "install -D -m 644 deploy/systemd/system/network.conf"
    " -t /etc/systemd/system/vibevoice-asr.service.d/": SYSTEMD,
    "install -D -m 600 deploy/env.example /etc/vibevoice-asr/env": SYSTEMD,
    "systemctl daemon-reload": SYSTEMD,
    "systemctl enable --now vibevoice-asr": SYSTEMD,
    "systemctl restart vibevoice-asr": SYSTEMD,
    "install -m 755 deploy/systemd/backup.sh /etc/cron.daily/vibevoice-asr": SYSTEMD,
    "vibevoice-asr live --server http://127.0.0.1:8765": (
        "no microphone here; test_live_command.py has one that plays a recording"
    ),
    "VIBEVOICE_TOKEN=$(openssl rand -hex 32) docker compose up --build": (
        "no container engine runs here; test_container.py does its steps in a folder"
    ),
    "kubectl apply -k deploy/k8s/overlays/cluster": (
        "no Kubernetes here; test_kubernetes.py renders it and holds it against the API's schemas"
    ),
}
PROGRAMS = r"vibevoice-asr|pip|python3?|make|curl|psql|docker|kubectl|systemctl|install|export|cp"
PRINTS = "# → "
"""Before the line that the command above it should print; "…" in it stands for anything."""


def _lines_of(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (FOLDER / page).read_text("utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]


def commands_of(page: str) -> list[str]:
    """The commands of a guide, in order."""
    return [line for line in _lines_of(page) if not line.startswith(PRINTS)]


def printed_by(page: str) -> dict[str, str]:
    """The lines that commands of a guide should print."""
    lines = _lines_of(page)
    return {
        before: line.removeprefix(PRINTS)
        for before, line in pairwise(lines)
        if line.startswith(PRINTS)
    }


def is_in(expected: str, printed: str) -> bool:
    """Return whether a line of ``printed`` is as ``expected`` says."""
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in expected.split("…"))
    return any(re.fullmatch(pattern, " ".join(line.split())) for line in printed.splitlines())


class Terminals:
    """A shell that runs a guide: services go on in the background, as in terminals of their own."""

    def __init__(self, page: str, home: Path, replaced: Mapping[str, str]) -> None:
        self.page, self.home, self._prints = page, home, printed_by(page)
        self.out: dict[str, str] = {}
        self.services: dict[str, psutil.Process] = {}
        self._replaced = {str(port): str(free_port()) for port in (8765, 8766, 8767)} | replaced
        self.port = int(self._replaced["8765"])
        self._shell = self._new_shell()

    def _new_shell(self) -> subprocess.Popen[str]:
        programs = self.home / "bin"
        programs.mkdir()
        for name, words in {
            "vibevoice-asr": [sys.executable, "-m", "sidecar.main"],
            "python3": [sys.executable],
            "browser": ["curl", "--fail", "--header", "Accept: text/html", "--output", "page.html"],
        }.items():
            new_file(programs / name, f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', 0o755)
        text = (FOLDER / self.page).read_text("utf-8")
        for name, said in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", text, re.DOTALL):
            (self.home / name).write_text(self._here(said), "utf-8")
        outer = {
            name: value
            for name, value in os.environ.items()
            if "VIBEVOICE" not in name and not name.startswith("XDG_")
        }
        env = {
            **outer,
            "BROWSER": str(programs / "browser"),
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "hub"),
            "NO_COLOR": "1",
            "NO_PROXY": "*",
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'clients/python/src'}",
            "VIBEVOICE_PORT": self._replaced["8765"],
            "VIBEVOICE_WHISPER_MODEL": "tiny",  # as in `service_environment`
        }
        return subprocess.Popen(
            ["bash"], cwd=self.home, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _here(self, text: str) -> str:
        """A command or file of the guide with the ports and addresses of this test."""
        said = "|".join(map(re.escape, sorted(self._replaced, key=len, reverse=True)))
        return re.sub(said, lambda match: self._replaced[match[0]], text)

    def _say(self, line: str) -> tuple[int, str]:
        """Have the shell run a line; its exit code and what it printed."""
        mark = secrets.token_hex(8)
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {line}\n}} </dev/null; printf '\\n%s %s\\n' {mark} $?\n")
        self._shell.stdin.flush()
        printed = []
        for answer in self._shell.stdout:
            if answer.startswith(mark):
                return int(answer.split()[1]), "".join(printed)
            printed.append(answer)
        raise AssertionError(f"the shell ended: {''.join(printed)}")

    def run(self, command: str) -> tuple[int, str]:
        """Run a command to its end; its exit code and what it printed."""
        code, self.out[command] = self._say(self._here(command))
        return code, self.out[command]

    def serve(self, command: str) -> None:
        """Start a service of the guide, and wait until it serves."""
        log = self.home / f"service-{len(self.services)}"
        logs = Path(f"{log}.out"), Path(f"{log}.err")
        for path in logs:  # the shell answers before its child opens them
            path.touch()
        _, said = self._say(f"{self._here(command)} >{log}.out 2>{log}.err & echo $!")
        process = self.services[command] = psutil.Process(int(said))

        def serves() -> bool:
            assert runs(process.pid), f"{command}: {[path.read_text('utf-8') for path in logs]}"
            printed = "".join(path.read_text("utf-8") for path in logs)
            return is_in(self._here(self._prints[command]), printed)

        wait_until(serves, command)

    def do_all(self) -> None:
        """Run every command of the guide that is not listed."""
        for command in commands_of(self.page):
            if command in NOT_EXECUTED:
                continue
            if re.match(r"vibevoice-asr (serve|node)\b|vibevoice-asr open$", command):
                self.serve(command)
            else:
                code, said = self.run(command)
                assert code == 0, f"{command}: {said}"
                if (expected := self._prints.get(command)) is not None:
                    assert is_in(self._here(expected), said), f"{command}: {said}"

    def stop(self, command: str) -> None:
        """End a service, as Ctrl-C in its terminal would."""
        process = self.services.pop(command)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: not runs(process.pid), f"{command} ends")

    def others(self) -> Iterator[psutil.Process]:
        """Processes that were started here and still run, but for the shell."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                of_guide = process.environ().get("HOME") == str(self.home)
                if of_guide and runs(process.pid) and process.pid != self._shell.pid:
                    yield process

    def close(self) -> None:
        """End all, children of services too."""
        for command in list(self.services):
            self.stop(command)
        self._shell.communicate()


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Callable[..., Terminals]]:
    """Follows a guide from its first command to its last, in an empty home."""
    begun: list[Terminals] = []

    def followed(page: str, **replaced: str) -> Terminals:
        begun.append(Terminals(page, tmp_path, replaced))
        begun[0].do_all()
        return begun[0]

    yield followed
    for one in begun:
        one.close()


def test_every_start_guide_has_test() -> None:
    tests = [name for name in globals() if name.startswith("test_guide_of_")]
    assert len(PAGES) == 5 == len(tests)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_guide_are_in_code_blocks(page: str) -> None:
    text = re.sub(r"```.*?```", "", (FOLDER / page).read_text("utf-8"), flags=re.DOTALL)
    assert re.findall(rf"`(?:{PROGRAMS}) [^`]*`|^    \S.*", text, re.MULTILINE) == []
    assert {"sh", "python"} >= set(re.findall(r"```(\w+)", (FOLDER / page).read_text("utf-8")))
    assert commands_of(page)


def test_commands_listed_as_not_executed_are_in_guides() -> None:
    assert set(NOT_EXECUTED) <= {command for page in PAGES for command in commands_of(page)}


@pytest.mark.posix("programs for Linux")
@pytest.mark.parametrize("command", NOT_EXECUTED)
def test_commands_that_are_not_executed_name_existing_files_extras_targets_and_tests(
    command: str,
) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)
    words = shlex.split(command)
    for word in words:
        assert not word.startswith("deploy/") or (REPOSITORY / word).exists()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    for extras in re.findall(r"\.\[([\w,]+)\]", command):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
    if words[0] == "make":
        makefile = (REPOSITORY / "Makefile").read_text("utf-8")
        assert re.search(rf"(?m)^{words[1]}:", makefile)
    for name in re.findall(r"vibevoice-asr ([a-z]+)", command):
        assert name in build_command().commands
    for test in re.findall(r"test_\w+\.py", NOT_EXECUTED[command]):
        assert list((REPOSITORY / "tests").rglob(test))


@pytest.mark.slow
def test_guide_of_desktop_app_transcribes_and_leaves_no_process(
    follow: Callable[..., Terminals],
) -> None:
    done = follow("desktop-app.md")
    wait_until(lambda: not [*done.others()], "no process is left")


@pytest.mark.slow
def test_guide_of_page_loads_page_and_writes_subtitles(follow: Callable[..., Terminals]) -> None:
    done = follow("page.md")
    assert "<html" in (done.home / "page.html").read_text("utf-8"), "the browser has the page"
    assert re.match(r"\s*1\n00:00:0\d,\d+ --> ", done.out["cat subtitles/talk.srt"])


@pytest.mark.slow
def test_guide_of_team_server_transcribes_until_token_is_revoked(
    follow: Callable[..., Terminals],
) -> None:
    done = follow("team-server.md")
    (asks,) = (command for command in done.out if command.startswith("curl"))
    (transcribes,) = (one for one in done.out if one.startswith("vibevoice-asr transcribe"))
    refused = lambda: "token_invalid" in done.run(asks)[1]  # noqa: E731
    wait_until(refused, "the revoked token stops working")
    code, said = done.run(transcribes)
    assert code != 0
    assert "token" in said


@pytest.mark.slow
def test_guide_of_cluster_transcribes_before_and_after_one_node_stops(
    follow: Callable[..., Terminals],
) -> None:
    if shutil.which("psql") is None:
        pytest.skip(missing("psql", "postgresql-client"))
    with cluster() as server:
        at = f"127.0.0.1:{server.port}"
        administers = f"psql postgresql://vibevoice@{at}/postgres"
        done = follow("cluster.md", **{"sudo -u postgres psql": administers, "db.example": at})
        transcribes = "vibevoice-asr transcribe talk.wav --server http://127.0.0.1:8765"
        (table,) = (said for command, said in done.out.items() if "vibevoice.services" in command)
        assert re.findall(r"\| (front|node) +\|", table) == ["front", "node", "node"]
        assert web.get(f"http://127.0.0.1:{done.port}/health").json()["engine_state"] == "absent"
        done.stop("vibevoice-asr node --port 8766")
        code, said = done.run(transcribes)
        assert (code, "Do you hear me?" in said) == (0, True)
        done.close()


def test_conversation_of_guide_prints_that_no_llm_answers_and_saves_a_spoken_apology(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(llm=f"http://127.0.0.1:{free_port()}", voice_engine="scripted")
    guide = (FOLDER / "live-and-talk.md").read_text("utf-8")
    program = guide.partition("<!-- file: conversation.py -->\n```python\n")[2].partition("```")[0]
    here = program.replace("127.0.0.1:8765", f"127.0.0.1:{server.port}")
    said = subprocess.run(
        [sys.executable, "-c", here], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert "No server answers" in said
    assert (tmp_path / "answer.pcm").stat().st_size > 0, "an apology"


@pytest.mark.slow
def test_guide_of_live_audio_and_conversations_prints_captions_and_answers(
    follow: Callable[..., Terminals],
) -> None:
    done = follow("live-and-talk.md")
    spoken = (done.home / "answer.pcm").stat().st_size
    assert bool(spoken) == bool(find_spec("espeakng_loader"))
