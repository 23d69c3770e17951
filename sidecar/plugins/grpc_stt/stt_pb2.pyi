from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VADMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VAD_CONTINUE: _ClassVar[VADMode]
    VAD_AUTO_END: _ClassVar[VADMode]

class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_UNSPECIFIED: _ClassVar[Task]
    TASK_TRANSCRIBE: _ClassVar[Task]
    TASK_TRANSLATE: _ClassVar[Task]

class DecodeProfile(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECODE_PROFILE_UNSPECIFIED: _ClassVar[DecodeProfile]
    DECODE_PROFILE_REALTIME: _ClassVar[DecodeProfile]
    DECODE_PROFILE_ACCURATE: _ClassVar[DecodeProfile]
VAD_CONTINUE: VADMode
VAD_AUTO_END: VADMode
TASK_UNSPECIFIED: Task
TASK_TRANSCRIBE: Task
TASK_TRANSLATE: Task
DECODE_PROFILE_UNSPECIFIED: DecodeProfile
DECODE_PROFILE_REALTIME: DecodeProfile
DECODE_PROFILE_ACCURATE: DecodeProfile

class SessionRequest(_message.Message):
    __slots__ = ("session_id", "attributes", "vad_mode", "vad_silence", "vad_threshold", "require_token", "language_code", "task", "decode_profile", "vad_threshold_override")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    VAD_MODE_FIELD_NUMBER: _ClassVar[int]
    VAD_SILENCE_FIELD_NUMBER: _ClassVar[int]
    VAD_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    REQUIRE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    DECODE_PROFILE_FIELD_NUMBER: _ClassVar[int]
    VAD_THRESHOLD_OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    attributes: _containers.ScalarMap[str, str]
    vad_mode: VADMode
    vad_silence: float
    vad_threshold: float
    require_token: bool
    language_code: str
    task: Task
    decode_profile: DecodeProfile
    vad_threshold_override: float
    def __init__(self, session_id: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., vad_mode: _Optional[_Union[VADMode, str]] = ..., vad_silence: _Optional[float] = ..., vad_threshold: _Optional[float] = ..., require_token: bool = ..., language_code: _Optional[str] = ..., task: _Optional[_Union[Task, str]] = ..., decode_profile: _Optional[_Union[DecodeProfile, str]] = ..., vad_threshold_override: _Optional[float] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("attributes", "vad_mode", "vad_silence", "vad_threshold", "token", "token_required", "language_code", "task", "decode_profile")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    VAD_MODE_FIELD_NUMBER: _ClassVar[int]
    VAD_SILENCE_FIELD_NUMBER: _ClassVar[int]
    VAD_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    DECODE_PROFILE_FIELD_NUMBER: _ClassVar[int]
    attributes: _containers.ScalarMap[str, str]
    vad_mode: VADMode
    vad_silence: float
    vad_threshold: float
    token: str
    token_required: bool
    language_code: str
    task: Task
    decode_profile: DecodeProfile
    def __init__(self, attributes: _Optional[_Mapping[str, str]] = ..., vad_mode: _Optional[_Union[VADMode, str]] = ..., vad_silence: _Optional[float] = ..., vad_threshold: _Optional[float] = ..., token: _Optional[str] = ..., token_required: bool = ..., language_code: _Optional[str] = ..., task: _Optional[_Union[Task, str]] = ..., decode_profile: _Optional[_Union[DecodeProfile, str]] = ...) -> None: ...

class AudioChunk(_message.Message):
    __slots__ = ("pcm16", "sample_rate", "is_final", "session_id", "session_token")
    PCM16_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pcm16: bytes
    sample_rate: int
    is_final: bool
    session_id: str
    session_token: str
    def __init__(self, pcm16: _Optional[bytes] = ..., sample_rate: _Optional[int] = ..., is_final: bool = ..., session_id: _Optional[str] = ..., session_token: _Optional[str] = ...) -> None: ...

class STTResult(_message.Message):
    __slots__ = ("text", "is_final", "start_sec", "end_sec", "language_code", "language", "probability", "committed_text", "unstable_text")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    START_SEC_FIELD_NUMBER: _ClassVar[int]
    END_SEC_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_TEXT_FIELD_NUMBER: _ClassVar[int]
    UNSTABLE_TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    is_final: bool
    start_sec: float
    end_sec: float
    language_code: str
    language: str
    probability: float
    committed_text: str
    unstable_text: str
    def __init__(self, text: _Optional[str] = ..., is_final: bool = ..., start_sec: _Optional[float] = ..., end_sec: _Optional[float] = ..., language_code: _Optional[str] = ..., language: _Optional[str] = ..., probability: _Optional[float] = ..., committed_text: _Optional[str] = ..., unstable_text: _Optional[str] = ...) -> None: ...
