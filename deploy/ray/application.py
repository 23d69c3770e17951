"""vibevoice-asr on a Ray cluster: ``serve run application:build replicas=2 gpus=1`` (README.md).

One front has the wires and the queue; each replica has an engine in a process of its own, and is
one place of that queue. Settings are the environment's, as everywhere (docs/settings.md).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from place import ReplicaPlace
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from sidecar import errors
from sidecar.app import create_app
from sidecar.audio.decode import AudioFacts
from sidecar.audio.ref import ref_to
from sidecar.audio.source import AudioSource, Spool
from sidecar.engines.choice import Choice, choose
from sidecar.jobs.job import Job
from sidecar.jobs.provision import Provision
from sidecar.jobs.record import JobRecord
from sidecar.service import Service
from sidecar.settings import load_settings
from sidecar.speech.engine import EngineSpec, Precision, TranscribeOptions
from sidecar.speech.transcript import from_wire, to_wire
from sidecar.workers.fleet import Fleet

DRAIN_S = 3600.0
"""So long a replica that is to go may take to end what it is at."""


@serve.deployment(
    max_ongoing_requests=1, max_queued_requests=-1, graceful_shutdown_timeout_s=DRAIN_S
)
class Replica:
    """One engine, which hears one recording at a time and plans the memory of its own card."""

    def __init__(self) -> None:
        settings = load_settings()
        self._settings = settings
        self._fleet = Fleet(settings, choose(settings), None)
        self._provision = Provision(settings, self._fleet.files)

    async def hear(self, asked: dict[str, Any], sound: list[Any]) -> AsyncGenerator[dict, None]:
        """First that it is there, before any of the audio has come; then what it hears.

        Raises:
            WorkerDied: the engine's process ended; the front counts that as an attempt.
        """
        yield {"reserved": True}
        source = await asyncio.to_thread(_spooled, await sound[0], self._settings.spool_dir)
        try:
            async with aclosing(self._heard(asked, source)) as events:
                async for event in events:
                    yield {"event": event}
        except errors.SidecarError as error:
            yield {"error": error.to_wire()}
        finally:
            source.close()

    async def _heard(
        self, asked: dict[str, Any], source: AudioSource
    ) -> AsyncGenerator[dict, None]:
        options = TranscribeOptions.from_wire(asked["options"])
        facts = AudioFacts.from_wire(asked["facts"])
        options = self._provision.admitted(options, facts.total_s)
        job = Job(source, JobRecord.submitted(0.0, ref_to(source), facts, options))
        settled = asked["settled"] and [from_wire(one) for one in asked["settled"]]
        async with self._provision.slot.lease(Precision(asked["precision"]), math.inf) as engine:
            planned = self._provision.plan(job, engine.precision)
            events = engine.transcribe(source, facts, planned, asked["max_s"], settled)
            async with aclosing(events):
                async for event in events:
                    yield to_wire(event)

    async def spec(self) -> EngineSpec:
        """Which engine it has."""
        return self._fleet.files.spec

    async def pid(self) -> int | None:
        """Its engine's process, None while it is not loaded."""
        return self._provision.slot.worker_pid


@serve.deployment(max_ongoing_requests=1000)
@serve.ingress()
class Front:
    """The wires and the queue. One: its jobs are in its memory."""

    async def __init__(self, replicas: DeploymentHandle, count: int) -> None:
        settings = load_settings()
        spec = await replicas.spec.remote()
        places = [ReplicaPlace(replicas, spec, settings.precision) for _ in range(count)]
        service = Service(settings, Choice(spec, "replicas of a Ray cluster"), places=places)
        self._app = create_app(settings, service)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app


def build(args: dict[str, str]) -> Application:
    """``replicas``: how many; ``gpus`` and ``cpus`` of each; ``front_cpus``, of which it needs none
    kept for it: a machine whose cores all go to replicas would have no room for the front, and Ray
    waits for that without a word."""
    count = int(args.get("replicas", 1))
    actor = {"num_gpus": float(args.get("gpus", 0)), "num_cpus": float(args.get("cpus", 1))}
    replicas = Replica.options(num_replicas=count, ray_actor_options=actor).bind()
    front = Front.options(ray_actor_options={"num_cpus": float(args.get("front_cpus", 0))})
    return front.bind(replicas, count)


def _spooled(sound: bytes, folder: Path | None) -> AudioSource:
    spool = Spool(folder)
    spool.add(sound)
    return spool.finish()
