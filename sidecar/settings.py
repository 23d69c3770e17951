"""Every setting, said once: flags, environment, a file, and the defaults.

`vibevoice-asr serve --help` and `docs/settings.md` are written from this class.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from sidecar import errors
from sidecar.configuration.files import is_yaml, read_settings
from sidecar.configuration.original import Meant
from sidecar.speech.engine import AUTO, Diarization, Precision, parse_language
from sidecar.speech.voice import MOST_STEPS

ENV_PREFIX = "VIBEVOICE_"
SHORTEST_TOKEN = 16
"""Characters; shorter ones are guessed."""
SHORTEST_JOURNAL_KEY = 32
"""Characters: 128 bits in hexadecimal digits."""
ALL: Final = "all"
FRONT: Final = "front"
NODE: Final = "node"
"""What a service is of those that share a journal."""
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object) -> object:
    """Seconds from ``90``, ``"90s"``, ``"10m"``, ``"1.5h"`` or ``"2d"``; -1 stands for 'never'."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", value.strip().lower())
    if match is None:
        raise ValueError("not a duration such as 90, '90s', '10m', '1.5h' or '2d'")
    return float(match[1]) * _UNITS[match[2] or ""]


Duration = Annotated[float, BeforeValidator(parse_duration)]


def parse_list(value: object) -> object:
    """Words from a list, or from text in which commas part them."""
    if not isinstance(value, str):
        return value
    return tuple(word for part in value.split(",") if (word := part.strip()))


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_list)]
Folders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(parse_list)]


def parse_tag(value: object) -> object:
    """A language tag, or 'auto'."""
    if not isinstance(value, str):
        return value
    try:
        return parse_language(value)
    except errors.LanguageInvalid as error:
        raise ValueError(f"{error.detail} {error.hint}") from None


Language = Annotated[str, BeforeValidator(parse_tag)]


class TalkPorts(NamedTuple):
    """Where the page of the speech-to-speech demo finds who answers it, and where it comes from;
    as it has them, if nobody says otherwise."""

    wire: int = 8005
    page: int = 3000


def parse_talk_ports(value: object) -> object:
    """``"original"``, ``"8005"`` (the wire's) or ``"8005:3000"`` (the page's behind it)."""
    if value is None or isinstance(value, TalkPorts):
        return value
    if value == "original":
        return TalkPorts()
    match = re.fullmatch(r"(\d{1,5})(?::(\d{1,5}))?", str(value).strip())
    ports = TalkPorts(*(int(port) for port in match.groups() if port)) if match else None
    if ports is None or ports.wire > 65535 or not 0 < ports.page <= 65535:
        raise ValueError("not 'original', nor ports such as '8005' or '8005:3000'")
    return ports


class Address(SecretStr):
    """An address that may have a password in it: it has a flag, and is shown nowhere."""

    @property
    def has_password(self) -> bool:
        """Whether it has."""
        before, at, _ = self.get_secret_value().partition("//")[2].partition("@")
        return (bool(at) and ":" in before) or "password=" in self.get_secret_value()


def config_file() -> Path:
    """The TOML file that is read: ``VIBEVOICE_CONFIG``, or the one in the user's config folder."""
    if named := os.environ.get(f"{ENV_PREFIX}CONFIG"):
        return Path(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA", Path.home() / "AppData/Roaming"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Application Support"
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    return base / "vibevoice-asr" / "config.toml"


class Settings(BaseSettings):
    """Flags win over the environment, the environment over the file, the file over defaults."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        protected_namespaces=(),
    )

    config: Path | None = Field(
        None,
        description=(
            "File with settings: TOML with these names, or YAML of another gRPC server "
            "(docs/grpc.md)."
        ),
    )
    config_model: Path | None = Field(
        None, description="File (YAML) of that server with its 'model' and 'decode_profiles'."
    )
    host: str = Field(
        "127.0.0.1",
        description=(
            "Address to listen on; one beyond this machine's loopback needs a token or keys."
        ),
    )
    port: int = Field(8765, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    token: SecretStr | None = Field(
        None,
        min_length=SHORTEST_TOKEN,
        description=(
            "What a client must send as 'Authorization: Bearer'; none is asked for if unset. No "
            "flag: other programs can read command lines."
        ),
    )
    token_file: Path | None = Field(
        None, description="File with the token, which nobody else may read (0600)."
    )
    token_stdin: bool = Field(
        False, description="Read the token from the first line of standard input."
    )
    generate_token: bool = Field(
        False, description="Make a token at the start and tell it in the ready line."
    )
    token_keys: Path | None = Field(
        None,
        description=(
            "Public keys of signed tokens (JWT, ES256), a folder or a file of PEM; such tokens "
            "count then, and everybody else is refused. If unset: those of 'token create' where "
            "the service listens beyond the loopback, else none."
        ),
    )
    revoked_tokens: Path | None = Field(
        None,
        description=(
            "File with the ids of signed tokens that count no more, read again within 30 s of a "
            "change; 'revoked.txt' beside the folder of keys if unset."
        ),
    )
    allowed_hosts: Words = Field(
        (), description="Names that clients may use for this machine, beside those of the loopback."
    )
    allowed_origins: Words = Field(
        ("tauri://localhost", "http://tauri.localhost", "https://tauri.localhost"),
        description="Web pages that may use the service: the hosts' own.",
    )
    allow_localhost_origins: bool = Field(
        False, description="Whether pages of any server on this machine may (for development)."
    )
    tls: Literal["off", "self-signed"] = Field(
        "off",
        description=(
            "'self-signed' makes a certificate once, keeps it in the data folder, and tells its "
            "SHA-256 fingerprint in the ready line and the log."
        ),
    )
    tls_cert: Path | None = Field(
        None,
        description=(
            "File (PEM) with the certificate and its chain: the service speaks HTTPS. Read again "
            "when it changes; open connections stay."
        ),
    )
    tls_key: Path | None = Field(
        None, description="File (PEM) with its key; in the certificate's file if unset."
    )
    forwarded_allow_ips: Words = Field(
        (),
        description=(
            "Addresses or networks of proxies whose 'X-Forwarded-For' and 'X-Forwarded-Proto' "
            "are believed. What they send on stays a stranger's: it needs a token."
        ),
    )
    limit_requests: int | None = Field(
        None,
        ge=0,
        description=(
            "Requests a minute of one owner, and four times that of one address before it is "
            "known who asks; 0: any number. If unset: any number on the loopback, and 1200 where "
            "others can reach the service."
        ),
    )
    limit_jobs: int | None = Field(
        None,
        ge=0,
        description=(
            "Jobs of one owner at once; 0: any number. If unset: any number, or 32 where others "
            "can reach the service."
        ),
    )
    limit_queued_hours: float | None = Field(
        None,
        ge=0,
        description=(
            "Hours of audio that one owner may have waiting, one recording always; 0: any number. "
            "If unset: any number, or 24 where others can reach the service."
        ),
    )
    limit_upload_mb: int | None = Field(
        None,
        ge=0,
        description=(
            "MB that one owner may upload in an hour; the last upload may go beyond it. 0: any "
            "number. If unset: any number, or 16384 where others can reach the service."
        ),
    )
    takeover: bool = Field(
        False,
        description="Where another vibevoice-asr has the port: stop it, and take its place.",
    )
    reuse: bool = Field(
        False,
        description=(
            "Where another vibevoice-asr of this version has the port: say so in the ready line, "
            "and leave it to it."
        ),
    )
    parent_pid: int | None = Field(
        None,
        ge=1,
        description=(
            "Process to go with: the service ends when it does. Hosts that are known by their "
            "environment are watched without it."
        ),
    )
    exit_with_stdin: bool = Field(
        False, description="End when standard input is closed, as it is when the host ends."
    )
    request_deadline: Duration = Field(
        15.0, gt=0, description="How long a client may take to send the head of a request."
    )
    shutdown_grace: Duration = Field(
        10.0, ge=0, description="How long the running job may go on after the order to stop."
    )
    engine: Literal["auto", "vibevoice", "whisper", "moonshine", "upstream", "scripted"] = Field(
        "auto",
        description=(
            "Engine that transcribes: 'auto' takes VibeVoice-ASR where a GPU and its checkpoint "
            "are there, Whisper where 'language' is not English and a model of it is there, the "
            "embedded engine otherwise; 'vibevoice' takes it on a CPU too; 'whisper' is the one "
            "for other languages without a GPU; 'moonshine' is the embedded one; 'upstream' has "
            "another server do it, to which the recordings go ('auto' never does that); "
            "'scripted' answers at once with made-up text "
            "(for the developers of hosts)."
        ),
    )
    live_engine: Literal["auto", "vibevoice", "whisper", "voxtral", "moonshine", "scripted"] = (
        Field(
            "auto",
            description=(
                "Engine for live audio, in a process of its own: 'auto' takes the one that "
                "transcribes files where it can hear live, the embedded one otherwise; 'voxtral' "
                "hears nothing else."
            ),
        )
    )
    voice_engine: Literal[
        "auto", "none", "vibevoice", "moonshine", "system", "espeak", "speech", "scripted"
    ] = Field(
        "auto",
        description=(
            "Engine that speaks in conversations, in a process of its own: 'auto' takes what is "
            "here, 'none' leaves answers to be read; 'vibevoice' needs a GPU to keep up, and a "
            "checkpoint ('vibevoice-asr pull vibevoice-1.5b'); 'moonshine' has the voices that "
            "'vibevoice-asr pull voice' brought, 'system' those of macOS and Windows, "
            "'espeak' a robot's in a hundred languages (pip install 'vibevoice-asr[espeak]'); "
            "'speech' has a server speak, to which the answers go ('auto' never does that); "
            "'scripted' says tones (for the developers of pages)."
        ),
    )
    voice_path: Path | None = Field(
        None,
        description=(
            "Folder of a checkpoint of VibeVoice that speaks, or of a Hugging Face cache that has "
            "one; if unset, the cache that 'vibevoice-asr pull' fills."
        ),
    )
    voice_steps: int = Field(
        0,
        ge=0,
        le=MOST_STEPS,
        description=(
            "Steps of diffusion in which VibeVoice makes each 133 ms of what it says: fewer are "
            "quicker and rougher. 0 takes ten, and five where a machine is too slow for ten."
        ),
    )
    voices_dir: Path | None = Field(
        None,
        description=(
            "Folder of the voices that 'pull voice' brings; in the user's data folder if unset."
        ),
    )
    voices_url: str = Field(
        "",
        description=(
            "Server that 'pull voice' brings them from; that of the makers of moonshine-voice if "
            "unset."
        ),
    )
    speech_url: str = Field(
        "",
        description="Server with OpenAI's /v1/audio/speech, for the voice_engine 'speech'.",
    )
    speech_model: str | None = Field(None, description="Its model; 'tts-1' if unset.")
    speech_key: SecretStr | None = Field(
        None, description="Key that is sent to it as 'Authorization: Bearer'. No flag."
    )
    speech_key_file: Path | None = Field(
        None, description="File with that key, which nobody else may read (0600)."
    )
    llm: str = Field(
        "repeat",
        description=(
            "Who answers in conversations: 'repeat' says what it heard; 'auto' takes a language "
            "model that listens on this machine (Ollama, LM Studio, llama.cpp, vLLM), and repeats "
            "where there is none; an address such as 'http://127.0.0.1:11434' has OpenAI's chat "
            "completions."
        ),
    )
    conversations: int = Field(
        1, ge=0, description="Most spoken conversations at once; each is a live session, too."
    )
    talk_idle: Duration = Field(
        600.0,
        gt=0,
        description=(
            "How long a conversation waits for sound, for typed text or for another wish of its "
            "client's, once nothing is said any more, before it ends."
        ),
    )
    talk_ports: Annotated[TalkPorts | None, NoDecode, BeforeValidator(parse_talk_ports)] = Field(
        None,
        description=(
            "'original': conversations are had at port 8005 of the loopback, too, as the page of "
            "the speech-to-speech demo, served at port 3000, expects it; or other ports for the "
            "two, such as '8006:3001' (docs/talk.md)."
        ),
    )
    talk_instructions: str = Field(
        "You are spoken with. Answer in one or two short sentences, without lists or markup.",
        description="What a language model is told before a conversation.",
    )
    talk_voice: str = Field("", description="Voice that answers are said in; the engine's own.")
    llm_model: str = Field("", description="Its model; the server's first if unset.")
    llm_key: SecretStr | None = Field(
        None, description="Key that is sent to it as 'Authorization: Bearer'. No flag."
    )
    llm_key_file: Path | None = Field(
        None, description="File with that key, which nobody else may read (0600)."
    )
    llm_max_tokens: int = Field(200, ge=1, description="Most tokens of one of its answers.")
    llm_first_token: Duration = Field(
        20.0, gt=0, description="How long it may take to its first word: it may have to load."
    )
    llm_next_token: Duration = Field(
        10.0, gt=0, description="How long it may take from one word to the next."
    )
    language: Language = Field(
        AUTO,
        description=(
            "Language of most recordings, such as 'de': what is meant where a request names none, "
            "and what the engine 'auto' must know."
        ),
    )
    precision: Precision = Field(
        Precision.AUTO,
        description="Precision of the weights. An engine that lacks it takes its own and says so.",
    )
    model_path: Path | None = Field(
        None,
        description=(
            "Folder of a checkpoint of VibeVoice-ASR, or of a Hugging Face cache that has one "
            "(of a Whisper model in CTranslate2's layout for the engine 'whisper'); if unset, the "
            "cache that 'vibevoice-asr pull' fills. A folder that is named must be usable, with "
            "the engine 'auto' too."
        ),
    )
    whisper_model: str = Field(
        "",
        description=(
            "Which Whisper model, where several are there: 'tiny' to 'large-v3-turbo', "
            "'distil-large-v3' and others; if unset, the best that is there."
        ),
    )
    device: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="Device of engines that can use a GPU; 'auto' takes it if there is one."
    )
    memory_limit_mb: int | None = Field(
        None,
        ge=1,
        description="Most of the device's memory that the engine may take; unset: what is free.",
    )
    allow_download: bool = Field(
        False,
        description=(
            "Whether 'serve --engine vibevoice' may download a checkpoint that is missing "
            "(16.7 GB) before it starts; without it, it asks where it has a terminal."
        ),
    )
    upstream: Words = Field(
        (),
        description=(
            "Servers that do the hearing with the engine 'upstream', such as "
            "'http://192.168.1.20:8765'; of several the least loaded is taken (docs/upstream.md)."
        ),
    )
    upstream_dialect: Literal["auto", "sidecar", "openai", "vllm"] = Field(
        "auto",
        description=(
            "What kind of servers they are: 'sidecar' is another vibevoice-asr, 'openai' any with "
            "OpenAI's transcription API, 'vllm' VibeVoice-ASR in vLLM; 'auto' asks each of them."
        ),
    )
    upstream_model: str | None = Field(
        None, description="Model that an upstream is asked for; its first if unset."
    )
    upstream_key: SecretStr | None = Field(
        None, description="Key that is sent to the upstreams as 'Authorization: Bearer'. No flag."
    )
    upstream_key_file: Path | None = Field(
        None,
        description=(
            "File with that key, which nobody else may read (0600); with several lines, a key for "
            "each upstream in turn."
        ),
    )
    upstream_ca: Path | None = Field(
        None, description="File with certificates (PEM) to trust beside the usual ones, for https."
    )
    upstream_timeout: float = Field(
        3.0,
        gt=0,
        description=(
            "Longest time in seconds that an upstream may take for a second of audio, beside a "
            "minute for the beginning."
        ),
    )
    upstream_piece: Duration = Field(
        0.0,
        ge=0,
        description=(
            "Longest piece of a recording that is sent at once; 0 takes what the dialect allows "
            "(an hour, ten minutes for 'openai')."
        ),
    )
    diarization: Diarization = Field(
        Diarization.BALANCED,
        description=(
            "Effort to tell speakers apart: 'balanced' (the knee of the measured curve) or "
            "'accurate' (a third more work, for a few words)."
        ),
    )
    preload: bool = Field(
        False, description="Load the engine at the start instead of at the first request."
    )
    keep_alive: Duration = Field(
        600.0,
        ge=-1,
        description=(
            "How long an idle engine stays in memory (such as '10m'); 0 unloads it after each "
            "job, -1 keeps it."
        ),
    )
    queue_limit: int = Field(
        64,
        ge=1,
        description=(
            "Jobs that may wait, with those whose recordings are on their way; beyond it the "
            "answer is 503 with Retry-After, before the recording is read."
        ),
    )
    batch: int = Field(
        0,
        ge=0,
        le=8,
        description=(
            "Recordings of up to two minutes that are decoded in step where several wait; 0 takes "
            "8 on a GPU and 1 on a CPU, where it does not pay."
        ),
    )
    job_retention: Duration = Field(
        600.0, ge=0, description="How long the result of a finished job can be fetched."
    )
    job_retention_mb: int = Field(
        64,
        ge=1,
        description=(
            "Memory in MB for results that can be fetched; where they need more, the oldest go "
            "before their time. Without 'Prefer: respond-async' nothing is kept."
        ),
    )
    job_retention_count: int = Field(
        1000, ge=1, description="Most results of one owner that can be fetched."
    )
    keep_jobs: bool = Field(
        False,
        description=(
            "Whether jobs outlive a crash and a restart: those that are fetched later, with their "
            "recordings, encrypted, in a folder (docs/keeping-jobs.md). Nothing is kept without."
        ),
    )
    role: Literal["all", "front", "node"] = Field(
        ALL,
        description=(
            "What this service is of those that share a journal: 'front' takes requests in and "
            "works on none of them, 'node' works and takes none in, 'all' does both. Live audio is "
            "heard by the service that is asked (docs/scale.md)."
        ),
    )
    journal: Address | None = Field(
        None,
        description=(
            "Address of a PostgreSQL database in which several services share their jobs, such as "
            "postgresql://vibevoice@db.example/vibevoice (docs/journal.md). As with 'keep_jobs', "
            "and 'jobs_dir' has to be a folder that all of them see. A password in it is not taken "
            "from a command line, which other programs can read."
        ),
    )
    journal_file: Path | None = Field(
        None, description="File with that address, which nobody else may read (0600)."
    )
    keep_recordings_mb: int = Field(
        0,
        ge=0,
        description=(
            "With 'keep_jobs': disk in MB for recordings of jobs that are done, encrypted, so that "
            "they can be listened to as long as their transcripts are there; where those of one "
            "owner need more, the oldest go. With 0 a recording goes when its job ends."
        ),
    )
    jobs_dir: Path | None = Field(
        None, description="Folder of the jobs that are kept; in the user's data folder if unset."
    )
    journal_key: SecretStr | None = Field(
        None,
        min_length=SHORTEST_JOURNAL_KEY,
        description=(
            "Key that kept jobs, people and captures are encrypted with; the system's keyring has "
            "one if unset and the package 'keyring' is installed."
        ),
    )
    journal_key_file: Path | None = Field(
        None, description="File with that key, which nobody else may read (0600)."
    )
    people: bool = Field(
        False,
        description=(
            "Whether voices of people may be stored, to be recognised in later recordings: "
            "biometric data, encrypted, in one file (docs/people.md). Nothing is stored without."
        ),
    )
    people_dir: Path | None = Field(
        None, description="Folder of that file; in the user's data folder if unset."
    )
    live_sessions: int = Field(
        100, ge=0, description="Most live sessions at once; fewer where the engine hears fewer."
    )
    live_sessions_per_owner: int = Field(
        0, ge=0, description="Most live sessions of one owner; 0 is no limit of its own."
    )
    live_delay: Duration = Field(
        1.0,
        ge=0,
        description=(
            "While finals take so much longer than the engine takes alone, another live session is "
            "refused; 0 counts sessions only."
        ),
    )
    live_idle: Duration = Field(
        150.0, gt=0, description="How long a live session waits for sound before it ends."
    )
    live_longest: Duration = Field(5400.0, gt=0, description="How long a live session lasts.")
    live_grace: Duration = Field(
        15.0, ge=0, description="How long a live session waits for a client whose connection broke."
    )
    live_chunk: Duration = Field(
        10.0, gt=0, description="Most sound that one message of a live session may bring."
    )
    live_buffer: Duration = Field(
        60.0,
        ge=20,
        description="Sound of a live session that may wait for the engine; then its client waits.",
    )
    live_buffer_mb: int = Field(
        256, ge=1, description="MB of sound that all live sessions keep; beyond it clients wait."
    )
    live_ping: Duration = Field(
        20.0,
        gt=0,
        description=(
            "How often a live connection is asked whether somebody is there; who does not answer "
            "within the same time is not."
        ),
    )
    live_inbound: int = Field(
        256, ge=1, description="Messages of a live client that wait before its connection ends."
    )
    live_messages_per_minute: int = Field(
        5000, ge=0, description="Most messages of a live connection in a minute; 0 is no limit."
    )
    live_cancels_per_minute: int = Field(50, ge=0, description="Of these, cancels; 0 is no limit.")
    live_close_unauthorized: int = Field(
        4001,
        ge=1000,
        le=4999,
        description="Close code of '/api/asr-streaming' for who is not known (newer: 1008).",
    )
    live_close_busy: int = Field(
        4002,
        ge=1000,
        le=4999,
        description="Close code of '/api/asr-streaming' where there is no room (newer: 1013).",
    )
    live_close_idle_reason: str = Field(
        "idle timeout",
        max_length=100,
        description="Reason '/api/asr-streaming' closes what is idle with (newer: idle_timeout).",
    )
    live_timeout: Duration = Field(
        20.0, gt=0, description="How long one stretch of live speech may take to recognise."
    )
    live_short_windows: bool = Field(
        False,
        description=(
            "Whisper, live: words while somebody speaks are recognised in windows as long as what "
            "was said, several times cheaper than of half a minute. Nobody has trained the models "
            "for that, and what it does to the words is not known here; finals never are."
        ),
    )
    capture: bool = Field(
        False,
        description=(
            "Whether sound and events of live sessions are written to files for debugging, "
            "encrypted; every client is told (docs/capture.md)."
        ),
    )
    capture_dir: Path | None = Field(
        None, description="Folder of these files; in the user's data folder if unset."
    )
    capture_mb: int = Field(
        1024, ge=0, description="Most MB of captures; then the oldest go. 0: any number."
    )
    capture_files: int = Field(
        1000, ge=0, description="Most captured sessions; then the oldest go. 0: any number."
    )
    capture_age: Duration = Field(
        7 * 86_400, ge=0, description="How old a capture becomes before it goes; 0: any age."
    )
    capture_queue: int = Field(
        256,
        ge=1,
        description=(
            "Chunks of all captured sessions that wait for the disk; then the oldest are left out."
        ),
    )
    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description=(
            "Port for live audio over gRPC, on the same address as HTTP (docs/grpc.md); 0 takes a "
            "free one, which the ready line tells. There is no gRPC if unset."
        ),
    )
    grpc_message_mb: int = Field(
        8,
        ge=1,
        le=256,
        description=(
            "Largest gRPC message that is taken, in MB: the longest recording in one piece."
        ),
    )
    grpc_client_ca: Path | None = Field(
        None,
        description=(
            "File (PEM) with the certificates of those who vouch for clients over gRPC: who shows "
            "no certificate of theirs gets no connection (mTLS). Asks for --tls-cert or --tls "
            "self-signed; read again when it changes."
        ),
    )
    grpc_unused: Duration = Field(
        30.0, gt=0, description="How long a gRPC session that was created waits for its stream."
    )
    grpc_silence: Duration = Field(
        0.5,
        gt=0,
        le=60,
        description="Silence that ends an utterance of a gRPC session which names none.",
    )
    grpc_threshold: float = Field(
        0.5,
        ge=0,
        le=1,
        description=(
            "Probability of speech from which on somebody speaks in a gRPC session which names "
            "none; with 0 all is speech."
        ),
    )
    grpc_profile: Literal["realtime", "accurate"] = Field(
        "realtime", description="Decode profile of a gRPC session which names none."
    )
    grpc_task: Literal["transcribe", "translate"] = Field(
        "transcribe",
        description=(
            "Task of a gRPC session which names none; 'translate' (into English) where the "
            "engine can."
        ),
    )
    max_upload_mb: int = Field(2048, ge=1, description="Largest upload in MB.")
    upload_room_mb: int = Field(
        4096,
        ge=1,
        description=(
            "Most MB of uploads on their way at once; beyond it the answer is 503 with "
            "Retry-After. One alone may have more."
        ),
    )
    max_audio_hours: float = Field(5.0, gt=0, le=1000, description="Longest recording in hours.")
    upload_stall: Duration = Field(
        20.0,
        gt=0,
        description=(
            "Longest silence of a client that is sending. For all of it, it has three times that "
            "and what it takes at 8 KiB a second."
        ),
    )
    audio_roots: Folders = Field(
        (), description="Folders in which 'audio_path' must lie; anywhere if unset."
    )
    spool_dir: Path | None = Field(
        None, description="Folder for uploads in transit; the system's temporary folder if unset."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged (to stderr and the log file)."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Lines of text, or of JSON, on stderr and in the log file."
    )
    traces: str | None = Field(
        None,
        pattern=r"^https?://",
        description=(
            "Address of an OpenTelemetry collector (OTLP over HTTP), such as "
            "'http://127.0.0.1:4318': stages of jobs and of live sessions go there, nothing of "
            "what was said (docs/tracing.md). If unset: as the variables OTEL_… say, or nowhere."
        ),
    )
    data_dir: Path | None = Field(
        None,
        description=(
            "Folder for the log file and notes of crashes; the user's state folder if unset. No "
            "audio and no transcript is ever written there, with 'keep_jobs' neither."
        ),
    )

    health_window: Duration = Field(
        60.0,
        gt=0,
        description=(
            "Of how much time the outcomes count that say whether the service is healthy "
            "(docs/operations.md)."
        ),
    )
    health_min_events: int = Field(
        5, ge=1, description="Fewer outcomes than these within that time say nothing."
    )
    health_max_timeout_ratio: float = Field(
        0.5, ge=0, le=1, description="Where more of them than this came too late, it is not."
    )
    health_min_success_ratio: float = Field(
        0.5, ge=0, le=1, description="Where fewer of them than this went well, it is not."
    )
    health_errors: bool | None = Field(
        None,
        description=(
            "Whether '/health' answers 500 while the service is not healthy. If unset: where gRPC "
            "is served; hosts of the sidecar take anything but 200 for its end."
        ),
    )
    admin: bool = Field(
        False,
        description=(
            "Whether models can be loaded and exchanged at '/admin/…' by who has a token with the "
            "scope 'admin' (docs/operations.md)."
        ),
    )
    admin_model_roots: Folders = Field(
        (), description="Folders from which models may be loaded there; none if unset."
    )
    metrics_open: bool = Field(
        False,
        description=(
            "Whether '/metrics', '/metrics.json' and '/system' are answered without a token where "
            "one is asked for elsewhere."
        ),
    )
    metrics_owners: bool = Field(
        False,
        description=(
            "Whether the metrics have the live sessions of each owner, by name: personal data, and "
            "a label for each."
        ),
    )

    @property
    def shares_jobs(self) -> bool:
        """Whether other services have the same jobs."""
        return self.journal is not None or self.journal_file is not None

    @property
    def keeps_jobs(self) -> bool:
        """Whether jobs outlive the service."""
        return self.keep_jobs or self.shares_jobs

    @property
    def encrypted(self) -> bool:
        """Whether the service speaks HTTPS."""
        return self.tls != "off" or self.tls_cert is not None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, the same by others' names, file; neither .env nor secret folders."""
        files = _Files(settings_cls, init_settings())
        return init_settings, env_settings, _AsElsewhere(settings_cls), files


ELSEWHERE = {
    "MAX_CONCURRENT_CONNECTIONS": "live_sessions",
    "WS_IDLE_TIMEOUT_S": "live_idle",
    "WS_MAX_CONNECTION_DURATION_S": "live_longest",
    "WS_INBOUND_QUEUE_MAX": "live_inbound",
    "WS_MAX_MESSAGES_PER_WINDOW": "live_messages_per_minute",
    "WS_MAX_CANCELS_PER_WINDOW": "live_cancels_per_minute",
    "WS_CLOSE_UNAUTHORIZED_CODE": "live_close_unauthorized",
    "WS_CLOSE_BUSY_CODE": "live_close_busy",
    "WS_CLOSE_IDLE_REASON": "live_close_idle_reason",
}
"""Settings by the names that they have with the server whose wire is at `/api/asr-streaming`
(docs/live.md)."""


class _AsElsewhere(PydanticBaseSettingsSource):
    """The environment of a deployment that had that server before. What there means "as usual"
    (nothing, zero and below, or "off") means so here too."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        given = {name: os.environ.get(foreign, "") for foreign, name in ELSEWHERE.items()}
        usual = re.compile(r"\s*(|none|off|-.*|0+(\.0*)?)\s*", re.IGNORECASE)
        return {name: value for name, value in given.items() if not usual.fullmatch(value)}


class _Files(PydanticBaseSettingsSource):
    """The file with settings, and the one of the model; ``given`` as flags, or by the
    environment."""

    def __init__(self, settings_cls: type[BaseSettings], given: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._given = given

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        named, model = self._given.get("config"), self._given.get("config_model")
        model = model or os.environ.get(f"{ENV_PREFIX}CONFIG_MODEL")
        file = Path(named) if named else config_file()
        is_there = bool(named) or file.exists()
        meant = _read(file if is_there else None, Path(model) if model else None)
        return dict(meant.settings)


def unheeded(settings: Settings) -> tuple[str, ...]:
    """Keys of the file that nothing here corresponds to: in one of another server's.

    Raises:
        errors.SettingsInvalid: it can be read no more.
    """
    file = settings.config
    if file is not None and not (is_yaml(file) and file.exists()):
        file = None
    return tuple(_read(file, settings.config_model).unheeded)


def _read(file: Path | None, model: Path | None) -> Meant:
    names = [name for name in Settings.model_fields if not name.startswith("config")]
    return read_settings(file, model, names)


def load_settings(**flags: Any) -> Settings:
    """The settings in force, with ``flags`` (those that were given) on top.

    Raises:
        errors.SettingsInvalid: a value is not possible; the detail names the setting.
    """
    if Address(str(flags.get("journal") or "")).has_password:
        raise errors.SettingsInvalid(
            "Other programs can read the password on the command line.",
            hint="Give it in VIBEVOICE_JOURNAL, by --journal-file FILE, or in PGPASSWORD.",
        )
    try:
        return Settings(**flags)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise errors.SettingsInvalid(f"Bad setting: {wrong}.") from None
    except (OSError, ValueError) as error:  # pydantic's own trouble with the environment
        raise errors.SettingsInvalid(f"The settings cannot be read: {error}") from None
