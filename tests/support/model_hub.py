"""A model hub of our own: the endpoints that a download uses, and what can go wrong with them."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
from http_file_server import FileHost
from service_process import Server

CONFIG = {"model_type": "vibevoice_asr", "architectures": ["VibeVoiceAsrForConditionalGeneration"]}
_ENCODER = {
    "encoder_depths": "3-3-3-3-3-3-8",
    "encoder_n_filters": 32,
    "encoder_ratios": [8, 5, 5, 4, 2, 2],
    "layernorm_eps": 1e-5,
    "layer_scale_init_value": 1e-6,
}
ORIGINAL_CONFIG = {
    "model_type": "vibevoice",
    "architectures": ["VibeVoiceForASRTraining"],
    "acoustic_tokenizer_config": {**_ENCODER, "vae_dim": 64},
    "semantic_tokenizer_config": {**_ENCODER, "vae_dim": 128},
    "decoder_config": {"hidden_size": 3584},
}
SPEAKING_CONFIG = {**ORIGINAL_CONFIG, "architectures": ["VibeVoiceForConditionalGeneration"]}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
COMMIT = "a" * 40
"""The commit that `main` is at in the beginning."""
NEWER = "b" * 40


def write_checkpoint(folder: Path, config: dict[str, Any] = CONFIG) -> Path:
    """A folder like that of the real checkpoint: real files, 1 MB of weights that mean nothing."""
    from safetensors.numpy import save_file  # here: `make exe` has no safetensors

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    weight_map = {}
    for number, shard in enumerate(SHARDS):
        tensors = {
            f"layers.{number}.{name}.weight": random.random((256, 256), dtype=np.float32)
            for name in ("query", "value")
        }
        save_file(tensors, folder / shard, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, shard))
    for name, content in {
        "config.json": config,
        "model.safetensors.index.json": {"metadata": {}, "weight_map": weight_map},
        "generation_config.json": {},
        "processor_config.json": {"processor_class": "VibeVoiceAsrProcessor"},
        "tokenizer.json": {"version": "1.0"},
        "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer"},
    }.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages }}", "utf-8")
    return folder


@dataclass
class Hub(FileHost):
    """The server and what it was asked."""

    repos: dict[str, Path] = field(default_factory=dict)
    claims: dict[str, int] = field(default_factory=dict)
    """Sizes that are not true."""
    more_names: list[str] = field(default_factory=list)
    """Files that the list has besides those of the folder."""
    refuse: tuple[int, str] | None = None
    """Status and X-Error-Code of every answer."""
    body: bytes | None = None
    """What every question is answered with."""
    commit: str = COMMIT
    """What `main` is at."""
    ranges: bool = True
    tokens: list[tuple[str, str | None]] = field(default_factory=list)
    """Where a token came along: the path's first word, and the token."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.tokens.append((path.split("/")[1], request.headers.get("Authorization")))
        if self.refuse is not None:
            self.reply(request, self.refuse[0], b"{}", {"X-Error-Code": self.refuse[1]})
        elif self.body is not None:
            self.reply(request, 200, self.body, {"Content-Type": "text/html"})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._list(request, *found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            repo, name = found.groups()
            if name.endswith(".safetensors"):  # large files come from elsewhere
                elsewhere = self.url.replace("127.0.0.1", "localhost")
                where = f"{elsewhere}/elsewhere/{repo}/{name}"
                self.reply(request, 302, b"", {"Location": where})
            else:
                self._send(request, self.repos[repo] / name)
        elif found := re.fullmatch(r"/elsewhere/([^/]+/[^/]+)/(.+)", path):
            self._send(request, self.repos[found[1]] / found[2])
        else:
            self.reply(request, 404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _list(self, request: BaseHTTPRequestHandler, repo: str, revision: str) -> None:
        if repo not in self.repos:
            self.reply(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", "v1", COMMIT, NEWER):
            self.reply(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            files = sorted(path for path in self.repos[repo].iterdir() if path.is_file())
            siblings = [self._sibling(path.name, path.read_bytes()) for path in files]
            siblings += [self._sibling(name, b"{}") for name in self.more_names]
            commit = {"main": self.commit, "v1": COMMIT}.get(revision, revision)
            body = {"id": repo, "sha": commit, "siblings": siblings}
            self.reply(
                request, 200, json.dumps(body).encode(), {"Content-Type": "application/json"}
            )

    def _sibling(self, name: str, content: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        size = self.claims.get(name, len(content))
        sibling: dict[str, Any] = {"rfilename": name, "size": size, "blobId": blob}
        if name.endswith((".safetensors", ".bin")):
            digest = hashlib.sha256(content).hexdigest()
            sibling["lfs"] = {"sha256": digest, "size": size, "pointerSize": 130}
        return sibling

    def _send(self, request: BaseHTTPRequestHandler, path: Path) -> None:
        name, content = path.name, path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        begin = int(asked[1]) if asked and self.ranges else 0
        part = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
        self.head(request, 206 if begin else 200, len(content) - begin, part if begin else {})
        self.send_from(request, name, content, begin)


@contextmanager
def hub_service(home: Path, hub: Hub, **settings: object) -> Iterator[Server]:
    """A service that downloads from the hub into a cache of its own."""
    server = Server(home, engine="scripted", **settings)  # type: ignore[arg-type]
    server.env |= {"HF_HOME": str(home / "hub"), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    with server:
        yield server
