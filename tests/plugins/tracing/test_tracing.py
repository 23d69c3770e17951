"""Traces, as a collector gets them: OTLP over HTTP, on a real socket."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import recordings
from http_file_server import FileHost
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from scripted_speech import sound
from service_process import Server, wait_until

from sidecar.installation import install_command
from sidecar.jobs import job_record
from sidecar.plugins import load_settings
from sidecar.plugins.tracing import is_tracing_configured
from sidecar.plugins.tracing.arrivals import RequestArrival
from sidecar.plugins.tracing.job_traces import JobTraceContext, job_stages
from sidecar.plugins.tracing.otlp_exporter import create_exporter
from sidecar.plugins.tracing.part import Tracing
from sidecar.server.app import create_app, create_service

TRACE = "0af7651916cd43dd8448eb211c80319c"
ABOVE = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{ABOVE}-01"


@dataclass
class Collector(FileHost):
    """Takes what is sent to it."""

    spans: list[Span] = field(default_factory=list)
    raw: bytes = b""
    paths: set[str] = field(default_factory=set)
    resource: dict[str, str] = field(default_factory=dict)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = self.read_body(request)
        self.paths.add(request.path)
        if request.path == "/v1/traces":
            self.take(body)
        self.reply(request, 200, b"", {})

    def take(self, raw: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(raw)
        for resource in request.resource_spans:
            values = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.resource |= values
            for scope in resource.scope_spans:
                self.spans += scope.spans
        self.raw += raw

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def root(self, name: str, **attributes: object) -> Span:
        """The one that has these attributes, once it came."""

        def found() -> Span | None:
            fits = (
                one
                for one in self.named(name)
                if attributes.items()
                <= {k.split(".")[-1]: v for k, v in values(one).items()}.items()
            )
            return next(fits, None)

        span: Span = wait_until(found, f"a span {name}")
        return span

    def below(self, span: Span) -> list[Span]:
        """Its parts, in order."""
        parts = [one for one in self.spans if one.parent_span_id == span.span_id]
        return sorted(parts, key=lambda one: one.start_time_unix_nano)


def values(span: Span) -> dict[str, object]:
    return {
        one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes
    }


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as one:
        yield one


@pytest.fixture(scope="module")
def server(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")  # which must not tell addresses
        with Server(tmp_path_factory.mktemp("traced")) as one:
            yield one


def wav(seconds: float) -> bytes:
    return recordings.wav(sound((seconds, 0.3)))


def test_job_is_a_span_in_the_clients_trace_with_its_stages_and_no_text_or_file_name(
    server: Server, collector: Collector
) -> None:
    answer = server.client.post(
        "/transcribe",
        files={"audio": ("Secret Plans.wav", wav(3))},
        data={"prompt": "Xylophon", "precision": "int8"},  # which no other test has loaded
        headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"},
    )
    assert answer.status_code == 200
    root = collector.root("transcription", outcome="done", audio_s=3.0)
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, ABOVE)
    assert root.trace_state == "vendor=1"
    parts = collector.below(root)
    names = ["received", "looked_at", "queued", "loaded", "run", "answered"]
    assert [one.name for one in parts] == names
    assert parts[0].start_time_unix_nano == root.start_time_unix_nano
    assert parts[-1].end_time_unix_nano == root.end_time_unix_nano
    for one, following in pairwise(parts):
        assert one.start_time_unix_nano <= one.end_time_unix_nano
        assert abs(one.end_time_unix_nano - following.start_time_unix_nano) < 1_000  # ns: rounding
    engine, attempts = values(root)["vibevoice.engine"], values(root)["vibevoice.attempts"]
    assert (engine, attempts) == ("scripted", 1)
    assert collector.resource["service.name"] == "vibevoice-asr"
    said = [segment["text"] for segment in answer.json()["segments"]]
    assert len(said) == 3
    for word in (*said, "Secret", "Xylophon", str(server.home), "/transcribe"):
        assert word.encode() not in collector.raw
    assert collector.paths == {"/v1/traces"}


def test_refused_job_and_submitted_job_are_traced_by_their_stages(
    server: Server, collector: Collector
) -> None:
    assert server.post(b"no sound at all").status_code >= 400
    refused = collector.root("transcription", outcome="refused")
    assert refused.status.code == Status.STATUS_CODE_ERROR
    assert [one.name for one in collector.below(refused)] == ["received", "looked_at"]
    server.submit(wav(2))
    later = collector.root("transcription", outcome="done", audio_s=2.0)
    names = [one.name for one in collector.below(later) if one.name != "loaded"]  # if it was not
    assert names == ["received", "looked_at", "queued", "run"]  # and was answered before
    assert not later.parent_span_id


def test_trace_that_the_client_does_not_sample_is_not_sent(
    server: Server, collector: Collector
) -> None:
    unkept = f"00-{'1' * 32}-{ABOVE}-00"
    files = {"audio": ("a.wav", wav(1))}
    assert server.client.post(
        "/transcribe", files=files, headers={"traceparent": unkept}
    ).is_success
    assert server.client.post("/transcribe", files=files).is_success
    collector.root("transcription", outcome="done", audio_s=1.0)
    assert not any(span.trace_id.hex() == "1" * 32 for span in collector.spans)


# --- off, and pure


def test_tracing_is_off_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    settings = load_settings(engine="scripted", data_dir=tmp_path)
    service = create_service(settings)
    assert not any(isinstance(part, Tracing) for part in service.parts)
    layers = [layer.cls.__name__ for layer in create_app(settings, service).user_middleware]
    assert "ArrivalRecorder" not in layers


def test_otel_variables_turn_tracing_on_and_off() -> None:
    there = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    assert is_tracing_configured(there)
    assert is_tracing_configured({"OTEL_TRACES_EXPORTER": "otlp"})
    assert not is_tracing_configured({})
    assert not is_tracing_configured({**there, "OTEL_SDK_DISABLED": "true"})
    assert not is_tracing_configured({**there, "OTEL_TRACES_EXPORTER": "none"})


def test_tracing_without_its_packages_is_logged_and_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    assert create_exporter("1") is None
    assert install_command("otel") in caplog.text


def record(**fields: Any) -> job_record.JobRecord:
    plain: Any = dict.fromkeys(("audio", "options", "audio_info", "progress"))
    return job_record.JobRecord(id="a", owner="b", created=10.0, **plain, **fields)


def test_trace_has_each_attempt_and_a_load_only_if_the_job_waited_for_it() -> None:
    changes: list[tuple[float, job_record.JobChange]] = [
        *(
            (12.0, job_record.StartedChange()),
            (13.0, job_record.RequeuedChange(job_record.CountsAs.CRASH)),
            (17.0, job_record.StartedChange()),
        )
    ]
    events = [job_record.JobEvent(n, at, change) for n, (at, change) in enumerate(changes, 1)]
    context = JobTraceContext(9.0, RequestArrival(8.0), events)
    found = job_stages(context, record(ended=20.0), (16.5, 18.0))
    assert [(one.name, one.begin, one.end, one.error) for one in found] == [
        ("received", 8.0, 9.0, ""),
        ("looked_at", 9.0, 10.0, ""),
        ("queued", 10.0, 12.0, ""),
        ("run", 12.0, 13.0, "engine_crashed"),
        ("queued", 13.0, 17.0, ""),
        ("loaded", 17.0, 18.0, ""),
        ("run", 18.0, 20.0, ""),
    ]
    waited = job_stages(JobTraceContext(9.0, None), record(ended=11.0), (0.0, 1.0))
    assert [one.name for one in waited] == ["looked_at", "queued"]
