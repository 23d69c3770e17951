"""The workflows: what they run on every push, and that nothing in them can move by itself."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from not_tested import missing
from service_process import Server, new_file, told_by

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))

TARGETS = ("run", "lint", "test", "test-all", "test-clients", "audit", "locks", "bench", "exe-gpu",
           "release")  # fmt: skip

yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra 'grpc'")


def workflow(name: str) -> dict[str, Any]:
    text = (ROOT / f".github/workflows/{name}.yml").read_text("utf-8")
    found: dict[str, Any] = yaml.load(text, yaml.BaseLoader)  # 'on' is a key, no truth
    return found


def prerequisites(target: str) -> list[str]:
    (line,) = re.findall(rf"(?m)^{target.split()[0]}:([^#\n]*)", MAKEFILE)
    return [word for word in line.split() if not word.startswith("$")]


def test_lint_types_tests_audit_and_stress_run_on_push_and_pull_request() -> None:
    check = workflow("check")
    assert {"push", "pull_request"} <= set(check["on"])
    assert not check["on"]["push"], "of every branch"
    (job,) = check["jobs"].values()
    rows = job["strategy"]["matrix"]["include"]
    run = {row["target"] for row in rows}
    here = re.findall(r"(?m)^ *make (.+)$", (ROOT / ".ci/run").read_text("utf-8"))
    wanted = {part for target in here for part in prerequisites(target) or [target]}
    tests = {"test-all", "test-standalone", "test-windows FAST=1", "test-stress SHARED=1"}
    assert run == wanted == {"style", "types", "workflows", "audit", *tests}
    assert any(step.get("run") == "make ${{ matrix.target }}" for step in job["steps"])


@pytest.mark.skipif(shutil.which("make") is None, reason=missing("make", "make"))
def test_third_party_clients_run_pinned_on_push_and_newest_weekly() -> None:
    clients = workflow("clients")
    assert {"push", "pull_request", "schedule"} <= set(clients["on"])
    (job,) = clients["jobs"].values()
    (step,) = (step for step in job["steps"] if "run" in step)
    assert step["run"] == "make test-clients"
    assert step["env"]["NEWEST"] == "${{ github.event_name == 'schedule' && '1' || '' }}"
    newest, pinned = (
        told_by(["make", "-n", "test-clients", f"NEWEST={flag}"], cwd=ROOT, check=True).stdout
        for flag in ("1", "")
    )
    assert "s/==.*//" in newest
    assert "s/==.*//" not in pinned
    pins = (ROOT / "tests/third_party/requirements.txt").read_text("utf-8")
    assert all("==" in line for line in pins.splitlines() if not line.startswith("#"))


@pytest.mark.skipif(shutil.which("make") is None, reason=missing("make", "make"))
@pytest.mark.parametrize("target", TARGETS)
def test_make_targets_of_developers_exist(target: str) -> None:
    done = told_by(["make", "-n", target], cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_with_version(path: Path) -> None:
    uses = re.findall(r"(?m)^\s*-?\s*uses:\s*(.+)$", path.read_text("utf-8"))
    assert uses
    for one in uses:
        assert re.fullmatch(r"[\w-]+/[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", one), one


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_pip_install_in_workflow_requires_hashes_or_fetches_nothing(path: Path) -> None:
    installs = re.findall(r"pip install (.+)", path.read_text("utf-8"))
    for one in installs:
        assert "--require-hashes" in one or "--no-deps --no-build-isolation" in one, one


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason=missing("go", "golang-go"))
def test_lint_of_workflows_passes_and_a_key_that_does_not_exist_fails_it(tmp_path: Path) -> None:
    lint = shlex.split(re.findall(r"(?m)^\t(go run \S+actionlint\S+)$", MAKEFILE)[0])
    assert told_by([*lint, *map(str, WORKFLOWS)], cwd=ROOT).stdout == ""
    wrong = WORKFLOWS[0].read_text("utf-8").replace("runs-on:", "run-on:", 1)
    assert "run-on" in told_by([*lint, str(new_file(tmp_path / "wrong.yml", wrong))]).stdout


def test_addresses_that_workflows_ask_exist(server: Server) -> None:
    """And whether they need a token does not matter here: there is none."""
    texts = [path.read_text("utf-8") for path in WORKFLOWS]
    asked = {path for text in texts for path in re.findall(r"//127\.0\.0\.1:\d+(/[\w./-]*)", text)}
    assert "/health" in asked
    assert {path for path in asked if server.client.get(path).status_code != 200} == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_has_read_permission_only(path: Path) -> None:
    assert workflow(path.stem)["permissions"] == {"contents": "read"}
