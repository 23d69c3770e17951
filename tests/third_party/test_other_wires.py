"""Clients of the wires that are not OpenAI's: Wyoming, event streams, metrics, gRPC."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from module_services import service_of_module
from service_process import Server

RunClient = Callable[..., Any]


open_server = service_of_module(wyoming_port=0, grpc_port=0, scripted_speed=4)
"""A service with all its ports."""


def test_home_assistants_wyoming_package_gets_the_words_of_a_recording(
    python_client: RunClient, open_server: Server, clip: Path
) -> None:
    port = open_server.health()["wyoming_port"]
    found = python_client("wyoming_home.py", port, clip)
    assert found["models"]
    assert len(found["text"].split()) == 3


def test_event_source_of_npm_gets_all_events_of_a_job_in_order(
    node_client: RunClient, open_server: Server, clip: Path
) -> None:
    found = node_client("event_source.mjs", open_server.port, clip)
    assert found["names"][-1] == "done"
    assert found["names"].count("segment") == 3
    assert found["ids"] == sorted(set(found["ids"]))


def test_metrics_are_read_whole_by_prometheus_own_parsers(
    python_client: RunClient, open_server: Server
) -> None:
    found = python_client("prometheus_scrape.py", open_server.port)
    assert found["text"]["type"].startswith("text/plain")
    assert found["open"]["type"].startswith("application/openmetrics-text")
    for one in found.values():
        assert not one["untyped"]
        assert any(name.startswith("vibevoice_jobs") for name in one["names"])


def test_grpc_service_is_found_and_called_by_reflection(
    python_client: RunClient, open_server: Server
) -> None:
    port = open_server.health()["grpc_port"]
    found = python_client("grpc_calls.py", port)
    assert found["status"] == 1, "serving"
    assert len(found["services"]) == 1
    assert "StreamingRecognize" in found["methods"]
