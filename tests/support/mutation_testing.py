"""Whether the tests notice faults: small ones, put one at a time into a module of a copy.

``python -m tests.support.mutation_testing jobs/job_store auth/identity --most 60``. A module is
tested by the fast tests of the files that import it, or by all of its package. A share of the
possible faults is enough for a score; they are chosen evenly over the module. A fault that no test
notices is shown with its line.
"""

import argparse
import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUICK = "-x -q -p no:cacheprovider -m 'not slow'"
SLOWER = 5
"""A fault that makes the tests run for so many times as long was noticed."""


def main() -> None:
    """Print the score of each module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="+")
    parser.add_argument("--most", type=int, default=60, help="faults for each module")
    given = parser.parse_args()
    copy = ROOT / "build/mutants"
    shutil.rmtree(copy, ignore_errors=True)
    for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    for module in given.modules:
        print(score(copy, module, given.most), flush=True)


def tests_of(module: str) -> list[str]:
    """The files of tests that import a module or have its name, these first; or those of its
    package."""
    dotted = re.escape(f"sidecar.{module.replace('/', '.')}")
    above, _, name = dotted.rpartition(r"\.")
    names = re.compile(rf"{dotted}\b|from {above} import (\([^)]*|.*)\b{name}\b")
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    own = re.compile(rf"test_{name}(_|$)").match  # which may use it by a helper
    found = [one for one in files if own(one.stem) or names.search(one.read_text("utf-8"))]
    found = found or sorted((ROOT / "tests" / module.partition("/")[0]).rglob("test_*.py"))
    if not found:
        sys.exit(f"no test imports {module}")
    found.sort(key=lambda one: not own(one.stem))  # most notice there: sooner
    return [str(one.relative_to(ROOT)) for one in found]


def score(copy: Path, module: str, most: int) -> str:
    """How many of the faults in ``module`` were noticed; those that were not follow."""
    name = module.replace("/", "-")
    config, session = copy / f"{name}.toml", copy / f"{name}.sqlite"
    command = f"{sys.executable} -m pytest {QUICK} {' '.join(tests_of(module))}"
    started = time.monotonic()  # real time: the bound grows with the load
    subprocess.run(shlex.split(command), cwd=copy, check=True)
    longest_s = SLOWER * (time.monotonic() - started)  # real time: as above
    config.write_text(
        f'[cosmic-ray]\nmodule-path = "sidecar/{module}.py"\ntimeout = {longest_s:.0f}\n'
        f'test-command = "{command}"\n[cosmic-ray.distributor]\nname = "local"\n',
        "utf-8",
    )
    tool = [sys.executable, "-m", "cosmic_ray.cli"]
    subprocess.run([*tool, "init", config.name, session.name], cwd=copy, check=True)
    thin_out(session, most)
    subprocess.run([*tool, "exec", config.name, session.name], cwd=copy, check=True)
    dump = subprocess.check_output([*tool, "dump", session.name], cwd=copy, text=True)
    noticed, survived = 0, []
    for line in dump.splitlines():
        item, result = json.loads(line)
        if result and result["test_outcome"] == "survived":
            where = item["mutations"][0]
            survived.append(f"  line {where['start_pos'][0]}: {where['operator_name']}")
        elif result:
            noticed += 1
    of = noticed + len(survived)
    return "\n".join([f"{module}: {noticed} of {of} ({100 * noticed // max(1, of)} %)", *survived])


def thin_out(session: Path, most: int) -> None:
    """Leave ``most`` of the faults, evenly spread over the module; none in types."""
    with sqlite3.connect(session) as database:
        faults = database.execute(
            "SELECT job_id FROM mutation_specs WHERE operator_name NOT LIKE '%BitOr%'"
            " ORDER BY start_pos_row, start_pos_col, operator_name"
        ).fetchall()
        step = max(1.0, len(faults) / most)
        left = {faults[int(at * step)][0] for at in range(min(most, len(faults)))}
        for table in ("mutation_specs", "work_items"):
            (ids,) = [database.execute(f"SELECT job_id FROM {table}").fetchall()]
            gone = [(one,) for (one,) in ids if one not in left]
            database.executemany(f"DELETE FROM {table} WHERE job_id = ?", gone)


if __name__ == "__main__":
    main()
