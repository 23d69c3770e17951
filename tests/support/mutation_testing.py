"""Whether the tests notice faults: small ones, put one at a time into a module of a copy.

``python -m tests.support.mutation_testing jobs/log access/auth --most 60``; without names, all of
`TESTS`. A share of the possible faults is enough for a score; they are chosen evenly over the
module. A fault that no test notices is shown with its line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUICK = "-x -q -p no:cacheprovider"
TESTS = {
    "auth/authentication": "tests/api/test_auth_gate.py",
    "auth/identity": "tests/auth/test_identity.py",
    "cluster/claim_loop": "tests/cluster/test_claim_loop.py tests/cluster/test_eligibility.py",
    "cluster/claims": "tests/cluster/test_claim_loop.py "
    "tests/cluster/test_claim_reports.py "
    "tests/cluster/test_claims_contract.py "
    "tests/cluster/test_claims.py",
    "cluster/front_queue": "tests/cluster/test_front_queue.py",
    "cluster/job_follower": "tests/cluster/test_job_follower.py",
    "cluster/membership": "tests/cluster/test_membership.py",
    "cluster/postgres_jobs": "tests/jobs/test_job_store.py tests/cluster/test_postgres_jobs.py",
    "cluster/shared_retention": "tests/cluster/test_shared_retention.py",
    "conversation/assistant": "tests/conversation/test_state_machine.py "
    "tests/conversation/test_generated_conversations.py",
    "conversation/assistant_turn": "tests/conversation/test_state_machine.py "
    "tests/conversation/test_generated_conversations.py",
    "conversation/barge_in": "tests/conversation/test_conversation_rules.py "
    "tests/conversation/test_state_machine.py",
    "conversation/chat_history": "tests/conversation/test_conversation_rules.py "
    "tests/conversation/test_state_machine.py "
    "tests/conversation/test_generated_conversations.py",
    "conversation/end_of_turn": "tests/conversation/test_conversation_rules.py "
    "tests/conversation/test_state_machine.py "
    "tests/conversation/test_generated_conversations.py",
    "conversation/audio_pacing": "tests/conversation/test_audio_pacing.py",
    "conversation/state_machine": "tests/conversation/test_state_machine.py "
    "tests/conversation/test_generated_conversations.py",
    "conversation/tts_text": "tests/conversation/test_tts_text.py",
    "conversation/turn_taking": "tests/conversation/test_state_machine.py "
    "tests/conversation/test_generated_conversations.py",
    "jobs/duration_prediction": "tests/jobs/test_duration_prediction.py",
    "jobs/job_event_log": "tests/jobs/test_job_event_log.py",
    "jobs/job_queue": "tests/jobs/test_job_queue.py tests/jobs/test_batched_jobs.py",
    "jobs/job_record": "tests/jobs/test_job_record.py",
    "jobs/job_runner": "tests/jobs/test_job_queue.py tests/jobs/test_batched_jobs.py",
    "jobs/job_store": "tests/jobs/test_job_store.py",
    "jobs/retention": "tests/jobs/test_retention.py",
    "jobs/scheduler": "tests/jobs/test_scheduler.py",
    "jobs/wait_queue": "tests/jobs/test_wait_queue.py",
    "live/runtime/endpointing": "tests/live/test_endpointing.py",
    "live/runtime/partial_results": "tests/live/test_partial_results.py "
    "tests/live/test_stream_recognizer.py "
    "tests/live/test_segment_embeddings.py",
    "live/runtime/stream_recognizer": "tests/live/test_stream_recognizer.py "
    "tests/live/test_segment_embeddings.py",
    "live/runtime/vad": "tests/live/test_vad.py",
    "live/sessions/event_log": "tests/live/test_event_log.py",
    "live/sessions/input_log": "tests/live/test_replay_buffer.py",
    "workers/channel": "tests/workers/test_channel.py tests/workers/test_rpc_calls.py",
    "workers/engine_slot": "tests/workers/test_engine_slot.py "
    "tests/workers/test_shared_slot.py "
    "tests/workers/test_concurrent_slot.py",
    "workers/engine_loading": "tests/workers/test_engine_slot.py tests/workers/test_shared_slot.py",
    "workers/rpc_client": "tests/workers/test_rpc_calls.py",
    "workers/worker_process": "tests/jobs/test_hung_engine.py "
    "tests/workers/test_shared_slot.py "
    "tests/workers/test_rpc_calls.py "
    "tests/workers/test_worker_process.py",
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
