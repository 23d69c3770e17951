"""Files of tests that are collected when they are run: none is left out, none fails unseen."""

import sys
from pathlib import Path

import pytest
from inner_pytest import inner_environment
from late_files import shared_by
from service_process import new_file, told_by

SUPPORT = Path(__file__).parents[1] / "support"
FILES = {
    "pytest.ini": f"[pytest]\ntestpaths = .\npythonpath = {SUPPORT}\n",
    "conftest.py": "import late_files\n\ndef pytest_configure(config):\n"
    "    late_files.register(config)\n",
    "test_cases.py": "import pytest\n\n@pytest.mark.parametrize('case', range(3))\n"
    "def test_case(case):\n    assert case != 1\n",
    "test_broken.py": "raise RuntimeError('it cannot be imported')\n",
    "one/test_fast.py": "def test_it():\n    pass\n",
    "one/test_slow.py": "import pytest\n\n@pytest.mark.slow\ndef test_it():\n    pass\n",
    "two/test_last.py": "def test_it():\n    pass\n",
    "test_torch.py": "import os\n\nif False:\n    import torch\n\n"
    "def test_it():\n    assert 'PYTEST_XDIST_WORKER' in os.environ\n",
}


@pytest.mark.parametrize(
    ("line", "shared"),
    [
        ("    import torch", "torch"),
        ("from memory_simulation import Peaks", "torch"),
        ('torch = pytest.importorskip("torch")', "torch"),
        ("def test_page(visitor: Visitor) -> None:", "Chromium"),
        ("def _prepared(browser: Visitor) -> None:", "Chromium"),
        ("    journal: str, sounds: dict[str, bytes]", "PostgreSQL"),
        ("import torchlike", ""),
    ],
)
def test_test_file_with_slow_import_or_fixture_is_recognized_from_its_text(
    line: str, shared: str
) -> None:
    assert shared_by(f"import json\n{line}\n") == shared


@pytest.mark.slow
def test_test_files_collected_late_run_all_tests_and_report_failed_imports(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        new_file(tmp_path / name, text)
    command = [sys.executable, "-m", "pytest", "-n", "1", "--dist", "loadfile", "-m", "not slow"]
    done = told_by([*command, "-p", "no:cacheprovider"], cwd=tmp_path, env=inner_environment())
    assert done.returncode == 1
    assert "1 failed, 5 passed" in done.stdout
    assert "1 error" in done.stdout
    for said in ("test_cases.py::test_case[1]", "it cannot be imported"):
        assert said in done.stdout
