"""What a worker is told of the service's environment: never a secret, and the least it needs."""

from __future__ import annotations

import threading

import pytest

from sidecar.workers.worker_environment import ENDS_WITH_PARENT, Needs, environment

SECRETS = [
    "VIBEVOICE_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GH_PAT", "hf_token",
    "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AZURE_CLIENT_ID", "OPENAI_API_KEY", "APIKEY",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "DB_PASSWORD", "PGPASSWORD", "MYSQL_PWD", "CLIENT_SECRET", "SECRET_KEY_BASE",
    "GOOGLE_APPLICATION_CREDENTIALS",
]  # fmt: skip
HARMLESS = [
    "TOKENIZERS_PARALLELISM", "HF_HOME", "HF_HUB_CACHE", "CUDA_VISIBLE_DEVICES", "PATH", "PWD",
    "VIBEVOICE_SCRIPTED_SPEED", "XDG_CACHE_HOME", "PYTORCH_ALLOC_CONF", "KEYBOARD",
]  # fmt: skip


@pytest.mark.parametrize("needs", Needs)
def test_no_worker_is_given_a_secret(needs: Needs) -> None:
    given = environment(dict.fromkeys(SECRETS, "x"), needs)
    assert not set(SECRETS) & set(given)
    assert "PROXY" not in environment({"PROXY": "http://me:hunter2@proxy:3128"}, needs)


def test_an_engine_is_given_what_steers_its_libraries() -> None:
    assert set(HARMLESS) <= set(environment(dict.fromkeys(HARMLESS, "x"), Needs.ENGINE))


@pytest.mark.parametrize("needs", Needs)
def test_numpy_has_one_thread_in_a_worker_unless_the_user_says_how_many(needs: Needs) -> None:
    assert environment({}, needs)["OPENBLAS_NUM_THREADS"] == "1"
    assert environment({"OPENBLAS_NUM_THREADS": "4"}, needs)["OPENBLAS_NUM_THREADS"] == "4"


def test_who_looks_at_files_is_given_hardly_anything() -> None:
    ours = dict.fromkeys([*HARMLESS, "LC_ALL", "SystemRoot", "_PYI_ARCHIVE_FILE"], "x")
    given = set(environment(ours, Needs.LEAST)) & set(ours)
    assert given == {"PATH", "LC_ALL", "SystemRoot", "_PYI_ARCHIVE_FILE"}


def test_only_what_the_main_thread_starts_may_end_with_its_thread() -> None:
    """Linux ends a child with the thread that started it, which may be long before the service."""
    given: list[dict[str, str]] = []
    ours = {ENDS_WITH_PARENT: "1"}
    other = threading.Thread(target=lambda: given.append(environment(ours, Needs.ENGINE)))
    other.start()
    other.join()
    assert ENDS_WITH_PARENT not in given[0]
    assert ENDS_WITH_PARENT in environment({}, Needs.ENGINE)
