"""The queue server's own client and command line, written anew from what is known of them: what
they send, and how (un)forgiving they read. Not a word of theirs is here."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass
class TranscriptionEvent:
    """What the library hands out."""

    event_type: str
    text: str | None = None
    job_id: str | None = None
    position: int | None = None
    estimated_wait_seconds: float | None = None
    error: str | None = None


class VibevoiceClient:
    """The library; redirects are not followed, an error status raises."""

    def __init__(self, base_url: str, token: str, verify: bool | str = True) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._verify = verify

    async def transcribe(
        self, path: str, hotwords: str | None
    ) -> AsyncIterator[TranscriptionEvent]:
        """Send a file; its type is in its name alone."""
        timeout = httpx.Timeout(connect=10.0, read=600.0, write=60.0, pool=10.0)
        file = Path(path)
        files = {
            "audio": (
                file.name,
                await asyncio.to_thread(file.read_bytes),
                "application/octet-stream",
            )
        }
        data = {"hotwords": hotwords} if hotwords else {}
        async with (
            httpx.AsyncClient(verify=self._verify, timeout=timeout) as client,
            client.stream(
                "POST",
                f"{self._base_url}/v1/transcribe",
                headers=self._headers,
                files=files,
                data=data,
            ) as response,
        ):
            response.raise_for_status()
            async for event in events_of(response.aiter_lines()):
                yield event

    async def queue_status(self) -> dict[str, Any]:
        """The queue, as it says."""
        async with httpx.AsyncClient(verify=self._verify, timeout=10.0) as client:
            url = f"{self._base_url}/v1/queue/status"
            response = await client.get(url, headers=self._headers)
            response.raise_for_status()
            return dict(response.json())


async def events_of(lines: AsyncIterator[str]) -> AsyncIterator[TranscriptionEvent]:
    """Two kinds of line count; the name falls back after each data line; no key has a default."""
    name = "data"
    async for line in lines:
        if line.startswith("event: "):
            name = line[len("event: ") :]
        elif line.startswith("data: "):
            try:
                data = json.loads(line[len("data: ") :])
            except json.JSONDecodeError:
                continue
            match name:
                case "queue":
                    yield TranscriptionEvent(
                        "queue",
                        job_id=data["job_id"],
                        position=data["position"],
                        estimated_wait_seconds=data["estimated_wait_seconds"],
                    )
                case "data":
                    yield TranscriptionEvent("data", text=data["text"])
                case "done":
                    yield TranscriptionEvent("done", job_id=data["job_id"])
                case "error":
                    yield TranscriptionEvent("error", error=data["error"])
            name = "data"


def main(argv: Sequence[str]) -> int:
    """The command line: global flags first, then the word."""
    parser = argparse.ArgumentParser(prog="vvv")
    parser.add_argument("--server", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--ca-cert")
    words = parser.add_subparsers(dest="word", required=True)
    transcribe = words.add_parser("transcribe")
    transcribe.add_argument("file")
    transcribe.add_argument("--hotwords")
    transcribe.add_argument("--output")
    words.add_parser("status")
    said = parser.parse_args(argv)
    if said.insecure and said.ca_cert:
        return 1
    client = VibevoiceClient(said.server, said.token, said.ca_cert or not said.insecure)
    if said.word == "status":
        return asyncio.run(_status(client))
    return asyncio.run(_transcribe(client, said))


async def _status(client: VibevoiceClient) -> int:
    status = await client.queue_status()
    print(f"Queued: {status['total_queued']}")
    for job in status["your_jobs"]:
        line = f"{job['job_id'][:8]} {job['status']}"
        if job["position"] is not None:
            line += f" position {job['position']}, ETA {job['estimated_wait_seconds']:.0f}s"
        print(line)
    return 0


async def _transcribe(client: VibevoiceClient, said: argparse.Namespace) -> int:
    texts: list[str] = []
    async for event in client.transcribe(said.file, said.hotwords):
        match event.event_type:
            case "queue":
                wait = f"{event.estimated_wait_seconds:.0f}s"
                print(f"[Queue] Position: {event.position}, ETA: {wait}", file=sys.stderr)
            case "data":
                assert event.text is not None
                texts.append(event.text)
                print(event.text, end="", flush=True)
            case "error":
                print(f"[Error] {event.error}", file=sys.stderr)
                return 1
    if said.output:
        await asyncio.to_thread(Path(said.output).write_text, "".join(texts), "utf-8")
    return 0
