"""What `deploy/` has for an administrator: units that systemd takes, settings that are ours."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from ctypes.util import find_library
from pathlib import Path

import httpx
import pytest
from not_tested import missing
from recordings import Studio, wav
from service_process import PATIENCE_S, Server, new_file, told_by, wait_until

from sidecar.cli.common_options import describe
from sidecar.cli.output import EXIT_CODES
from sidecar.config.setting_types import MIN_TOKEN_CHARACTERS
from sidecar.config.settings import ENV_PREFIX, Settings
from sidecar.plugins import load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
SYSTEM = DEPLOY / "systemd/system/vibevoice-asr.service"
USER = DEPLOY / "systemd/user/vibevoice-asr.service"
SOCKET = DEPLOY / "systemd/vibevoice-asr.socket"
CLUSTER = SYSTEM.with_name("cluster.conf")
BACKUP = DEPLOY / "systemd/backup.sh"
posix = pytest.mark.posix("programs for Linux")
EXPOSURE = {SYSTEM: 12, USER: 63}
"""Tenths, at most; systemd 252 says 1.0 and 6.3."""


def analyzed(*words: str | Path, runtime: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip(missing("systemd-analyze", "systemd"))
    return told_by(
        ["systemd-analyze", *map(str, words)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime), "SYSTEMD_COLORS": "0"},
    )


def placed(unit: Path, folder: Path, *drop_ins: str) -> Path:
    """The unit as it is put in, with a program in ExecStart that is there."""
    (folder / f"{unit.name}.d").mkdir(parents=True)
    for drop_in in drop_ins:
        shutil.copy(unit.with_name(drop_in), folder / f"{unit.name}.d")
    text, changed = re.subn(
        r"(?m)^(ExecStart|ExecStartPre)=\S+", r"\1=/bin/sh", unit.read_text("utf-8")
    )
    assert changed
    (folder / unit.name).write_text(text, "utf-8")
    return folder / unit.name


def check_understood(unit: Path, runtime: Path, *words: str) -> None:
    """systemd has nothing to say of it."""
    done = analyzed(*words, "verify", "--man=no", unit, runtime=runtime)
    assert (done.returncode, done.stderr) == (0, "")


def lines_of(unit: Path, name: str) -> list[str]:
    return re.findall(rf"(?m)^{name}=(.+)$", unit.read_text("utf-8"))


@pytest.mark.parametrize("drop_ins", [(), ("gpu.conf",), ("network.conf",)], ids=" ".join)
def test_system_unit_passes_systemd_analyze(drop_ins: tuple[str, ...], tmp_path: Path) -> None:
    check_understood(placed(SYSTEM, tmp_path / "units", *drop_ins), tmp_path)


def test_socket_unit_passes_systemd_analyze_and_listens_at_default_address_of_service(
    tmp_path: Path,
) -> None:
    placed(SYSTEM, tmp_path / "units")
    check_understood(shutil.copy(SOCKET, tmp_path / "units"), tmp_path)
    host, port = (Settings.model_fields[name].default for name in ("host", "port"))
    assert lines_of(SOCKET, "ListenStream") == [f"{host}:{port}"]


def test_user_unit_passes_systemd_analyze(tmp_path: Path) -> None:
    check_understood(placed(USER, tmp_path / "units"), tmp_path, "--user")


@pytest.mark.slow
def test_system_unit_keeps_its_key_and_refuses_requests_without_token_or_with_revoked_one(
    voice: bytes, tmp_path: Path
) -> None:
    named = dict(line.split("=", 1) for line in lines_of(SYSTEM, "Environment"))
    ours = {
        name.removeprefix(ENV_PREFIX).lower(): value.replace("%S", str(tmp_path))
        for name, value in named.items()
        if name.startswith(ENV_PREFIX)
    }
    del ours["spool_dir"]
    env = {**os.environ, **{f"{ENV_PREFIX}{name.upper()}": value for name, value in ours.items()}}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "sidecar.main", *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    (before,) = lines_of(SYSTEM, "ExecStartPre")
    _, *words = before.split()
    assert run(*words) == run(*words), "a second start makes no other key"
    with Server(tmp_path / "server", **ours) as server:
        anna = {"Authorization": f"Bearer {run('token', 'create', '--subject', 'anna')}"}
        send = {"files": {"file": ("voice.wav", voice)}}
        assert server.client.post("/v1/jobs", **send).status_code == 401
        sent = server.client.post("/v1/jobs", headers=anna, **send)
        assert sent.status_code == 202, sent.text
        job = f"/v1/jobs/{sent.json()['id']}"
        run("token", "revoke", "anna")
        wait_until(
            lambda: server.client.get(job, headers=anna).status_code == 401,
            "a token that was revoked counts no more",
        )


def sandboxed(unit: Path, state: Path) -> list[str]:
    """What comes before a command that is to run under a unit's restrictions."""
    apart = ["unshare", "--user", "--map-root-user", "--mount"]
    for program, package in (("unshare", "util-linux"), ("systemd-analyze", "systemd")):
        if shutil.which(program) is None:
            pytest.skip(missing(program, package))
    if find_library("seccomp") is None:
        pytest.skip(missing("libseccomp", "libseccomp2"))
    if told_by([*apart, "true"]).returncode:
        pytest.skip("this user may have no namespaces: no unit's restrictions were tried")
    script = Path(__file__).parents[1] / "support/systemd_sandbox.py"
    return [*apart, sys.executable, str(script), str(unit), str(state)]


@pytest.mark.slow_except("system")
@pytest.mark.parametrize("unit", [SYSTEM, USER], ids=["system", "user"])
def test_service_with_a_certificate_of_its_own_transcribes_under_restrictions_of_unit(
    unit: Path, studio: Studio, tmp_path: Path
) -> None:
    (state := tmp_path / "state").mkdir()
    before = sandboxed(unit, state)
    named = dict(line.split("=", 1) for line in lines_of(unit, "Environment"))
    given = {name: value.replace("%S", str(state)) for name, value in named.items()}
    settings = {"HOST": "0.0.0.0", "TLS": "self-signed", "PORT": "0", "ENGINE": "moonshine"}
    ours = {f"{ENV_PREFIX}{name}": value for name, value in settings.items()}
    ours[f"{ENV_PREFIX}DATA_DIR"] = str(state / "data")
    env = {"PATH": os.environ["PATH"], "HOME": str(state), **ours, **given}
    env["PYTHONPATH"] = str(DEPLOY.parent)

    def started(line: str) -> subprocess.Popen[str]:
        words = [*before, sys.executable, "-m", "sidecar.main", *line.split()[1:]]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen(words, env=env, cwd=DEPLOY.parent, text=True, **pipes)

    for line in lines_of(unit, "ExecStartPre"):
        with started(line) as process:
            process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, line
    env.setdefault(f"{ENV_PREFIX}TOKEN", token := "x" * MIN_TOKEN_CHARACTERS)
    if f"{ENV_PREFIX}TOKEN_KEYS" in given:
        del env[f"{ENV_PREFIX}TOKEN"]
        with started("vibevoice-asr token create --subject anna") as process:
            token = process.communicate(timeout=PATIENCE_S)[0].strip()
    (line,) = lines_of(unit, "ExecStart")
    with started(line) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            answer = httpx.post(
                f"{url}/transcribe",
                files={"audio": studio.bytes("mp3-cbr")},
                headers={"Authorization": f"Bearer {token}"},
                verify=False,
                timeout=PATIENCE_S,
            )
        finally:
            process.terminate()
    assert url.startswith("https:")
    assert answer.status_code == 200, answer.text
    assert answer.json()["segments"]


@pytest.mark.parametrize("unit", [SYSTEM, USER], ids=["system", "user"])
def test_systemd_security_exposure_of_unit_is_at_most_its_threshold(
    unit: Path, tmp_path: Path
) -> None:
    done = analyzed(
        "security", "--offline=yes", f"--threshold={EXPOSURE[unit]}", "--no-pager", unit,
        runtime=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.splitlines()[-1]


@posix
def test_nightly_backup_has_the_kept_jobs_and_deletes_backups_of_more_than_two_weeks(
    tmp_path: Path,
) -> None:
    """As root would run it; here the user and the places are this test's."""
    folder, programs = tmp_path / "state", tmp_path / "bin"
    programs.mkdir()
    command = shlex.join([sys.executable, "-m", "sidecar.main"])
    for name, does in {
        "runuser": 'shift 3; exec "$@"',
        "chown": "",
        "asr": f'{command} "$@"',
    }.items():
        new_file(programs / name, f"#!/bin/sh\n{does}\n", 0o755)
    text = BACKUP.read_text("utf-8").replace("/var/lib/vibevoice-asr", str(folder))
    text = text.replace("/opt/vibevoice-asr/bin/vibevoice-asr", str(programs / "asr"))
    script = new_file(tmp_path / "backup", text, 0o755)
    paths = {"PATH": f"{programs}:{os.environ['PATH']}"}
    if found := os.environ.get("PYTHONPATH"):
        paths["PYTHONPATH"] = found

    def backed_up() -> list[str]:
        done = told_by([str(script)], env=paths, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return sorted(path.name for path in folder.glob("backups/*"))

    assert backed_up() == [], "no jobs are kept"
    with Server(folder, keep_jobs=1, data_dir=folder, journal_key="0123456789abcdef" * 4) as server:
        job = server.submit(wav(bytes(32_000)))
        server.wait_state(job, "done")
        (today,) = backed_up()
        old, recent = (folder / f"backups/jobs-{name}.tar" for name in ("old", "recent"))
        for path, days in ((old, 20), (recent, 5)):
            path.touch()
            os.utime(path, (at := path.stat().st_mtime - days * 86_400, at))
        assert backed_up() == [today, recent.name]
    with tarfile.open(folder / "backups" / today) as backup:
        assert backup.getnames()


def test_cluster_drop_in_restarts_service_after_exit_for_invalid_settings(tmp_path: Path) -> None:
    check_understood(placed(SYSTEM, tmp_path / "units", CLUSTER.name), tmp_path)
    reset, *prevented = re.findall(
        r"(?m)^RestartPreventExitStatus=(.*)$", CLUSTER.read_text("utf-8")
    )
    (before,) = lines_of(SYSTEM, "RestartPreventExitStatus")
    assert reset == "", "a list without it would be added to the unit's"
    left = set(before.split()) - set(prevented[0].split())
    assert left == {str(EXIT_CODES["settings_invalid"])}


@pytest.mark.parametrize("unit", [SYSTEM, USER], ids=["system", "user"])
def test_unit_restart_exit_codes_settings_and_stop_timeout_match_service(unit: Path) -> None:
    (prevented,) = lines_of(unit, "RestartPreventExitStatus")
    assert set(map(int, prevented.split())) == set(EXIT_CODES.values()) - {
        EXIT_CODES["port_in_use"]
    }
    known = {flag.env for flag in describe()}
    named = {line.split("=")[0] for line in lines_of(unit, "Environment")}
    assert {name for name in named if name.startswith(ENV_PREFIX)} <= known
    (patience,) = lines_of(unit, "TimeoutStopSec")
    assert int(patience) > Settings.model_fields["shutdown_grace"].default + 10
    assert lines_of(unit, "KillMode") == ["mixed"], "engines are told by the service"


def test_env_example_has_every_setting_commented_out_at_its_default(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DEPLOY / "env.example").read_text("utf-8")
    assert not re.search(r"(?m)^[^#\n]", text), "nothing is set as it stands"
    said = dict(re.findall(rf"(?m)^#({ENV_PREFIX}\w+)=(.*)$", text))
    assert list(said) == [flag.env for flag in describe()]
    defaults = load_settings()
    assert said.pop(f"{ENV_PREFIX}CONFIG") == "", "the machine's own file is as good as none"
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == defaults
