"""Known vulnerabilities in what is installed and in what is locked, by pip-audit; loud where its
source is out of reach, and a failure there if `AUDIT_REQUIRED` is set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TIMEOUT_S = 120
LOCKS = Path(__file__).parents[1] / "packaging/locks"


def audited(*words: str) -> list[dict[str, Any]]:
    """The packages that pip-audit has looked up; none where it reaches no source."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    try:
        run = subprocess.run([*command, *words], capture_output=True, text=True, timeout=TIMEOUT_S)
        packages = json.loads(run.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return []
    return [package for package in packages if "skip_reason" not in package]


def main() -> int:
    """0: none known, or nobody to ask; 1: there are, or nobody to ask where that is required."""
    subjects = {"installed": ["--skip-editable"]}
    for lock in sorted(LOCKS.glob("*.txt")):
        subjects[lock.name] = ["--requirement", str(lock), "--require-hashes", "--disable-pip"]
    failed = False
    for subject, words in subjects.items():
        packages = audited(*words)
        if not packages:
            print(f"SKIPPED {subject}: pip-audit reaches no source.", file=sys.stderr)
            failed |= bool(os.environ.get("AUDIT_REQUIRED"))
            continue
        holes = [
            f"{package['name']} {package['version']}: {hole['id']}, fixed in {hole['fix_versions']}"
            for package in packages
            for hole in package["vulns"]
        ]
        print(*holes, sep="\n", file=sys.stderr)
        print(f"{subject}: {len(packages)} packages, {len(holes)} known", file=sys.stderr)
        failed |= bool(holes)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
