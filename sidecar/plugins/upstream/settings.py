"""Settings of upstreams: addresses, keys and certificates of the servers that transcribe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, SecretStr

from sidecar import files
from sidecar.config.secret_settings import parse_keys, parse_server_url
from sidecar.config.setting_types import OptionalPath, SettingsGroup, WordList, setting
from sidecar.errors import SettingsInvalid
from sidecar.interfaces.engine_interface import UpstreamOptions
from sidecar.limit_overrides import limit
from sidecar.observability.logs import default_data_folder
from sidecar.plugins.upstream.probe_memory import FILE_NAME

PIECE_S = limit("upstream_piece", 0.0)
"""Longest chunk for an upstream, in seconds; with 0 all upstreams get work by the cuts."""


class UpstreamSettings(SettingsGroup):
    """Upstreams: other servers that transcribe."""

    upstream: WordList = setting(
        (),
        "Servers that transcribe for the engine 'upstream', such as 'http://192.168.1.20:8765'; of "
        "several, the least loaded is used (docs/upstream.md).",
    )
    upstream_dialect: Literal["auto", "sidecar", "openai", "vllm", "vllm-streaming"] = setting(
        "auto",
        "Kind of those servers (docs/upstream.md); 'auto' detects it for each.",
    )
    upstream_model: str | None = setting(
        None, "Model requested of an upstream; its first if unset."
    )
    upstream_key: SecretStr | None = setting(
        None,
        "Key for the upstreams (@FILE); of several lines, each is for one upstream.",
    )
    upstream_ca: OptionalPath = setting(
        None, "PEM file of certificates to trust for https, beside the system's."
    )


def upstream_options(settings: BaseModel) -> UpstreamOptions:
    """Return the upstreams named by the settings.

    Raises:
        errors.SettingsInvalid: there are none, or an address, a key or the CA file is not valid.
    """
    group = UpstreamSettings.of(settings)
    urls = tuple(parse_server_url(url, "upstream") for url in group.upstream)
    if not urls:
        raise SettingsInvalid(
            "The engine 'upstream' has no server to send recordings to.",
            hint="Name one: VIBEVOICE_UPSTREAM=http://192.168.1.20:8765 (docs/upstream.md).",
        )
    ca = group.upstream_ca
    if ca is not None:
        files.check_regular(ca)  # the worker process opens it again, and would block on a pipe
        if not ca.is_file():
            raise SettingsInvalid(f"The file of certificates {ca} does not exist.")
    folder = default_data_folder(getattr(settings, "data_dir", None))
    keys = parse_keys(group.upstream_key, "upstream")
    if len(keys) not in (1, len(urls)):
        raise SettingsInvalid(
            f"The file of keys has {len(keys)} lines, for {len(urls)} upstreams.",
            hint="Write one line for all of them, or one for each.",
        )
    return UpstreamOptions(
        urls,
        tuple(keys * len(urls) if len(keys) == 1 else keys),
        group.upstream_dialect,
        group.upstream_model,
        None if ca is None else str(ca.resolve()),
        piece_s=PIECE_S,
        answers="" if folder is None else str(folder.absolute() / FILE_NAME),
    )
