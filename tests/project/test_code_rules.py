"""The rules of the house that a tool can hold."""

import ast
import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import clock_dependence
import colliding_ids
import partial_apis
import pytest
import reached_internals
from many_cases import for_each
from not_tested import EXTRAS, missing

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path for path in (ROOT / "sidecar").rglob("*.py") if not path.stem.endswith("_pb2")
)
HEAVY = {
    *("numpy", "onnxruntime", "soundfile", "soxr", "moonshine_voice", "torch"),
    *("transformers", "rich", "httpx", "cryptography", "jwt", "grpc", "google"),
    *("prometheus_client", "opentelemetry.sdk", "yaml", "botocore"),
}


def test_import_of_service_imports_no_heavy_package() -> None:
    code = "import sys, sidecar.server.app, sidecar.server.http_app; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = result.stdout.split()
    assert not HEAVY & {*names, *(name.partition(".")[0] for name in names)}


STATEMENTS = (
    ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef,
    ast.Assign, ast.AnnAssign, ast.If, ast.Pass,
)  # fmt: skip
MAKE_VALUES = {
    "', '.join",
    *("float", "frozenset", "str", "tuple", "getattr", "range", "round", "casefold"),
    *("items", "values", "partition", "startswith", "resolve", "dict.fromkeys", "re.compile"),
    *("replace", "ceil"),
    *("logging.getLogger", "__subclasses__", "get_type_hints", "auto", "dataclass"),
    *("dataclasses.dataclass", "field", "dataclasses.field", "field_validator"),
    *("create_model", "model_json_schema", "setting", "setting_option", "option"),
    *("argument", "at_least", "word_set", "field_limits", "dataclass_transform"),
    # of the OpenAPI page
    *("text", "texts", "choice", "flag", "number", "integer", "content", "form"),
    *("parameters", "query", "header", "body", "limit_parameter", "submission"),
    *("person_form", "request_body"),
    *("object_schema", "schema_fields", "error_responses", "operation_schemas"),
    *("idempotency_key", "stt_metrics_json", "isinstance", "type"),
    *("get_args", "attrgetter", "fields", "make_dataclass"),
    # of the options of a request
    *("_row", "_alias", "_option", "_type_of", "request_option"),
    "limit",  # reads the variable by which tests change constants, and nothing else
    "build_version",  # reads the file that a build left beside us, and nothing else
}
"""Calls that give a value and leave nothing behind, besides classes."""
IS_CLASS = re.compile(r"_?[A-Z][A-Za-z0-9]*").fullmatch
MENDED = {"main.py": "sys.path[0]"}
"""The one that hosts may start from inside the package's folder."""


def run_by_import(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All that an import evaluates: bodies of classes and guards too, those of functions not."""
    for node in nodes:
        yield node
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
                yield from run_by_import([*node.decorator_list, *defaults])
            case ast.Lambda():
                pass
            case ast.If() if ast.unparse(node.test) == "__name__ == '__main__'":
                pass
            case _:
                yield from run_by_import(ast.iter_child_nodes(node))


def effects(source: str, mended: str = "") -> list[str]:
    """What importing a module with this source would do beside defining names."""
    found = []
    for node in run_by_import(ast.parse(source).body):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.stmt() if not isinstance(node, STATEMENTS):
                found.append(ast.unparse(node))
            case ast.Call(func=called):
                name = ast.unparse(called)
                last = name.rpartition(".")[2] if isinstance(called, ast.Attribute) else name
                if not ({name, last} & MAKE_VALUES or IS_CLASS(last)):
                    found.append(name)
            case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
                found.append(ast.unparse(node))
    return [each for each in found if each != mended]


@for_each("module", MODULES)
def test_import_of_module_has_no_side_effects(module: Path) -> None:
    """At module level there are definitions, constants and guards; who calls, makes a value."""
    assert effects(module.read_text("utf-8"), MENDED.get(module.name, "")) == []


@pytest.mark.parametrize(
    "source",
    [
        "print('here')",
        "log = open('log')",
        "import os\nif os.name == 'posix':\n    os.makedirs('data')",
        "import os\nif os.name == 'posix':\n    made = os.makedirs('data')",
        "import os\nos.environ['A'] = 'b'",
        "import sys\nsys.path[0] = 'elsewhere'",
        "class A:\n    pool = start_threads()",
        "def f(pool=start_threads()):\n    pass",
        "@register('f')\ndef f():\n    pass",
        "names = [open(name) for name in 'ab']",
        "for name in 'ab':\n    pass",
        "with lock:\n    pass",
        "del name",
    ],
)
def test_checker_finds_side_effect_at_import_in_each_kind_of_statement(source: str) -> None:
    assert effects(source)


def test_every_module_docstring_starts_with_one_line_that_ends_in_a_period() -> None:
    """The packages' lines are the table of docs/architecture.md; the others are the map."""
    docstrings = {path: ast.get_docstring(ast.parse(path.read_text("utf-8"))) for path in MODULES}
    unsaid = [
        str(path.relative_to(ROOT))
        for path, docstring in docstrings.items()
        if not re.match(r"\S.*[.](\n\n|$)", docstring or "")
    ]
    assert unsaid == []


def needs_torch_unasked(source: str) -> bool:
    """Whether a module of tests cannot be collected without torch, instead of being skipped."""
    for node in ast.parse(source).body:
        match node:
            case ast.Import(names=names) if names[0].name.partition(".")[0] == "torch":
                return True
            case ast.Expr() | ast.If() if "skip" in ast.unparse(node):
                return False
    return False


def test_every_test_module_can_be_collected_without_torch() -> None:
    """One that cannot ends the whole run."""
    texts = {path: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    needing = [path for path in texts if "import torch" in texts[path]]
    assert [path.name for path in needing if needs_torch_unasked(texts[path])] == []
    assert needs_torch_unasked("import torch")
    assert not needs_torch_unasked("import pytest\npytest.importorskip('torch')\nimport torch")


def test_names_of_test_files_are_unique() -> None:
    """pytest imports them by it: with two of them, running both folders fails."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted({one for one in names if names.count(one) > 1})


def test_every_line_of_tests_that_uses_real_time_has_a_reason_in_a_comment() -> None:
    assert [str(one) for one in clock_dependence.all_lines() if not one.reason] == []


def test_sleep_and_clock_reading_in_a_test_without_a_reason_are_found_with_their_line(
    tmp_path: Path,
) -> None:
    (tmp_path / "tests").mkdir()
    lines = "def test_one():", "    time.sleep(0.1)", "    clock = get_running_loop().time"
    (tmp_path / "tests" / "test_one.py").write_text("\n".join(lines), "utf-8")
    found = [(one.line, one.what, one.reason) for one in clock_dependence.all_lines(tmp_path)]
    assert found == [(2, "time.sleep(0.1)", ""), (3, "get_running_loop().time", "")]


def test_no_test_asserts_the_absence_of_text_that_a_random_id_may_contain() -> None:
    assert [str(one) for one in colliding_ids.short_marks()] == []


def test_absence_of_text_that_a_random_id_may_contain_is_found_with_its_line(
    tmp_path: Path,
) -> None:
    (tmp_path / "tests").mkdir()
    lines = (
        "for word in ('secret', 'beef'):",
        "    assert word not in log",
        "assert not any(b'4' * 3 in each for each in ids)",
        "assert log.count('cafe') == 1",
        "assert 'some-secret' not in log",
    )
    (tmp_path / "tests" / "test_one.py").write_text("\n".join(lines), "utf-8")
    found = [(one.line, one.text) for one in colliding_ids.short_marks(root=tmp_path)]
    assert sorted(found) == [(2, "beef"), (3, "444"), (4, "cafe")]


def test_colliding_source_of_ids_makes_ids_that_differ_and_have_the_text() -> None:
    read = colliding_ids.colliding(["abc", "pw"], os.urandom)
    one, other, again = (read(16) for _ in range(3))
    assert one.hex().startswith("abcabcabcabc")
    assert base64.urlsafe_b64encode(other).startswith(b"pw")
    assert again[:6] == one[:6]
    assert again != one


def test_tests_reach_no_private_name_and_change_no_constant_of_the_product() -> None:
    assert reached_internals.all_lines() == []


@pytest.mark.parametrize(
    "line",
    [
        "queue._claim_loop.stop()",
        "monkeypatch.setattr(queue, '_claim_loop', None)",
        "monkeypatch.setattr(job_journal, 'LOCK_TIMEOUT_S', 0.1)",
        "monkeypatch.setattr('sidecar.jobs.job_journal.LOCK_TIMEOUT_S', 0.1)",
        "job_journal.LOCK_TIMEOUT_S = 0.1",
        "for name in ('LOCK_TIMEOUT_S', 'RETRY_S'): monkeypatch.setattr(job_journal, name, 0.1)",
        "from sidecar.api.live_routes import _LiveConnection",
    ],
)
def test_reached_internal_of_the_product_is_found_unless_a_comment_gives_the_reason(
    line: str,
) -> None:
    assert {number for number, _ in reached_internals.in_source(f"\n{line}")} == {2}
    assert not list(reached_internals.in_source(f"# internal: no other way\n{line}"))
    assert not list(reached_internals.in_source("self._claim_loop, job_journal.LOCK_TIMEOUT_S"))


def test_each_child_process_has_no_window_on_windows() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("subprocess.Popen", "subprocess.run")
        and not {"creationflags", None} & {keyword.arg for keyword in node.keywords}
    ]
    assert bare == [], "see `child_processes.NO_WINDOW`"


def renaming_or_deleting(source: str) -> list[int]:
    """The lines that rename or delete a file by a call of Python's, not by `sidecar.files`."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (
            ast.unparse(node.func) in ("os.rename", "os.replace", "os.remove", "os.unlink")
            or node.func.attr in ("unlink", "rename")
            or (node.func.attr == "replace" and len(node.args) == 1 and not node.keywords)
        )
    ]


def test_product_renames_and_deletes_files_once_no_other_program_has_them_open() -> None:
    """The log's rotation does not wait: a line would."""
    own = {ROOT / "sidecar/files.py", ROOT / "sidecar/observability/logs.py"}
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in MODULES
        if path not in own
        for line in renaming_or_deleting(path.read_text("utf-8"))
    ]
    assert found == [], "see `files.replace` and `files.remove`"


@pytest.mark.parametrize(
    "call", ["path.unlink()", "path.rename(new)", "path.replace(new)", "os.remove(path)"]
)
def test_checker_finds_each_call_that_renames_or_deletes_a_file(call: str) -> None:
    assert renaming_or_deleting(f"\n{call}") == [2]
    assert not renaming_or_deleting("text.replace(a, b), files.replace(old, new), files.remove(a)")


def test_product_uses_nothing_without_a_guard_that_a_system_or_a_build_of_python_lacks() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in (*MODULES, *(ROOT / "clients/python/src").rglob("*.py"))
        for line, name in partial_apis.unguarded(path.read_text("utf-8"))
    }
    assert found == set()


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.geteuid()",
        "import os, sys\nif sys.argv:\n    os.geteuid()",
        "import os, sys\nif sys.platform == 'linux':\n    os.memfd_create('a')",
        "import os, sys\nif sys.platform != 'linux':\n    raise OSError\nos.pidfd_open(1)",
        "import os, sys\nsame = sys.platform == 'linux' and os.copy_file_range",
        "import os\nif hasattr(os, 'nice'):\n    os.memfd_create('a')",
        "import os\nif hasattr(os, 'nice'):\n    pass\nos.nice(1)",
        "import signal\nsignal.pause()",
        "import socket\nsocket.send_fds(1, [], [])",
        "def f():\n    import resource",
    ],
)
def test_checker_finds_each_use_that_no_condition_guards(source: str) -> None:
    assert len(list(partial_apis.unguarded(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import os\nif hasattr(os, 'memfd_create'):\n    os.memfd_create('a')",
        "import os\nif not hasattr(os, 'pidfd_open'):\n    raise OSError\nos.pidfd_open(1)",
        "import os\nmade = os.memfd_create('a') if hasattr(os, 'memfd_create') else 0",
        "import os\ncan = hasattr(os, 'nice') and os.nice(1)",
        "import os, sys\nif sys.platform == 'win32':\n    raise OSError\nos.geteuid()",
        "import os\nif os.name == 'posix':\n    import resource\n    os.geteuid()",
        "import os\nflags = os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0)",
        "def f(socket):\n    socket.receive()",
    ],
)
def test_checker_takes_a_condition_that_guards_a_use(source: str) -> None:
    assert list(partial_apis.unguarded(source)) == []


def test_names_taken_for_common_to_all_systems_are_that_in_typeshed() -> None:
    mypy = pytest.importorskip("mypy", reason=missing("mypy", "'.[lint]'", EXTRAS))
    stubs = Path(mypy.__path__[0]) / "typeshed/stdlib"
    for module, names in partial_apis.EVERYWHERE.items():
        files = stubs / module / "__init__.pyi", stubs / f"{module}.pyi"
        stub = ast.parse(next(one for one in files if one.exists()).read_text("utf-8"))
        assert names <= partial_apis.common(stub.body), module
