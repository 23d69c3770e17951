"""Options of a gRPC session: what CreateSession asks for, and the answer."""

from dataclasses import dataclass

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import AUTO, EngineSpec
from sidecar.interfaces.language_tags import parse_language
from sidecar.interfaces.live_options import (
    EndpointingOptions,
    LiveOptions,
    TurnControl,
    field_limits,
)
from sidecar.plugins.grpc_stt import errors as codes
from sidecar.plugins.grpc_stt import stt_pb2
from sidecar.plugins.grpc_stt.settings import GrpcSettings

PROFILES = {
    "realtime": stt_pb2.DECODE_PROFILE_REALTIME,
    "accurate": stt_pb2.DECODE_PROFILE_ACCURATE,
}
API_KEY_NAMES = ("x-api-key", "api-key", "api_key")
"""Names of a key beside `authorization`: all as metadata, the last two also as attributes."""
_TRUE = frozenset({"1", "true", "yes", "on"})
LONGEST_ID = 256
MOST_ATTRIBUTES = 64 << 10
"""Maximum characters of all attributes together: they are returned to the client."""


@dataclass(frozen=True, slots=True)
class GrpcSessionOptions:
    """Options of a session to be created. ``key``: the API key among the attributes."""

    request: stt_pb2.SessionRequest
    options: LiveOptions
    profile: str
    key: str

    def answer(self, token: str) -> stt_pb2.SessionResponse:
        """Return the response for the client."""
        language = "" if self.options.language == AUTO else self.options.language
        given = self.request.attributes
        attributes = {name: given[name] for name in given if name not in API_KEY_NAMES}
        attributes["decode_profile"] = self.profile
        one = self.options.turns is TurnControl.ONE
        return stt_pb2.SessionResponse(
            attributes=attributes | ({"language_code": language} if language else {}),
            vad_mode=stt_pb2.VAD_AUTO_END if one else stt_pb2.VAD_CONTINUE,
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
        errors.TokenMissing: it is missing and required.
    """
    given = request.attributes
    key = next((given[name] for name in ("api_key", "api-key") if given.get(name)), "")
    required = (given.get(name, "") for name in ("api_key_required", "api-key-required"))
    if not key and any(value.strip().lower() in _TRUE for value in required):
        raise errors.TokenMissing()
    return str(key)


def session_options(
    request: stt_pb2.SessionRequest, spec: EngineSpec, settings: Settings
) -> GrpcSessionOptions:
    """Return the options of a request, limited to what ``spec`` supports; ``settings`` has the
    defaults.

    Raises:
        errors.BadRequest, errors.TokenMissing: a value is not valid.
    """
    if not request.session_id:
        raise codes.GrpcSessionIdMissing()
    if len(request.session_id) > LONGEST_ID:
        raise codes.GrpcOptionInvalid(f"session_id has more than {LONGEST_ID} characters")
    if sum(len(one) for item in request.attributes.items() for one in item) > MOST_ATTRIBUTES:
        raise codes.GrpcOptionInvalid("the attributes are too long")
    grpc_settings = GrpcSettings.of(settings)
    profile = _profile(request, grpc_settings.grpc_profile)
    translates = request.task == stt_pb2.TASK_TRANSLATE or (
        request.task == stt_pb2.TASK_UNSPECIFIED and grpc_settings.grpc_task == "translate"
    )
    options = LiveOptions(
        language=_language(request.language_code, spec, settings.language),
        turns=TurnControl.ONE if request.vad_mode == stt_pb2.VAD_AUTO_END else TurnControl.SILENCE,
        endpointing=_endpointing(request, grpc_settings),
        diarize=False,
        translate=translates and spec.translates,
        accurate=profile == "accurate",
        keep=grpc_settings.grpc_keep,
    )
    return GrpcSessionOptions(request, options, profile, api_key_in(request))


def _endpointing(
    request: stt_pb2.SessionRequest, grpc_settings: GrpcSettings
) -> EndpointingOptions:
    threshold = grpc_settings.grpc_threshold
    if request.HasField("vad_threshold_override"):
        threshold = request.vad_threshold_override
    elif request.vad_threshold != 0:
        threshold = request.vad_threshold
    if threshold < 0:
        raise codes.GrpcThresholdInvalid()
    limits = field_limits(EndpointingOptions)
    if threshold not in limits["threshold"]:
        raise codes.GrpcThresholdInvalid("vad_threshold must lie between 0 and 1")
    silence_s = grpc_settings.grpc_silence if request.vad_silence <= 0 else request.vad_silence
    if silence_s not in limits["silence_s"]:
        raise codes.GrpcOptionInvalid(f"vad_silence must be {limits['silence_s']} s")
    return EndpointingOptions(silence_s=silence_s).with_threshold(threshold)


def _profile(request: stt_pb2.SessionRequest, default: str) -> str:
    for name, number in PROFILES.items():
        if request.decode_profile == number:
            return name
    given = request.attributes
    named = given.get("decode_profiles") or given.get("decode_profile") or ""
    return named if named in PROFILES else default


def _language(code: str, spec: EngineSpec, default: str) -> str:
    """Return the language for the engine. If it does not support the language, it detects it, as
    this protocol specifies."""
    if not code.strip():
        return default if spec.speaks(default) else AUTO
    try:
        tag = parse_language(code.strip().lower())
    except errors.LanguageInvalid:
        return AUTO
    return tag if spec.speaks(tag) else AUTO
