"""Known holes in what is installed, by pip-audit; loud where its source is out of reach."""

from __future__ import annotations

import json
import subprocess
import sys

TIMEOUT_S = 120


def main() -> int:
    """0: none known, or nobody to ask; 1: there are."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    try:
        run = subprocess.run(
            [*command, "--skip-editable"], capture_output=True, text=True, timeout=TIMEOUT_S
        )
        packages = json.loads(run.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        packages = []
    looked_at = [package for package in packages if "skip_reason" not in package]
    if not looked_at:
        print("SKIPPED: pip-audit reaches no source of known holes here.", file=sys.stderr)
        return 0
    holes = [
        f"{package['name']} {package['version']}: {hole['id']}, fixed in {hole['fix_versions']}"
        for package in looked_at
        for hole in package["vulns"]
    ]
    print(*holes, sep="\n", file=sys.stderr)
    print(f"{len(looked_at)} packages looked at, {len(holes)} known holes", file=sys.stderr)
    return int(bool(holes))


if __name__ == "__main__":
    sys.exit(main())
