"""`transformers serve` as a child process, asked over its chat endpoint with ``input_audio``.

Its transcription endpoint answers 500 for this model. The chat endpoint answers the model's raw
text, encodes with noise (``sample=True`` cannot be turned off there), and streams.
"""

from __future__ import annotations

import base64
import http.client
import json
import sys
import time
from pathlib import Path
from typing import Any

from bench import serving
from bench.vibevoice_sides import Segments, normal, torch_name

_RUN = "from transformers.cli.transformers import main; main()"


def transformers_serve(
    folder: Path, checkpoint: Path, precision: str, device: str
) -> serving.Server:
    """The server, with the model loaded before it is up."""
    port = serving.free_port()
    options = ("--port", str(port), "--device", device, "--dtype", torch_name(precision))
    return serving.Server(
        [sys.executable, "-c", _RUN, "serve", str(checkpoint), *options],
        folder,
        serving.child_env(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error"),
        port,
        folder / f"serve-{port}.log",
    )


def chat_body(checkpoint: Path, audio: bytes, *, stream: bool) -> bytes:
    """The request: one message with one recording."""
    data = base64.b64encode(audio).decode()
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    message = {"role": "user", "content": [part]}
    body: dict[str, Any] = {"model": str(checkpoint), "messages": [message], "stream": stream}
    return json.dumps(body).encode()


def chat(server: serving.Server, checkpoint: Path, audio: bytes) -> dict[str, Any]:
    """One recording, the whole answer at once."""
    begun = time.perf_counter()
    body = chat_body(checkpoint, audio, stream=False)
    headers = {"Content-Type": "application/json"}
    answer = server.request("POST", "/v1/chat/completions", body, headers)
    seconds = time.perf_counter() - begun
    text = answer["choices"][0]["message"]["content"]
    return {"seconds": seconds, "segments": said_in(text)}


def chat_stream(server: serving.Server, checkpoint: Path, audio: bytes) -> dict[str, Any]:
    """One recording as it is written; ``first_s`` to the brace that closes the first segment.

    Raises:
        RuntimeError: the answer is no success.
    """
    begun, first_s, text = time.perf_counter(), None, ""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=3600)
    body = chat_body(checkpoint, audio, stream=True)
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{response.status} {response.read()[:500]!r}")
    while line := response.readline():
        if not line.startswith(b"data: {"):
            continue
        for choice in json.loads(line[6:])["choices"]:
            text += choice["delta"].get("content") or ""
        if first_s is None and "}" in text:
            first_s = time.perf_counter() - begun
    connection.close()
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "first_s": first_s, "segments": said_in(text)}


def said_in(text: str) -> Segments:
    """The segments of a raw answer."""
    items = json.loads(text.removeprefix("assistant").strip())
    return normal([(i["Start"], i["End"], i.get("Speaker"), i["Content"]) for i in items])
