"""What `make test` leaves out, and the kinds of tests, over all that this run has collected."""

import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from inner_pytest import inner_environment
from kinds_of_tests import INTEGRATION, LONGEST_FILES, SYSTEM, UNIT, Kinds, start_place
from many_cases import case_count
from service_process import new_file, told_by
from turns import files_of_tests

ROOT = Path(__file__).parents[2]
ONLY_SLOW = {
    "tests/api/test_captions_example.py": "an example's own page, in a browser",
    "tests/api/test_openapi_fuzz.py": "made-up requests by the hundred",
    "tests/plugins/shared_jobs/test_killed_shared_services.py": "chaos: services are killed",
    "tests/plugins/shared_jobs/test_shared_services_with_s3.py": "a database, a bucket, services",
    "tests/engines/whisper/test_whisper_base.py": "published weights, which are not ours",
    "tests/gpu_memory/test_memory_bench.py": "a measurement in processes of its own",
    "tests/plugins/test_streaming_model_by_every_protocol.py": "a service with a trained model",
    "tests/plugins/upstream/test_upstream_transformers.py": "a server of another project",
}
"""Modules of which `make test` runs nothing, with the reason."""


@pytest.fixture
def collected(request: pytest.FixtureRequest) -> list[pytest.Function]:
    """All tests of this run, those included that it leaves out."""
    kinds = request.config.pluginmanager.getplugin("kinds")
    assert isinstance(kinds, Kinds)
    return [item for item in kinds.collected if isinstance(item, pytest.Function)]


def of(item: pytest.Function) -> str:
    """The test without its variant."""
    return item.nodeid.partition("[")[0]


def test_make_test_runs_a_test_of_every_module_but_the_listed_slow_ones(
    collected: list[pytest.Function],
) -> None:
    files = {item.nodeid.partition("::")[0] for item in collected}
    quick = {
        item.nodeid.partition("::")[0] for item in collected if not item.get_closest_marker("slow")
    }
    assert files - quick == files & ONLY_SLOW.keys()


@pytest.mark.parametrize(
    ("marked", "marks", "left_out"),
    [
        ("pytest.mark.slow", "not slow", True),
        ("[pytest.mark.slow, pytest.mark.system]", "not slow", True),
        ("pytest.mark.slow", "", None),
        ('pytest.mark.slow_except("json")', "not slow", None),
    ],
)
def test_module_marked_slow_as_a_whole_is_not_imported_if_slow_tests_are_left_out(
    request: pytest.FixtureRequest, tmp_path: Path, marked: str, marks: str, left_out: bool | None
) -> None:
    module = new_file(tmp_path / "test_it.py", f"import pytest\npytestmark = {marked}\n")
    config = SimpleNamespace(option=SimpleNamespace(markexpr=marks))
    kinds = request.config.pluginmanager.getplugin("kinds")
    assert kinds.pytest_ignore_collect(module, config) is left_out


def test_make_test_leaves_out_at_most_one_test_in_ten(collected: list[pytest.Function]) -> None:
    files = {item.path for item in collected}
    if 2 * len(files) < len([*(ROOT / "tests").rglob("test_*.py")]):
        return  # a part of the tests: the next test has all
    slow = [item for item in collected if item.get_closest_marker("slow")]
    left_out, there = (sum(case_count(one.function) for one in each) for each in (slow, collected))
    assert left_out <= there / 10


@pytest.mark.slow
def test_rules_of_this_file_hold_over_all_tests() -> None:
    """Processes of pytest-xdist collect their part (`late_files`)."""
    rules = "leaves_out_at_most or of_every_module or match_variants or ids_of_tests or one_kind"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests", "-k", rules]
    done = told_by(command, cwd=ROOT, env=inner_environment())
    assert "5 passed" in done.stdout, done.stdout


def test_names_in_slow_except_match_variants(collected: list[pytest.Function]) -> None:
    variants = defaultdict(list)
    for item in collected:
        variants[of(item)].append(item)
    for test, items in variants.items():
        named = {
            name
            for item in items
            for marker in item.iter_markers("slow_except")
            if marker in item.own_markers  # one of a whole module names variants of some tests
            for name in marker.args
        }
        for name in named:
            assert any(name in item.name[len(item.originalname) :] for item in items), (test, name)


def test_ids_of_tests_are_unique(collected: list[pytest.Function]) -> None:
    ids = [item.nodeid for item in collected]
    assert len(set(ids)) == len(ids), "pytest-xdist runs one of those with the same"


def test_every_test_has_exactly_one_kind(collected: list[pytest.Function]) -> None:
    for item in collected:
        kinds = [kind for kind in (UNIT, INTEGRATION, SYSTEM) if item.get_closest_marker(kind)]
        assert len(kinds) == 1, item.nodeid


@pytest.mark.slow
def test_unit_test_fails_if_it_starts_a_process_but_not_for_a_thread_left_by_another_test(
    tmp_path: Path,
) -> None:
    (tmp_path / "conftest.py").write_text(
        "from kinds_of_tests import Kinds\n"
        "def pytest_configure(config):\n    config.pluginmanager.register(Kinds(), 'kinds')\n",
        "utf-8",
    )
    (tmp_path / "test_it.py").write_text(
        "import importlib, pytest, threading\n"
        "def test_it():\n    importlib.import_module('sub' + 'process').run(['true'])\n"
        "@pytest.mark.system\n"
        "def test_so_it_is_said():\n    importlib.import_module('sub' + 'process').run(['true'])\n"
        "begin, done = threading.Event(), threading.Event()\n"
        "def late():\n"
        "    begin.wait()\n    importlib.import_module('sqlite' + '3').connect(':memory:')\n"
        "    done.set()\n"
        "@pytest.mark.system\n"
        "def test_that_leaves_a_thread():\n"
        "    threading.Thread(target=late, daemon=True).start()\n"
        "def test_is_not_blamed_for_it():\n    begin.set()\n    assert done.wait(60)\n",
        "utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    words = ["-c", "pyproject.toml", "--rootdir", str(ROOT)]
    done = told_by([*command, *words], cwd=ROOT, env=inner_environment())
    assert "1 failed, 3 passed" in done.stdout
    assert "this unit test did ['subprocess.Popen']" in done.stdout


def test_tests_of_a_package_in_plugins_begin_after_the_longest_and_have_turns() -> None:
    file = ROOT / "plugins/vibevoice-asr-ggml/tests/test_same_ids.py"
    assert start_place(cast(pytest.Item, SimpleNamespace(path=file))) == len(LONGEST_FILES)
    assert file.relative_to(ROOT).as_posix() in files_of_tests()
