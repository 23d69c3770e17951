"""Kinds of tests, told from what each uses, the variants that only `make test-all` runs, and the
files that begin first.

unit: this process and files. integration: also sockets, databases or models. system: also other
processes, such as the service, PostgreSQL or a browser. A test is of the highest kind of anything
that it, its fixtures and their helpers name; a marker of one's own overrules that.
"""

import functools
import inspect
import os
import re
import sys
import threading
import types
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

UNIT, INTEGRATION, SYSTEM = "unit", "integration", "system"
KINDS = (UNIT, INTEGRATION, SYSTEM)
ROOT = Path(__file__).resolve().parents[2]
_OURS = tuple(str(ROOT / folder) for folder in ("tests", "bench"))
_MODULES = {
    SYSTEM: (
        *("subprocess", "multiprocessing", "selenium", "imageio_ffmpeg"),
        *("sidecar.audio.ffmpeg", "sidecar.audio.audio_decoder", "sidecar.cli.command_table"),
        *("sidecar.cli.backends", "sidecar.server", "sidecar.service.facade"),
        *("sidecar.service.system_checks", "sidecar.workers.audio_probe"),
        *(
            f"sidecar.workers.{name}"
            for name in ("engine", "engine_fleet", "engine_loading", "model_registry")
        ),
        *("sidecar.workers.role_engine", "sidecar.workers.tts_client"),
        "sidecar.workers.worker_process",
    ),
    INTEGRATION: (
        *("socket", "socketserver", "sqlite3", "http", "ssl", "urllib"),
        *("httpx", "websockets", "grpc", "psycopg", "psycopg_pool", "botocore", "starlette"),
        *("torch", "transformers", "onnxruntime", "moonshine_voice", "ctranslate2", "tokenizers"),
        *("sidecar.api", "sidecar.plugins", "sidecar.diarization"),
        *("sidecar.storage", "sidecar.jobs.sqlite_event_log", "sidecar.jobs.recovery"),
        *("sidecar.engines", "sidecar.gpu_memory", "sidecar.checkpoints"),
        "sidecar.plugins.conversation.tts",
        *(
            f"sidecar.plugins.shared_jobs.{name}"
            for name in ("shared_backend", "postgres_database", "postgres_connection")
        ),
        "sidecar.plugins.shared_jobs.postgres_speaker_store",
        "sidecar.plugins.shared_jobs.s3_storage",
    ),
    UNIT: ("sidecar.plugins.conversation", "sidecar.plugins.shared_jobs"),
}
"""What is named of these modules makes a test one of that kind; the longest name counts."""
_NAMES = {
    SYSTEM: {"create_subprocess_exec", "create_subprocess_shell", "fork", "getfixturevalue"},
    INTEGRATION: {"create_server", "open_connection", "start_server", "start_unix_server"},
}
"""Methods of what may be of any type. A fixture that is asked for by its name may be any."""
LONGEST_FILES = (
    *("engines/vibevoice/test_vibevoice_decoder.py", "engines/whisper/test_whisper_base.py"),
    *("api/test_page_recorder.py", "cli/test_command_line.py"),
    *("engines/test_moonshine.py", "audio/test_recordings_as_found.py"),
    *("diarization/test_diarizer.py", "plugins/upstream/test_upstream_diarization.py"),
    *("cli/test_pull_command.py", "server/test_process_lifecycle.py"),
    *("engines/test_live_engine_interface.py", "project/test_host_examples.py"),
)
"""By processor time. One of few tests that began last would run alone in the end."""
_SLOW_MODULE = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.slow\b", re.MULTILINE)
_WATCHED = frozenset(("subprocess.Popen", "socket.bind", "socket.connect", "sqlite3.connect"))
_STARTED: list[str] = []
"""What the test that runs did of `_WATCHED`: the name of the event."""
_GLOBALS: dict[tuple[int, str], tuple[object, str, bool]] = {}
"""By the module's names and one of them."""
_OLDER_THREADS: set[int] = set()
"""Threads of tests before: what they do late is not done by the test that runs."""


def kind_of(item: pytest.Function, marks: Mapping[str, pytest.Mark]) -> str:
    """Return the kind of a test: its own marker, or the highest of all that it uses."""
    for kind in KINDS:
        if kind in marks:
            return kind
    uses = [item.function]
    for name, found in item._fixtureinfo.name2fixturedefs.items():
        if name != "users_folder":  # every test's
            uses += [fixture.func for fixture in found]
    return max(map(kind_of_function, uses), key=KINDS.index)


@functools.cache
def kind_of_function(function: Callable[..., object]) -> str:
    """Return the highest kind of what a function and the helpers that it names use."""
    if not _is_ours(function):
        return UNIT
    seen: set[int] = set()
    left: list[object] = [function]
    highest = UNIT
    while left and highest != SYSTEM:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        for found in _functions(one):
            names = set(_names(found.__code__))
            known = [_global(found.__globals__, name) for name in names & found.__globals__.keys()]
            left += [value for value, _, ours in known if ours]
            kinds = [*map(_of_name, names), *(kind for _, kind, _ in known)]
            highest = max([highest, *kinds], key=KINDS.index)
    return highest


def _global(names: dict[str, Any], name: str) -> tuple[object, str, bool]:
    """Return what a module has by a name, the kind of its module, and whether it is ours; many
    functions name the same."""
    value = names[name]
    known = _GLOBALS.get((id(names), name))
    if known is None or known[0] is not value:
        known = _GLOBALS[id(names), name] = value, _of_module(_home(value)), _is_ours(value)
    return known


def _functions(value: Any) -> Iterator[types.FunctionType]:
    """Yield a function, or the methods of a class or of the class of an object."""
    value = _plain(value)
    if isinstance(value, types.FunctionType):
        yield value
    elif not isinstance(value, types.ModuleType):
        for base in (value if isinstance(value, type) else type(value)).__mro__:
            for method in vars(base).values() if _is_ours(base) else ():
                found = _plain(getattr(method, "fget", None) or method)
                if isinstance(found, types.FunctionType):
                    yield found


def _plain(value: Any) -> Any:
    """Return the function itself of one that is decorated, a method or a property test."""
    value = getattr(getattr(value, "hypothesis", None), "inner_test", value)
    value = getattr(value, "__func__", value)
    return inspect.unwrap(value) if callable(value) else value


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield all names in a function and in those inside it."""
    yield from code.co_names
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            yield from _names(value)


def _home(value: object) -> str:
    """Return the name of the module that defines a value or its type."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    value = _plain(value)
    named = value if isinstance(value, type | types.FunctionType) else type(value)
    return str(named.__module__)


def _is_ours(value: object) -> bool:
    """Return whether tests or benchmarks define it: what else there is, is not read."""
    if isinstance(value, types.ModuleType):
        return False
    file = getattr(sys.modules.get(_home(value)), "__file__", None) or ""
    return file.startswith(_OURS)


@functools.cache
def _of_module(name: str) -> str:
    named = {one: kind for kind, modules in _MODULES.items() for one in modules}
    found = [one for one in named if name == one or name.startswith(f"{one}.")]
    return named[max(found, key=len)] if found else UNIT


@functools.cache
def _of_name(name: str) -> str:
    """Return the kind of a method's name, or of a module that a function imports."""
    return next((kind for kind in _NAMES if name in _NAMES[kind]), None) or _of_module(name)


def start_place(item: pytest.Item) -> int:
    """Return the place of its file among `LONGEST_FILES`, which begin first; of others the last."""
    name = os.path.relpath(item.path, ROOT / "tests")  # or that of a plugin in `plugins/`
    return LONGEST_FILES.index(name) if name in LONGEST_FILES else len(LONGEST_FILES)


def is_slow(item: pytest.Function, marks: Mapping[str, pytest.Mark]) -> bool:
    """Return whether only `make test-all` runs it: `slow`, or a variant that `slow_except` does not
    name. A name is a part of the variant's id in brackets: ``"[fp32-"``, ``"json"``."""
    if "slow" in marks:
        return True
    marker = marks.get("slow_except")
    variant = item.name[item.name.find("[") :] if "[" in item.name else ""
    return marker is not None and not any(name in variant for name in marker.args)


def _number_equal_ids(items: list[pytest.Item]) -> None:
    """Number tests of the same id, as schemathesis gives one to all operations: pytest-xdist runs
    one of each."""
    seen: Counter[str] = Counter()
    for item in items:
        seen[item.nodeid] += 1
        if (number := seen[item.nodeid]) > 1:
            if hasattr(item, "_id"):  # since pytest 9.1
                # internal: pytest's own
                item._id = item._id.with_params(str(number))
            else:
                item._nodeid += f"[{number}]"


def _record(event: str, _: object) -> None:
    if (
        event in _WATCHED
        and threading.get_ident() not in _OLDER_THREADS
        # Windows has no pairs of sockets: each event loop there connects to itself.
        and sys._getframe(1).f_code.co_name not in ("socketpair", "_fallback_socketpair")
    ):
        _STARTED.append(event)


class Kinds:
    """A pytest plugin that marks each test by its kind and by its cost, and holds unit tests to
    theirs."""

    def __init__(self) -> None:
        self.collected: list[pytest.Item] = []
        """All tests of this run, those that are not selected included."""
        sys.addaudithook(_record)

    def pytest_ignore_collect(self, collection_path: Path, config: pytest.Config) -> bool | None:
        """Leave a module that is slow as a whole to `make test-all`: schemathesis makes up its
        requests while it is collected."""
        if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
            return None
        return bool(_SLOW_MODULE.search(collection_path.read_text("utf-8"))) or None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark before any are left out (`-m`). All processes have one order, wherever each began
        to collect."""
        items.sort(key=lambda item: str(item.path))
        _number_equal_ids(items)
        self.collected += items
        for item in items:
            if not isinstance(item, pytest.Function):
                continue
            marks = {mark.name: mark for mark in reversed(list(item.iter_markers()))}  # the closest
            if is_slow(item, marks):
                item.add_marker("slow")
            item.add_marker(kind_of(item, marks))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        """Forget what the test before did."""
        _STARTED.clear()
        _OLDER_THREADS.clear()
        _OLDER_THREADS.update(sys._current_frames().keys() - {threading.get_ident()})
        yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """Fail a unit test that has started a process, or opened a connection or a database."""
        yield
        if item.get_closest_marker(UNIT) and _STARTED:
            pytest.fail(
                f"this unit test did {sorted(set(_STARTED))}: mark it with pytest.mark.{SYSTEM}"
                f" or pytest.mark.{INTEGRATION}, or name what it uses in kinds_of_tests.py",
                pytrace=False,
            )
