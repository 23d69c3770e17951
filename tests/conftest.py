"""The service as a real process, and real recordings to send to it."""

import asyncio
import contextlib
import functools
import gc
import inspect
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import cpu_time
import late_files
import pytest
import service_process
import systems
import turns
import user_folders
import virtual_time
from full_disk import small_disk
from kinds_of_tests import Kinds, start_place
from not_tested import NotTested
from object_storage import Given, ObjectStorage, keys, object_storage
from postgres import Cluster, cluster
from preloaded_service import Forker, fork_children
from recordings import Studio
from service_process import PATIENCE_S, REPOSITORY, USERS_FOLDERS, Server, StartServer
from two_fronts_and_node import ONE_SERVICE, TWO_FRONTS, WAYS, started

EXAMPLES, FEWER_EXAMPLES = 100, 40
"""Of each property, in `make test-all` and in `make test`."""
LONGEST_TEST_S, LONGEST_SLOW_TEST_S = 4 * PATIENCE_S, 12 * PATIENCE_S
"""Of tests on the event loop; fixtures and tests in virtual time have a limit only on Windows."""
FEWER_COLLECTIONS = 10_000, 10, 10
"""Thresholds of the garbage collector: with its own it takes a twentieth of the processor time."""


def pytest_configure(config: pytest.Config) -> None:
    """Properties without a clock or dice, no work twice, Ctrl-C as in a terminal, and a lesser
    processor where that is asked for."""
    _without_a_clock_or_dice(FEWER_EXAMPLES if config.option.markexpr == "not slow" else EXAMPLES)
    _without_waste()
    _without_hurry()
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # as the service: children of tests would die
    # AMX sums bf16 for one row otherwise than for many: tiny checkpoints that are decoded in two
    # ways then differ in a token here and there.
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    for word in os.environ.pop("MAKEFLAGS", "").split():  # `make test VENV=…` means no other make
        os.environ.pop(word.partition("=")[0], None)
    # A shell that starts this in the background has it ignored, and so would all children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _be_a_lesser_processor()
    if sys.platform == "linux" and not os.environ.get("VIBEVOICE_TEST_FRESH_SERVICES"):
        service_process.FORKER = Forker(REPOSITORY)
        fork_children(service_process.FORKER, "sidecar.workers.channel", "bench.serving")
    config.option.loadscopereorder = False  # pytest-xdist's own order: most tests first
    cpu_time.register(config)
    config.pluginmanager.register(Kinds(), "kinds")
    late_files.register(config)
    turns.register(config)
    systems.register(config)
    config.pluginmanager.register(NotTested(), "not-tested")


def _without_a_clock_or_dice(examples: int) -> None:
    """A busy machine is nobody's fault, and what held in one run holds in the next. Who looks for
    examples that nobody has seen says how many: ``VIBEVOICE_TEST_EXAMPLES``."""
    with contextlib.suppress(ImportError):  # who only tries an executable out has none
        from hypothesis import HealthCheck, settings

        found = os.environ.get("VIBEVOICE_TEST_EXAMPLES")
        settings.register_profile(
            "house",
            settings.default,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            derandomize=not found,
            max_examples=int(found or examples),
        )
        settings.load_profile("house")
        if not found:
            # It draws from the constants of our modules that are imported by then, which other
            # tests of the process have imported or not. There is no setting for that.
            from hypothesis.internal.conjecture import providers
            from hypothesis.internal.constants_ast import Constants

            vars(providers)["_get_local_constants"] = Constants


def _without_waste() -> None:
    """Processes find what they import compiled, and torch has one thread, here and in them: with
    two on two busy cores it waits for itself, and burns both. ``OMP_NUM_THREADS`` overrules it."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _without_hurry() -> None:
    """The handshake of a WebSocket may take as long as anything, however a test calls for it: the
    library's own limit of 10 s is too short on a busy machine. So may the last writes of a store,
    which a service would give up when it ends, and its lock with its process: here it is opened
    again."""
    with contextlib.suppress(ImportError):  # who only tries an executable out has none
        from websockets.asyncio.client import connect

        from sidecar.storage import encrypted_sqlite, speaker_store

        vars(connect)["__init__"].__kwdefaults__["open_timeout"] = PATIENCE_S
        for store in (encrypted_sqlite.SqliteWriter, speaker_store.SqliteSpeakerStore):
            store.close_s = PATIENCE_S


def _be_a_lesser_processor() -> None:
    """Be a processor without AVX512-BF16, if told to: bitsandbytes has no setting for that."""
    if os.environ.get("VIBEVOICE_TEST_NO_AVX512_BF16"):
        from bitsandbytes.cextension import lib

        lib.has_avx512bf16_cpu = lambda: False


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while millions of objects are made that stay, never look at them again,
    and look at others seldom."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(*FEWER_COLLECTIONS)
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, after pytest's own sorting by fixtures."""
    items.sort(key=start_place)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Give up a test on the event loop that hangs; not one in virtual time, whose hours pass at
    once."""
    test = getattr(item, "obj", None)
    if not inspect.iscoroutinefunction(test) or item.get_closest_marker("looptime"):
        return

    @functools.wraps(test)
    async def given_up(**fixtures: object) -> None:
        slow = item.get_closest_marker("slow") is not None
        async with asyncio.timeout(LONGEST_SLOW_TEST_S if slow else LONGEST_TEST_S):
            await test(**fixtures)

    item.obj = given_up  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def monotonic_of_the_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In tests in virtual time the clock is the event loop's."""
    if request.node.get_closest_marker("looptime") is not None:
        monkeypatch.setattr("time.monotonic", virtual_time.monotonic)


@pytest.fixture(autouse=True)
def loggers_of_the_server() -> None:
    """Each test finds uvicorn's loggers as a new process has them: whoever configures a server in
    this process sets their levels, also from a fixture of a module, and a warning would be
    missed."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
        one = logging.getLogger(name)
        one.propagate = True
        one.setLevel(logging.NOTSET)


@pytest.fixture
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without settings of the machine's; its file of settings, which is not
    there."""
    for name in [name for name in os.environ if name.startswith("VIBEVOICE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VIBEVOICE_CONFIG", str(tmp_path / "none.toml"))
    return tmp_path / "none.toml"


@pytest.fixture
def fresh_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that this process starts are started anew, not forked."""
    monkeypatch.setattr("sidecar.workers.channel.subprocess", subprocess)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """A PostgreSQL of the tests' own."""
    with cluster() as server:
        yield server


@pytest.fixture
def journal(postgres_cluster: Cluster) -> Iterator[str]:
    """The address of a database in whose tables is nothing."""
    address = postgres_cluster.lend()
    yield address
    postgres_cluster.take_back(address)


@pytest.fixture
def fresh_journal(postgres_cluster: Cluster) -> Iterator[str]:
    """The address of a database that has no tables, and no files of other tests."""
    address = postgres_cluster.new_database()
    yield address
    postgres_cluster.drop(address)


@pytest.fixture(scope="session")
def any_storage_server() -> Iterator[Given]:
    """An object storage of the tests' own, or one that they are given."""
    with object_storage() as server:
        yield server


@pytest.fixture
def storage_server(any_storage_server: Given) -> ObjectStorage:
    """An object storage of the tests' own."""
    if not isinstance(any_storage_server, ObjectStorage):
        pytest.skip("another's server is left as it is: NOT TESTED")
    return any_storage_server


@pytest.fixture
def bucket(any_storage_server: Given, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a place in its bucket, with nothing in it and keys for it."""
    for name, value in keys().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", any_storage_server.endpoint)
    return any_storage_server.new_place()


@pytest.fixture(scope="session", autouse=True)
def users_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where services that are given no folder have their logs, their pace and their jobs: not with
    those of whoever runs the tests, which no test can write to (`users_folders`)."""
    user_folders.watch()
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        for name in USERS_FOLDERS:
            patch.setenv(name, str(folder))
        yield folder


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Recordings in every format, made when first asked for."""
    return Studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="session")
def voice(studio: Studio) -> bytes:
    """Three seconds of speech, 16-bit mono wav at 16 kHz."""
    return studio.voice.read_bytes()


@pytest.fixture(scope="session")
def one_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with its defaults (and the scripted engine), shared by all tests."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def two_fronts(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """Two fronts and a node with their defaults, which share their jobs, behind a proxy."""
    with started(TWO_FRONTS, tmp_path_factory.mktemp("fronts"), request) as running:
        yield running


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    """`one_service`; to a test that is marked `anywhere` also `two_fronts`."""
    way = getattr(request, "param", ONE_SERVICE)
    running: Server = request.getfixturevalue(way.replace(" ", "_"))
    return running


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is marked `anywhere` is to be the same behind a proxy and two fronts."""
    if "server" in metafunc.fixturenames and metafunc.definition.get_closest_marker("anywhere"):
        metafunc.parametrize("server", WAYS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that says made-up words and tones, to more at once than one test has: who has gone
    may not be known to have gone yet."""
    home = tmp_path_factory.mktemp("talks")
    with Server(home, voice_engine="scripted", conversations=9) as running:
        yield running


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts a service with other settings, for one test."""
    with contextlib.ExitStack() as stack:

        def start(**settings: object) -> Server:
            home = tmp_path / f"server-{len(list(tmp_path.glob('server-*')))}"
            return stack.enter_context(Server(home, **settings))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    with small_disk(folder, 4):
        yield folder
