"""What is counted, and how much of it is kept."""

from collections import Counter

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from sidecar import errors
from sidecar.auth.identity import AuthMethod, Identity
from sidecar.interfaces.live_events import Final, SpeechStarted, TurnEnded
from sidecar.live.sessions.event_log import EventMetrics
from sidecar.observability import metrics
from sidecar.transcripts.transcript import UNHEARD_FLAG, Segment

OPEN = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def test_label_values_over_the_limit_are_counted_under_one_other_label() -> None:
    counter, histogram = (
        metrics.Counter("n", "what", ("user",)),
        metrics.Histogram("h", "what", (1,), ("user",)),
    )
    for user in range(10_000):
        counter.add(f"user {user}")
        histogram.see(0.5, f"user {user}")
    assert len(counter.values) == len(histogram.spreads) == metrics.MAX_LABEL_SETS + 1
    assert counter.total == 10_000
    assert (
        counter.of(metrics.OTHER_LABEL)
        == histogram.spreads[metrics.OTHER_LABEL,].count
        == 10_000 - metrics.MAX_LABEL_SETS
    )


def test_histogram_has_cumulative_buckets_count_mean_and_largest_value() -> None:
    spread = metrics.Distribution((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7):
        spread.see(value)
    assert spread.buckets() == [("0.1", 2), ("1.0", 3), ("+Inf", 4)]
    assert (spread.count, spread.largest, spread.mean) == (4, 7, pytest.approx(1.9125))


def test_metrics_page_does_not_grow_with_owners() -> None:
    def page(users: int) -> str:
        tally = metrics.ServiceMetrics()
        for number in range(users):
            who = Identity(f"somebody {number}", AuthMethod.JWT)
            counted = EventMetrics(tally.live, "live", patience_s=20)
            counted.received(1)
            counted.sent(SpeechStarted(0, 0))
            counted.sent(Final(0, 0, Segment(0, 1, f"said by {who.subject}"), work_s=0.1))
            counted.sent(TurnEnded(0, 0, 1, "said"))
            counted.ended(None, finished=True)
            tally.wires.requests.add("GET", "/v1/jobs/{job_id}", "200")
            tally.jobs.done(3, 1, 2)
        return metrics.render_metrics(
            tally.measured(),
            metrics.stt_gauges(metrics.stt_metrics_json(tally, 0)),
            metrics.METRIC_PREFIX,
            "",
        )[0].decode()

    one, many = page(1), page(10_000)
    assert len(one.splitlines()) == len(many.splitlines())
    assert "somebody" not in many
    assert 'vibevoice_live_sessions_ended_total{reason="done",wire="live"} 10000.0' in many


def test_unrecognized_final_counts_as_timed_out_after_the_patience_and_as_failed_before() -> None:
    tally = metrics.ServiceMetrics()
    counted = EventMetrics(tally.live, "live", patience_s=5)
    for work_s in (0.1, 6.0):
        segment = Segment(0, 1, "", flags=(UNHEARD_FLAG,))
        counted.sent(Final(0, 0, segment, work_s=work_s))
    assert tally.outcomes.lately(60) == Counter(timed_out=1, failed=1)


def test_engine_crash_within_an_utterance_counts_as_failed_and_the_utterance_as_orphaned() -> None:
    tally = metrics.ServiceMetrics()
    counted = EventMetrics(tally.live, "live", patience_s=5)
    counted.sent(SpeechStarted(0, 0))
    counted.ended(errors.EngineCrashed(), finished=False)
    assert tally.outcomes.lately(60) == Counter(failed=1)
    assert tally.live.orphaned.total == 1
    assert tally.live.speaking == 0
    assert tally.live.ended.values == {("live", "engine_crashed"): 1}


def test_both_metrics_formats_parse_to_the_same_values() -> None:
    tally = metrics.ServiceMetrics()
    tally.jobs.done(3, 1, 2)
    tally.wires.calls.add("/stt.STTBackend/CreateSession", "UNAUTHENTICATED")
    by_owner = {"jwt:a-b": 1, "jwt:a_b": 2}  # of which the names are the same by then
    other = metrics.stt_gauges(metrics.stt_metrics_json(tally, 3, by_owner))

    def numbers(accept: str, read: object) -> dict[tuple[str, str], float]:
        page, kind = metrics.render_metrics(tally.measured(), other, metrics.METRIC_PREFIX, accept)
        assert kind.startswith(
            "application/openmetrics-text" if accept else "text/plain; version=0.0.4"
        )
        families = read(page.decode())  # type: ignore[operator]
        return {
            (sample.name, str(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
            if not sample.name.startswith("process_")
        }

    plain = numbers("", plain_text)
    assert plain == numbers(OPEN, open_metrics)
    assert plain["stt_active_sessions_by_api_jwt_a_b", "[]"] == 3
    assert plain["stt_error_counts_UNAUTHENTICATED", "[]"] == 1
    assert plain["vibevoice_jobs_ended_total", "[('outcome', 'done')]"] == 1


def test_metric_names_follow_prometheus_conventions() -> None:
    for one in metrics.ServiceMetrics().measured():
        if isinstance(one, metrics.Counter):
            assert one.name.endswith("_total"), one.name
        else:
            assert one.name.endswith(("_seconds", "_ratio")), one.name
        assert one.what.endswith("."), one.name
