"""Whether the tests notice faults: small ones, put one at a time into a module of a copy.

``python -m tests.mutants jobs/log access/auth --most 60``; without names, all of `TESTS`. A share
of the possible faults is enough for a score; they are chosen evenly over the module. A fault that
no test notices is shown with its line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUICK = "-x -q -p no:cacheprovider"
TESTS = {
    "access/auth": "tests/transports/test_gate.py",
    "access/identity": "tests/access/test_identity.py",
    "cluster/claimed_job": "tests/cluster/test_node.py tests/cluster/test_reporting.py",
    "cluster/claims": "tests/cluster/test_claims_contract.py tests/cluster/test_claims.py",
    "cluster/eligibility": "tests/cluster/test_eligibility.py",
    "cluster/following": "tests/cluster/test_follower.py",
    "cluster/front": "tests/cluster/test_front.py",
    "cluster/held": "tests/cluster/test_node.py",
    "cluster/housekeeping": "tests/cluster/test_housekeeping.py",
    "cluster/judging": "tests/cluster/test_node.py",
    "cluster/membership": "tests/cluster/test_membership.py",
    "cluster/node": "tests/cluster/test_node.py",
    "cluster/postgres_jobs": "tests/jobs/test_job_store.py tests/cluster/test_postgres_jobs.py",
    "cluster/reporting": "tests/cluster/test_reporting.py",
    "jobs/job": "tests/jobs/test_job_queue.py tests/jobs/test_companies.py",
    "jobs/queue": "tests/jobs/test_following.py tests/jobs/test_job_queue.py "
    "tests/jobs/test_companies.py",
    "jobs/lineup": "tests/jobs/test_lineup.py",
    "jobs/order": "tests/jobs/test_order.py",
    "jobs/pace": "tests/jobs/test_pace.py",
    "jobs/runner": "tests/jobs/test_following.py tests/jobs/test_job_queue.py "
    "tests/jobs/test_companies.py",
    "jobs/feed": "tests/jobs/test_log.py",
    "jobs/record": "tests/jobs/test_record.py",
    "jobs/retention": "tests/jobs/test_retention.py",
    "jobs/log": "tests/jobs/test_log.py",
    "jobs/local": "tests/jobs/test_job_store.py",
    "live/agreement": "tests/live/test_agreement.py",
    "live/detector": "tests/live/test_detector.py",
    "live/endpointing": "tests/live/test_endpointing.py",
    "live/hearing": "tests/live/test_hearing.py tests/live/test_voicing.py",
    "live/listening": "tests/live/test_hearing.py tests/live/test_voicing.py",
    "live/schedule": "tests/live/test_agreement.py",
    "sessions/sound": "tests/sessions/test_sound.py",
    "sessions/told": "tests/sessions/test_told.py tests/sessions/test_told_voices.py",
    "talk/answering": "tests/talk/test_talk_machine.py tests/talk/test_talk_conversations.py",
    "talk/echo": "tests/talk/test_talk_rules.py",
    "talk/floor": "tests/talk/test_talk_machine.py tests/talk/test_talk_conversations.py",
    "talk/history": "tests/talk/test_talk_rules.py tests/talk/test_talk_machine.py",
    "talk/interruption": "tests/talk/test_talk_rules.py tests/talk/test_talk_machine.py",
    "talk/machine": "tests/talk/test_talk_machine.py tests/talk/test_talk_conversations.py",
    "talk/markup": "tests/talk/test_talk_sentences.py",
    "talk/pacing": "tests/talk/test_talk_pacing.py",
    "talk/patience": "tests/talk/test_talk_rules.py",
    "talk/person": "tests/talk/test_talk_machine.py tests/talk/test_talk_conversations.py",
    "talk/reply": "tests/talk/test_talk_rules.py tests/talk/test_talk_conversations.py",
    "talk/sentences": "tests/talk/test_talk_sentences.py",
    "talk/turns": "tests/talk/test_talk_machine.py tests/talk/test_talk_conversations.py",
    "workers/channel": "tests/workers/test_channel.py",
    "workers/calls": "tests/workers/test_calls.py",
    "workers/credit": "tests/workers/test_calls.py",
    "workers/lifecycle": "tests/workers/test_slot.py tests/workers/test_shared.py",
    "workers/pulse": "tests/jobs/test_hung.py tests/workers/test_shared.py",
    "workers/slot": "tests/workers/test_slot.py",
    "workers/worker": "tests/workers/test_calls.py tests/workers/test_worker.py",
}
LONGEST_S = 150.0
"""A fault that makes the tests run for so long was noticed."""


def main() -> None:
    """Print the score of each module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=sorted(TESTS))
    parser.add_argument("--most", type=int, default=60, help="faults for each module")
    given = parser.parse_args()
    copy = ROOT / "build/mutants"
    shutil.rmtree(copy, ignore_errors=True)
    listed = ["git", "ls-files", "-z", "sidecar", "tests", "bench", "clients", "pyproject.toml"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    for module in given.modules:
        print(score(copy, module, given.most), flush=True)


def score(copy: Path, module: str, most: int) -> str:
    """How many of the faults in ``module`` were noticed; those that were not follow."""
    name = module.replace("/", "-")
    config, session = copy / f"{name}.toml", copy / f"{name}.sqlite"
    command = f"{sys.executable} -m pytest {QUICK} {TESTS[module]}"
    config.write_text(
        f'[cosmic-ray]\nmodule-path = "sidecar/{module}.py"\ntimeout = {LONGEST_S}\n'
        f'test-command = "{command}"\n[cosmic-ray.distributor]\nname = "local"\n'
    )
    tool = [sys.executable, "-m", "cosmic_ray.cli"]
    subprocess.run([*tool, "baseline", config.name], cwd=copy, check=True)
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
