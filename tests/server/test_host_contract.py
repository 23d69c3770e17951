"""What hosts rely on at the start and at /health, held against tests/golden/contract.json.

A key that goes, or changes its type, is a new version of the contract; a new key is written into
the golden file, so that it is a promise from then on.
"""

import asyncio
import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hosted_service import PORT_PATIENCE, Start
from service_process import (
    PATIENCE_S,
    REPOSITORY,
    counting_listener,
    free_port,
    wait_until,
    web,
)
from tiny_vibevoice import skip_without

from sidecar.cli.output import EXIT_CODES
from sidecar.engines import engine_spec
from sidecar.server.service_process import wait_for_exit
from sidecar.version import CONTRACT

GOLDEN = json.loads((REPOSITORY / "tests/golden/contract.json").read_text("utf-8"))


def type_of(value: object) -> str:
    """The JSON type, as the golden file names it."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def differences(body: dict[str, Any], golden: dict[str, str]) -> list[str]:
    """Keys that are missing, new, or of another type."""
    found = [f"{key} is missing" for key in golden.keys() - body.keys()]
    found += [f"{key} is not in the golden file" for key in body.keys() - golden.keys()]
    for key in golden.keys() & body.keys():
        if type_of(body[key]) not in golden[key].split("|"):
            found.append(f"{key} is {type_of(body[key])}, not {golden[key]}")
    return sorted(found)


def test_golden_file_has_version_and_exit_codes_of_contract() -> None:
    assert GOLDEN["contract"] == CONTRACT
    assert GOLDEN["exit_codes"] == EXIT_CODES


def test_ready_line_has_golden_keys_and_token_only_if_generated(start: Start) -> None:
    made, plain = start("--port", "0", "--generate-token"), start("--port", "0")
    for started, golden in ((made, GOLDEN["ready_with_token"]), (plain, GOLDEN["ready"])):
        line = started.line()
        assert differences(line, golden) == []
        assert line["event"] == "ready"
        assert line["contract"] == CONTRACT
        assert line["pid"] == started.process.pid
        assert line["url"] == f"http://127.0.0.1:{line['port']}"
        health = web.get(f"{line['url']}/health").json()
        told = ("version", "contract", "pid")
        assert [health[key] for key in told] == [line[key] for key in told]


def test_start_with_reuse_prints_ready_line_of_running_service_and_exits_with_0(
    start: Start,
) -> None:
    ready = start("--port", "0").line()
    second = start("--port", str(ready["port"]), "--if-port-taken", "reuse", **PORT_PATIENCE)
    line = second.line()
    assert differences(line, GOLDEN["ready_of_another"]) == []
    assert line == {**ready, "reused": True}
    assert second.ended()[:2] == (0, b"")
    assert web.get(f"{ready['url']}/health").json()["pid"] == ready["pid"]


@pytest.mark.slow_except("the port is in use", "the checkpoint is missing")
@pytest.mark.parametrize("cause", GOLDEN["fatal_causes"])
def test_failed_start_prints_one_fatal_line_with_exit_code(start: Start, cause: str) -> None:
    if cause == "the checkpoint is missing":  # only noticed once the packages are there
        skip_without("vibevoice", *engine_spec("vibevoice").requires)
    expected = GOLDEN["fatal_causes"][cause]
    with counting_listener() as (taken, _):
        settings: dict[str, object] = {
            "the port is in use": {"port": taken},
            "a setting is not possible": {"keep_alive": "soon"},
            "the checkpoint is missing": {"engine": "vibevoice"},
            "a checkpoint was named that is not there": {
                "engine": "auto",
                "model_path": "/no/such",
            },
            "a network address without a token": {"host": "0.0.0.0"},
        }[cause]
        started = start(**{"port": 0, **settings})
        line = started.refused(**expected)
        assert differences(line, GOLDEN["fatal"]) == []
        assert line["contract"] == CONTRACT
        assert line["message"]
        assert line["hint"]
        assert line["message"] in started.log


def test_invalid_command_line_has_exit_code_2(start: Start) -> None:
    assert start("--no-such-flag").ended()[0] == GOLDEN["exit_code_of_usage"]


@pytest.mark.slow_except("SIGHUP", "SIGTERM", "stdin")
@pytest.mark.parametrize(
    "end",
    [
        pytest.param(end, marks=[] if end == "stdin" else pytest.mark.posix("signals"))
        for end in GOLDEN["ends"]
    ],
)
def test_requested_stop_has_golden_exit_code_and_logs_no_warning(
    start: Start, voice: bytes, end: str
) -> None:
    # an address of its own: clients of others may still come to a port of 127.0.0.1
    own = ("--host", "127.0.0.2") if sys.platform == "linux" else ()
    started = start("--port", "0", "--exit-with-stdin", *own)
    url = started.line()["url"]
    web.post(f"{url}/transcribe", files={"audio": voice}).raise_for_status()
    started.end_input() if end == "stdin" else started.process.send_signal(getattr(signal, end))
    exit_code, out, log = started.ended()
    assert (exit_code, out) == (GOLDEN["ends"][end], b""), "nothing follows the ready line"
    assert " - INFO - serving on " in log
    assert not re.findall(r"(?m)^.*(?:WARNING|ERROR|Traceback).*$", log)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"precison": "fp16"}, ["VIBEVOICE_PRECISON", "VIBEVOICE_PRECISION?"]),
        ({"precision": "bf16"}, ["has no bf16; fp32 is used"]),
    ],
    ids=["unknown variable", "precision that the engine lacks"],
)
def test_setting_without_effect_is_logged_as_warning_at_start(
    start: Start, settings: dict[str, str], parts: list[str]
) -> None:
    started = start("--port", "0", "--exit-with-stdin", **settings)
    health = web.get(f"{started.line()['url']}/health").json()
    wanted = settings.get("precision", "auto")
    assert (health["requested_precision"], health["precision"]) == (wanted, "fp32")
    started.end_input()
    (line,) = [line for line in started.ended()[2].splitlines() if "WARNING" in line]
    assert all(part in line for part in parts)


def test_health_has_golden_keys_before_and_after_load_of_engine(start: Start, voice: bytes) -> None:
    url = start("--port", "0").line()["url"]
    assert differences(web.get(f"{url}/health").json(), GOLDEN["health"]) == []
    sent = web.post(f"{url}/transcribe", files={"audio": voice})
    assert sent.status_code == 200
    loaded = web.get(f"{url}/health").json()
    assert loaded["model_loaded"] is True
    assert differences(loaded, GOLDEN["health"]) == []


def test_golden_health_has_fields_that_old_host_parses() -> None:
    demanded = {
        "status": "string",
        "model_loaded": "boolean",
        "gpu_available": "boolean",
        "vram_used_mb": "integer|null",
        "vram_total_mb": "integer|null",
    }
    assert demanded.items() <= GOLDEN["health"].items()


def test_connection_is_refused_while_service_still_imports(start: Start, tmp_path: Path) -> None:
    """It tries a refused connection again for 30 s, and gives up at a /health of more than 3 s."""
    slow, imports, end = tmp_path / "slow", tmp_path / "imports", tmp_path / "end"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'uvicorn':\n"
        f"            open({str(imports)!r}, 'w').close()\n"
        f"            while not os.path.exists({str(end)!r}): time.sleep(0.01)\n"
        "sys.meta_path.insert(0, Slow())\n",
        "utf-8",
    )
    port = free_port()
    start(port=port, env={"PYTHONPATH": str(slow), "TRISPR_DEV_BUILD": "0"})

    def answers() -> bool:
        try:
            return web.get(f"http://127.0.0.1:{port}/health").is_success
        except httpx.ConnectError:
            return False

    wait_until(imports.exists, "it imports")
    assert not answers()
    end.touch()
    wait_until(answers, "it answers")


@pytest.mark.parametrize(
    "lacking", ["nothing", "os.pidfd_open", "its state", "any descriptor, once"]
)
def test_host_is_watched_to_its_end_without_a_descriptor_of_it_or_the_right_to_read_its_state(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: psutil.Process) -> str:  # as Windows does, for a process of more rights
        raise psutil.AccessDenied

    class FirstWithout(psutil.Process):
        """No descriptor is left at the first look."""

        looks = 0

        def __init__(self, pid: int) -> None:
            FirstWithout.looks += 1
            if FirstWithout.looks == 1:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            super().__init__(pid)

    if lacking == "its state":
        monkeypatch.setattr(psutil.Process, "status", denied)
    if lacking == "any descriptor, once":
        monkeypatch.setattr("psutil.Process", FirstWithout)
    if lacking != "nothing":
        monkeypatch.delattr("os.pidfd_open", raising=False)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as host:

        async def watch() -> None:
            watching = asyncio.create_task(wait_for_exit(host.pid))
            await asyncio.sleep(0)
            assert not watching.done(), "it runs"
            host.communicate()
            await asyncio.wait_for(watching, PATIENCE_S)

        asyncio.run(watch())
