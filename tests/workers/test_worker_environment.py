"""What a worker is told of the service's environment: never a secret, and the least it needs."""

import threading

import pytest

from sidecar.workers.worker_environment import ENDS_WITH_PARENT_VARIABLE, worker_environment_of

SECRETS = [
    "VIBEVOICE_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GH_PAT", "hf_token",
    "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AZURE_CLIENT_ID", "OPENAI_API_KEY", "APIKEY",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "DB_PASSWORD", "DB_PASS", "PGPASSWORD", "MYSQL_PWD", "CLIENT_SECRET", "SECRET_KEY_BASE",
    "GOOGLE_APPLICATION_CREDENTIALS",
]  # fmt: skip
HARMLESS = [
    "TOKENIZERS_PARALLELISM", "HF_HOME", "HF_HUB_CACHE", "CUDA_VISIBLE_DEVICES", "PATH", "PWD",
    "VIBEVOICE_SCRIPTED_SPEED", "XDG_CACHE_HOME", "PYTORCH_ALLOC_CONF", "KEYBOARD",
]  # fmt: skip


@pytest.mark.parametrize("least", [False, True])
def test_environment_of_worker_has_no_secret(least: bool) -> None:
    given = worker_environment_of(dict.fromkeys(SECRETS, "x"), least=least)
    assert not set(SECRETS) & set(given)


@pytest.mark.parametrize(
    "value",
    [
        "http://me:hunter2@proxy:3128",
        "postgresql://db/jobs?user=me&password=hunter2",
        "host=db user=me password = 'hunter2'",
        "postgresql://db/jobs?sslpassword=hunter2",
    ],
)
def test_environment_of_engine_has_no_value_with_password(value: str) -> None:
    assert "ADDRESS" not in worker_environment_of({"ADDRESS": value})


def test_environment_of_engine_has_variables_of_its_libraries() -> None:
    assert set(HARMLESS) <= set(worker_environment_of(dict.fromkeys(HARMLESS, "x")))


@pytest.mark.parametrize("least", [False, True])
def test_numpy_has_one_thread_in_worker_unless_user_sets_it(least: bool) -> None:
    assert worker_environment_of({}, least=least)["OPENBLAS_NUM_THREADS"] == "1"
    assert (
        worker_environment_of({"OPENBLAS_NUM_THREADS": "4"}, least=least)["OPENBLAS_NUM_THREADS"]
        == "4"
    )


def test_environment_of_probe_has_only_what_it_needs() -> None:
    ours = dict.fromkeys([*HARMLESS, "LC_ALL", "SystemRoot", "_PYI_ARCHIVE_FILE"], "x")
    given = set(worker_environment_of(ours, least=True)) & set(ours)
    assert given == {"PATH", "LC_ALL", "SystemRoot", "_PYI_ARCHIVE_FILE"}


def test_only_worker_started_in_main_thread_has_variable_to_end_with_its_parent() -> None:
    """Linux ends a child with the thread that started it, which may be long before the service."""
    given: list[dict[str, str]] = []
    ours = {ENDS_WITH_PARENT_VARIABLE: "1"}
    other = threading.Thread(target=lambda: given.append(worker_environment_of(ours)))
    other.start()
    other.join()
    assert ENDS_WITH_PARENT_VARIABLE not in given[0]
    assert ENDS_WITH_PARENT_VARIABLE in worker_environment_of({})
