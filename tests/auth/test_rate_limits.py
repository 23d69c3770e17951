"""What one owner and one address may have: counted, refused with a time, and never for others."""

import asyncio
import contextlib
import gc
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_process import Server, check_problem, wait_until

from sidecar import errors
from sidecar.api.http.auth_gate import AuthGate, PortRules
from sidecar.auth import authentication, rate_limits
from sidecar.auth.authentication import AccessControl, Authenticator
from sidecar.auth.identity import (
    ANONYMOUS,
    UNLIMITED_OWNER,
    AuthMethod,
    Identity,
    OwnerLimits,
    RequestOrigin,
)
from sidecar.auth.rate_limits import (
    MAX_DELAYED_ANSWERS,
    FailedTokenDelays,
    RateLimit,
    RateLimiter,
    RevocableStreams,
    TokenBuckets,
    rate_limit_key,
)
from sidecar.config.settings import Settings
from sidecar.jobs.reservations import (
    Reservations,
    charged_audio_s,
    check_audio,
    check_jobs,
)

TOKEN = "correct-horse-battery-staple"
ANNA, BEN = (Identity(name, AuthMethod.JWT) for name in ("anna", "ben"))


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_empty_token_bucket_says_when_it_is_refilled() -> None:
    buckets = TokenBuckets(RateLimit(3, 60))
    assert [buckets.take("a", 0) for _ in range(4)] == [0, 0, 0, 20]
    assert buckets.take("b", 0) == 0, "another's is another"
    assert buckets.take("a", 19) == pytest.approx(1)
    assert buckets.take("a", 20) == 0
    assert buckets.state("a", 20) == rate_limits.RateLimitState(RateLimit(3, 60), 0, 60)
    assert buckets.state("a", 1000).left == 3, "never more than fits"
    assert buckets.take("a", 500) == 0, "a clock that goes back gives and takes nothing"


def test_token_bucket_in_debt_gives_nothing_until_it_is_paid() -> None:
    buckets = TokenBuckets(RateLimit(3600, 3600))
    assert buckets.wait("a", 0) == 0
    buckets.charge("a", 0, 4600)
    assert buckets.wait("a", 0) == pytest.approx(1001)
    assert buckets.wait("a", 1000.5) == pytest.approx(0.5)
    assert buckets.wait("a", 1001) == 0


@given(
    st.lists(st.tuples(st.floats(0, 50), st.integers(1, 5)), max_size=200),
    st.integers(5, 50),
    st.floats(1, 100),
)
def test_token_bucket_never_gives_more_than_its_rate_plus_one_bucket(
    steps: list[tuple[float, int]], amount: int, window_s: float
) -> None:
    buckets, now, had = TokenBuckets(RateLimit(amount, window_s)), 0.0, 0
    for pause, wanted in steps:
        now += pause
        wait_s = buckets.take("a", now, wanted)
        if wait_s == 0:
            had += wanted
        else:
            assert buckets.take("a", now + wait_s * 1.001 + 1e-6, 0) == 0
            now += wait_s * 1.001 + 1e-6
            assert buckets.take("a", now, wanted) == 0, "it is there when it was promised"
            had += wanted
        assert had <= amount + amount / window_s * now + 1e-6


def test_rate_limit_table_is_bounded_and_forgets_who_came_longest_ago() -> None:
    buckets, failures = TokenBuckets(RateLimit(1, 60), most=100), FailedTokenDelays(most=100)
    for number in range(1000):
        buckets.take(str(number), 0)
        assert (buckets.take("busy", 0) > 0) == (number > 0), "who comes all the time is known"
        failures.note(str(number), 0)
    assert (len(buckets), len(failures)) == (100, 100)
    assert buckets.take("999", 0) > 0, "and so are the last"
    assert buckets.take("0", 0) == 0


def test_delay_of_wrong_tokens_grows_and_is_forgotten() -> None:
    failures = FailedTokenDelays()
    delays = [failures.note("a", 0) for _ in range(15)]
    assert delays == [0.0] * 5 + [0.25, 0.5, 1, 2, 4, 8, 8, 8, 8, 8]
    assert failures.note("b", 0) == 0
    assert failures.note("a", rate_limits.FAILURE_MEMORY_S) == 8
    assert failures.note("a", 2 * rate_limits.FAILURE_MEMORY_S + 1) == 0


@pytest.mark.parametrize(
    ("peer", "key"),
    [("203.0.113.7", "203.0.113.7"), ("::ffff:203.0.113.7", "203.0.113.7"),
     ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
     ("", "unknown"), (None, "unknown"), ("a socket", "unknown")],
)  # fmt: skip
def test_rate_limit_key_is_the_address_or_its_ipv6_prefix(peer: str | None, key: str) -> None:
    assert rate_limit_key(peer) == key


def test_address_has_the_rate_of_several_owners_and_each_owner_its_own() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(10, clock)
    here = RequestOrigin(["x"], [], [], peer="203.0.113.7")
    for who in (ANNA, BEN):
        for left in range(9, -1, -1):
            rate_limiter.enter(who)
            assert rate_limiter.state(who).left == left
        with pytest.raises(errors.RateLimited) as refused:
            rate_limiter.enter(who)
        assert refused.value.retry_after == 6
    clock.now += 6
    rate_limiter.enter(ANNA)
    for _ in range(10 * rate_limits.ADDRESS_SHARE):
        rate_limiter.admit_request(here)
    with pytest.raises(errors.RateLimited):
        rate_limiter.admit_request(here)
    rate_limiter.admit_request(RequestOrigin(["x"], [], [], peer="203.0.113.8"))
    rate_limiter.held = MAX_DELAYED_ANSWERS
    for _ in range(rate_limits.UNDELAYED_FAILURES):
        assert rate_limiter.fail(here) == 0
    with pytest.raises(errors.RateLimited):
        rate_limiter.fail(here)


def test_bytes_of_an_upload_count_for_the_upload_limit_while_they_arrive() -> None:
    clock = Clock()
    room = Reservations(10, 1 << 20, clock)
    anna = Identity("anna", AuthMethod.JWT, limits=OwnerLimits(upload_bytes=3600))
    room.reserve_upload(ANONYMOUS).grow(100_000)
    body = room.reserve_upload(anna)
    body.grow(3000)
    room.reserve_upload(anna).close()  # there is some left
    body.grow(1600)
    with pytest.raises(errors.UploadsLimited) as refused:
        room.reserve_upload(anna)
    assert refused.value.retry_after == 1001
    clock.now += 1001
    room.reserve_upload(anna)


def test_queued_audio_of_an_owner_is_limited_but_one_recording_may_have_any_length() -> None:
    anna = Identity("anna", AuthMethod.JWT, limits=OwnerLimits(queued_audio_s=7200))
    check_audio(anna, 100_000, 0.0)
    check_audio(anna, 3600, 3600.0)
    for more_s, waiting_s in ((3601, 3600.0), (None, 3601.0), (1, 7200.0), (7000, 201.0)):
        with pytest.raises(errors.AudioLimited):
            check_audio(anna, more_s, waiting_s)
    with pytest.raises(errors.AudioLimited):
        check_audio(anna, 1, 3600.0, least_s=3601.0)
    check_audio(ANONYMOUS, 3600, 1e9)


def test_channels_of_a_recording_of_unknown_length_count_one_by_one() -> None:
    assert charged_audio_s(None, channels=2) == 2 * charged_audio_s(None)


def test_owner_limits_are_default_on_the_network_and_none_on_loopback_unless_set() -> None:
    assert authentication.owner_limits_of(Settings()) == UNLIMITED_OWNER
    assert authentication.owner_limits_of(Settings(host="0.0.0.0")) == authentication.DEFAULT_LIMITS
    assert (
        authentication.owner_limits_of(Settings(forwarded_allow_ips=("127.0.0.1",)))
        == authentication.DEFAULT_LIMITS
    )
    none = {"limit_requests": 0, "limit_jobs": 0, "limit_queued_hours": 0, "limit_upload_mb": 0}
    none |= {"live_sessions_per_owner": 0}
    assert authentication.owner_limits_of(Settings(host="0.0.0.0", **none)) == UNLIMITED_OWNER
    assert authentication.owner_limits_of(Settings(limit_jobs=3)) == OwnerLimits(jobs=3)
    check_jobs(ANONYMOUS, 10**6)


def test_one_owner_cannot_take_all_streams_and_each_may_open_one() -> None:
    ada, bob, cleo, dan = (
        Identity(name, AuthMethod.JWT, limits=OwnerLimits(shares=True))
        for name in ("a", "b", "c", "d")
    )
    streams = RevocableStreams(most=4)
    with contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(streams.opened(ada))
        with pytest.raises(errors.ConnectionsLimited):
            held.enter_context(streams.opened(ada))
        for one in (bob, cleo, dan):
            held.enter_context(streams.opened(one))
            with pytest.raises(errors.ConnectionsLimited):
                held.enter_context(streams.opened(one))
        for _ in range(9):
            held.enter_context(streams.opened(ANONYMOUS))
    with streams.opened(bob), streams.opened(bob), streams.opened(bob):
        pass


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def ask(gate: AuthGate, token: str) -> Callable[[], Any]:
    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(gate, client=("203.0.113.7", 5))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"})

    return get


async def test_wrong_tokens_are_delayed_with_equal_answers_and_right_ones_are_not() -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    access = AccessControl(
        authenticator=Authenticator(TOKEN), rate_limiter=RateLimiter(1000, Clock()), pause=pause
    )
    gate = AuthGate(inner, access, PortRules())
    right, wrong = ask(gate, TOKEN), ask(gate, "wrong-wrong-wrong-wrong")
    shapes = set()
    for number in range(9):
        answer = await wrong()
        assert answer.status_code == 401
        shapes.add((tuple(answer.headers.items()), len(answer.content)))
        assert (await right()).status_code == 204, number
    assert pauses == [0.25, 0.5, 1.0, 2.0]
    assert len(shapes) == 1


class HeldScope(dict[str, Any]):
    """A scope that can be seen to go."""


async def test_task_started_in_a_request_does_not_keep_its_asgi_scope_in_memory() -> None:
    over, born = asyncio.Event(), list[asyncio.Task[object]]()

    async def bears(scope: Any, receive: Any, send: Any) -> None:
        born.append(asyncio.get_running_loop().create_task(over.wait()))

    async def nothing(*_: object) -> dict[str, Any]:
        return {"type": "http.request"}

    gate = AuthGate(bears, AccessControl(), PortRules())
    scope = HeldScope(
        type="http", method="GET", path="/v1/jobs", scheme="http", client=("127.0.0.1", 5),
        headers=[(b"host", b"localhost")], query_string=b"", state={},
    )  # fmt: skip
    seen = weakref.ref(scope)
    await asyncio.get_running_loop().create_task(gate(scope, nothing, nothing))
    del scope
    gc.collect()
    assert born
    assert seen() is None
    over.set()
    await asyncio.gather(*born)


async def test_too_many_requests_return_429_with_retry_after() -> None:
    clock = Clock()
    access = AccessControl(authenticator=Authenticator(TOKEN), rate_limiter=RateLimiter(5, clock))
    gate = AuthGate(inner, access, PortRules())
    right = ask(gate, TOKEN)
    answers = [await right() for _ in range(6)]
    assert [answer.status_code for answer in answers] == [204] * 5 + [429]
    assert [answer.headers.get("ratelimit") for answer in answers[:5]] == [
        f'"requests";r={4 - number};t={12 * (number + 1)}' for number in range(5)
    ]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"requests";q=5;w=60'}
    check_problem(answers[-1], 429, "rate_limited")
    assert answers[-1].headers["retry-after"] == "12"
    assert answers[-1].headers["ratelimit"] == '"requests";r=0;t=60'
    clock.now += math.ceil(12)
    assert (await right()).status_code == 204


@pytest.mark.slow_except("jobs_limited")
@pytest.mark.parametrize(
    ("setting", "code"),
    [({"limit_jobs": 2}, "jobs_limited"), ({"limit_queued_hours": 0.001}, "audio_limited")],
)
def test_owner_over_the_limit_of_jobs_or_queued_audio_gets_429_until_jobs_end(
    tmp_path: Path, voice: bytes, setting: dict[str, float], code: str
) -> None:
    def send() -> httpx.Response:
        later = {"Prefer": "respond-async"}
        return server.client.post("/transcribe", files={"audio": voice}, headers=later)

    with Server(tmp_path, scripted_speed=0.1, **setting) as server:
        answers = [send()]
        while answers[-1].status_code == 202 and len(answers) < 40:
            answers.append(send())
        check_problem(answers[-1], 429, code)
        assert "retry-after" in answers[-1].headers
        sent = [job["id"] for job in server.jobs()]
        for job_id in sent:
            server.cancel(job_id)
        for job_id in sent:
            server.wait_state(job_id, "cancelled")
        # one that ran counts until the engine has left it, a moment after it is cancelled
        wait_until(lambda: send().status_code == 202, "a place is free again")


def test_owner_over_the_upload_limit_gets_429_with_retry_after(
    tmp_path: Path, voice: bytes
) -> None:
    with Server(tmp_path, limit_upload_mb=1) as server:
        big = {"audio": voice + bytes(1 << 20)}
        first = server.client.post("/transcribe", files=big)
        assert first.status_code != 429, "the last one may go beyond"
        answer = server.client.post("/transcribe", files=big)
        check_problem(answer, 429, "uploads_limited")
        assert 0 < int(answer.headers["retry-after"]) <= 3600
        assert server.client.get("/v1/jobs").status_code == 200
