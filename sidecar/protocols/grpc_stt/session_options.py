"""Session options of CreateSession, including VAD. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import AUTO, EngineSpec
from sidecar.interfaces.live_options import (
    EndpointingOptions,
    LiveOptions,
    TurnControl,
    field_limits,
)
from sidecar.interfaces.request_options import parse_language
from sidecar.protocols.grpc_stt import errors as codes
from sidecar.protocols.grpc_stt import interceptor, stt_pb2

PROFILES = {
    "realtime": stt_pb2.DECODE_PROFILE_REALTIME,
    "accurate": stt_pb2.DECODE_PROFILE_ACCURATE,
}
_TRUE = frozenset({"1", "true", "yes", "on"})
HYSTERESIS = 0.15
"""Hysteresis of the threshold: speech continues down to this much below it."""
LONGEST_ID = 256
MOST_ATTRIBUTES = 64 << 10
"""Maximum characters of all attributes together: they are returned to the client."""


@dataclass(frozen=True, slots=True)
class GrpcSessionOptions:
    """Options of a session to be created. ``key``: the API key among the attributes."""

    session_id: str
    options: LiveOptions
    profile: str
    vad_mode: stt_pb2.VADMode
    attributes: Mapping[str, str]
    with_token: bool
    key: str

    def answer(self, token: str) -> stt_pb2.SessionResponse:
        """Return the response for the client."""
        language = "" if self.options.language == AUTO else self.options.language
        attributes = {**self.attributes, "decode_profile": self.profile}
        return stt_pb2.SessionResponse(
            attributes=attributes | ({"language_code": language} if language else {}),
            vad_mode=self.vad_mode,
            vad_silence=self.options.endpointing.silence_s,
            vad_threshold=self.options.endpointing.threshold,
            token=token,
            token_required=bool(token),
            language_code=language,
            task=stt_pb2.TASK_TRANSLATE if self.options.translate else stt_pb2.TASK_TRANSCRIBE,
            decode_profile=PROFILES[self.profile],
        )


def api_key_in(request: stt_pb2.SessionRequest) -> str:
    """Return the API key among the attributes, or "".

    Raises:
        codes.GrpcRefused: it is missing and required.
    """
    given = request.attributes
    key = next((given[name] for name in ("api_key", "api-key") if given.get(name)), "")
    required = (given.get(name, "") for name in ("api_key_required", "api-key-required"))
    if not key and any(value.strip().lower() in _TRUE for value in required):
        raise codes.GrpcRefused(codes.NO_KEY)
    return str(key)


def session_options(
    request: stt_pb2.SessionRequest, spec: EngineSpec | None, settings: Settings
) -> GrpcSessionOptions:
    """Return the options of a request, limited to what ``spec`` supports; ``settings`` has the
    defaults.

    Raises:
        codes.GrpcRefused: a value is not valid.
    """
    if not request.session_id:
        raise codes.GrpcRefused(codes.NO_SESSION_ID)
    if len(request.session_id) > LONGEST_ID:
        raise codes.GrpcRefused(
            codes.OPTION_INVALID, f"session_id has more than {LONGEST_ID} characters"
        )
    given = dict(request.attributes)
    if sum(len(name) + len(value) for name, value in given.items()) > MOST_ATTRIBUTES:
        raise codes.GrpcRefused(codes.OPTION_INVALID, "the attributes are too long")
    profile = _profile(request, settings.grpc_profile)
    translates = request.task == stt_pb2.TASK_TRANSLATE or (
        request.task == stt_pb2.TASK_UNSPECIFIED and settings.grpc_task == "translate"
    )
    options = LiveOptions(
        language=_language(request.language_code, spec, settings.language),
        turns=TurnControl.ONE if request.vad_mode == stt_pb2.VAD_AUTO_END else TurnControl.SILENCE,
        endpointing=_endpointing(request, settings),
        diarize=False,
        translate=translates and spec is not None and spec.translates,
        accurate=profile == "accurate",
    )
    return GrpcSessionOptions(
        session_id=request.session_id,
        options=options,
        profile=profile,
        vad_mode=stt_pb2.VAD_AUTO_END if options.turns is TurnControl.ONE else stt_pb2.VAD_CONTINUE,
        attributes={
            name: value for name, value in given.items() if name not in interceptor.API_KEY_NAMES
        },
        with_token=request.require_token,
        key=api_key_in(request),
    )


def _endpointing(request: stt_pb2.SessionRequest, settings: Settings) -> EndpointingOptions:
    threshold = settings.grpc_threshold
    if request.HasField("vad_threshold_override"):
        threshold = request.vad_threshold_override
    elif request.vad_threshold != 0:
        threshold = request.vad_threshold
    if threshold < 0:
        raise codes.GrpcRefused(codes.VAD_INVALID)
    limits = field_limits(EndpointingOptions)
    if threshold not in limits["threshold"]:
        raise codes.GrpcRefused(codes.VAD_INVALID, "vad_threshold must lie between 0 and 1")
    silence_s = settings.grpc_silence if request.vad_silence <= 0 else request.vad_silence
    if silence_s not in limits["silence_s"]:
        raise codes.GrpcRefused(
            codes.OPTION_INVALID, f"vad_silence must be {limits['silence_s']} s"
        )
    return EndpointingOptions(
        threshold=threshold,
        neg_threshold=max(0.0, threshold - HYSTERESIS),
        sure_threshold=max(EndpointingOptions().sure_threshold, threshold),
        silence_s=silence_s,
    )


def _profile(request: stt_pb2.SessionRequest, usual: str) -> str:
    for name, number in PROFILES.items():
        if request.decode_profile == number:
            return name
    given = request.attributes
    named = given.get("decode_profiles") or given.get("decode_profile") or ""
    return named if named in PROFILES else usual


def _language(code: str, spec: EngineSpec | None, usual: str) -> str:
    """Return the language for the engine. If it does not support the language, it detects it, as
    this protocol specifies."""
    if not code.strip():
        return usual if spec is None or spec.speaks(usual) else AUTO
    try:
        tag = parse_language(code.strip().lower())
    except errors.LanguageInvalid:
        return AUTO
    return tag if spec is None or spec.speaks(tag) else AUTO
