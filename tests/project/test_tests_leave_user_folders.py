"""That tests leave alone the data of whoever runs them, and are not blamed for another's writes."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from service_process import told_by
from user_folders import NAMES, Guard

pytestmark = pytest.mark.skipif(os.name == "nt", reason="folders of POSIX")
SERVICE = [sys.executable, "-m", "sidecar.main", "serve"]
GUARDED = """
import subprocess, sys
from pathlib import Path
from user_folders import watch

watch()
exec(sys.argv[1])
"""


def run_guarded(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key not in NAMES}
    return told_by(
        [sys.executable, "-c", GUARDED, code],
        cwd=Path(__file__).parents[1] / "support",
        env={**env, "HOME": str(home)},
    )


@pytest.mark.parametrize(
    "code",
    [
        "(FOLDER / 'other').mkdir(parents=True)",
        "(Path.home() / '.local/state/vibevoice-asr').mkdir(parents=True)",
        "open(FOLDER / 'other', 'w')",
        "import sqlite3; sqlite3.connect(FOLDER / 'jobs.db')",
        "subprocess.run([sys.executable, '-m', 'sidecar.main', '--version'])",
        "subprocess.run(['vibevoice-asr', '--version'], env={})",
        "import os; subprocess.run(['vibevoice-asr'], env={**os.environ, 'XDG_DATA_HOME': '/x'})",
        "(FOLDER / 'key').unlink()",
        "(FOLDER / 'key').rename(FOLDER.parent / 'key')",
        "(FOLDER.parent / 'other').replace(FOLDER / 'key')",
        "(FOLDER / 'jobs').rmdir()",
        "__import__('shutil').rmtree(FOLDER)",
        "__import__('os').truncate(FOLDER / 'key', 0)",
        "import sqlite3; sqlite3.connect(f'file:{FOLDER}/key?mode=rw', uri=True)",
    ],
)
def test_guard_stops_write_delete_or_start_of_service_in_user_folders_before_it_happens(
    code: str, tmp_path: Path
) -> None:
    folder = tmp_path / ".local/share/vibevoice-asr"
    (folder / "jobs").mkdir(parents=True)
    (folder / "key").write_text("mine", "utf-8")
    (folder.parent / "other").write_text("a test's", "utf-8")
    before = sorted(tmp_path.rglob("*"))
    done = run_guarded(f"FOLDER = Path({str(folder)!r}); {code}", tmp_path)
    assert done.returncode == 1
    assert "AssertionError: a test" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert (folder / "key").read_text("utf-8") == "mine"


def test_guard_ignores_writes_of_other_processes(tmp_path: Path) -> None:
    code = """
folder = Path.home() / ".local/share/vibevoice-asr"
subprocess.run(["mkdir", "-p", folder / "jobs"], check=True, env={"PATH": "/usr/bin:/bin"})
print([one.name for one in folder.iterdir()])
"""
    done = run_guarded(code, tmp_path)
    assert (done.returncode, done.stdout) == (0, "['jobs']\n"), done.stderr


def test_guard_allows_service_with_own_folders_and_refuses_one_with_inherited_data_folder(
    tmp_path: Path,
) -> None:
    guard = Guard({"XDG_DATA_HOME": "/data"}, Path("/home/anna"), [Path("/data/vibevoice-asr")])
    own = dict.fromkeys(NAMES, str(tmp_path))
    guard("subprocess.Popen", ("python", SERVICE, None, own))
    guard("subprocess.Popen", ("python", SERVICE, None, {"HOME": str(tmp_path)}))
    worker = ["python", "-P", "-m", "sidecar.workers.worker_main"]
    guard("subprocess.Popen", ("python", worker, None, {"HOME": "/home/anna"}))
    inherited = {"HOME": str(tmp_path), "XDG_DATA_HOME": "/data"}
    with pytest.raises(AssertionError, match="XDG_DATA_HOME"):
        guard("subprocess.Popen", ("python", SERVICE, None, inherited))
    sqlite3.connect(tmp_path / "jobs.db").close()
