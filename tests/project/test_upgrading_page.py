"""docs/upgrading.md: its commands leave nothing of the service, and touch nothing else."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from not_tested import missing
from postgres import KEY
from service_process import PATIENCE_S, REPOSITORY, popen, run_command, service_environment

from sidecar.installation import DISTRIBUTION

PAGE = (REPOSITORY / "docs/upgrading.md").read_text("utf-8")
SERVE = [sys.executable, "-m", "sidecar.main"]


def block_of(heading: str) -> str:
    """The last indented block below a heading, as somebody would copy it."""
    section = PAGE.partition(f"# {heading}\n")[2].partition("\n#")[0].splitlines()
    blocks = [
        "\n".join(line.strip() for line in lines)
        for indented, lines in itertools.groupby(section, lambda line: line.startswith("    "))
        if indented
    ]
    assert blocks, heading
    return blocks[-1]


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def serve_once(env: dict[str, str], *words: str) -> None:
    """Start a service, and end it as soon as it serves."""
    command = [*SERVE, "--port=0", *words]
    with popen(
        command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as service:
        assert service.stdout is not None
        ready = json.loads(service.stdout.readline())
        assert ready["event"] == "ready", ready
        service.terminate()
        service.wait(PATIENCE_S)


@pytest.mark.skipif(sys.platform != "linux", reason="the block is for Linux")
def test_removal_block_deletes_all_files_of_service_in_home_and_no_others(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    env = {
        "HOME": str(home),
        **{name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ},
        "VIBEVOICE_ENGINE": "scripted",
        "VIBEVOICE_JOURNAL_KEY": KEY,
    }
    others = home / ".local/share/other/file", home / ".config/other"
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("somebody else's", "utf-8")
    before = files_in(home)

    run_command([*SERVE, "token", "create", "--subject", "anna"], env=env, check=True)
    serve_once(env, "--keep-jobs", "--people", "--tls=self-signed")
    settings = home / ".config" / DISTRIBUTION / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("port = 9000\n", "utf-8")
    unit = home / ".config/systemd/user/vibevoice-asr.service"
    unit.parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / "deploy/systemd/user/vibevoice-asr.service", unit)

    left = files_in(home) - before
    for name in ("/log/", "/tokens/", "/tls/", "/jobs/", "/people/"):
        assert any(name in file for file in left), (name, left)
    subprocess.run(["sh", "-eu", "-c", block_of("Folders of a user")], env=env, check=True)
    assert files_in(home) == before


def test_removal_block_deletes_schema_of_service_and_keeps_tables_of_others(
    fresh_journal: str, tmp_path: Path
) -> None:
    if shutil.which("psql") is None:
        pytest.skip(missing("psql", "postgresql-client"))
    with psycopg.connect(fresh_journal, autocommit=True) as other:
        other.execute("CREATE TABLE somebody_elses (name text)")

    def schemas() -> set[str]:
        with psycopg.connect(fresh_journal) as look:
            return {name for (name,) in look.execute("SELECT nspname FROM pg_namespace").fetchall()}

    uploads = tmp_path / "uploads"
    env = service_environment(tmp_path, journal=fresh_journal, journal_key=KEY, uploads=uploads)
    serve_once(env)
    assert "vibevoice" in schemas()
    subprocess.run(["sh", "-eu", "-c", block_of("A database")], env=env, check=True)
    assert "vibevoice" not in schemas()
    with psycopg.connect(fresh_journal) as look:
        assert look.execute("SELECT count(*) FROM somebody_elses").fetchone() == (0,)


def test_removal_block_for_systemd_deletes_user_and_every_path_that_installation_makes() -> None:
    unit = (REPOSITORY / "deploy/systemd/system/vibevoice-asr.service").read_text("utf-8")
    assert "\nStateDirectory=vibevoice-asr\n" in unit
    (program,) = re.findall(r"^ExecStart=(\S+)", unit, re.MULTILINE)
    made = {program, "/var/lib/vibevoice-asr", "/etc/systemd/system/vibevoice-asr.socket"}
    page = (REPOSITORY / "docs/start/team-server.md").read_text("utf-8")
    (installation,) = re.findall(r"```sh\n(python3 -m venv /opt.+?)```", page, re.DOTALL)
    for line in installation.splitlines():
        words = line.split()
        if words[0] == "install":
            (source,) = (one for one in words if one.startswith("deploy/"))
            made.add(words[-1] + (Path(source).name if words[-1].endswith("/") else ""))
        elif "venv" in words:
            made.add(words[-1])
    assert len(made) >= 8
    removal = block_of("systemd, for everybody on a machine")
    deleted = re.findall(r"/\S+", removal)
    assert [
        one for one in made if not any(Path(one).is_relative_to(path) for path in deleted)
    ] == []
    assert "userdel vibevoice-asr" in removal.splitlines()
