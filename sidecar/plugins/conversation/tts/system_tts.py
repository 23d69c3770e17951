"""TTS engine of the operating system: macOS, Windows.

Each text is synthesized by a child process that writes a wav file; cancelling kills the process.
"""

import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

from sidecar import errors
from sidecar.child_processes import NO_WINDOW
from sidecar.interfaces.engine_interface import (
    CancelCheck,
    LoadOptions,
    SynthesisOptions,
    SynthesizedAudio,
    TtsSpec,
    abbreviate_names,
)

SPEC = TtsSpec(
    name="system",
    factory="sidecar.plugins.conversation.tts.system_tts:SystemTts",
    title="The voices of this system",
)

RATE = 22_050
WORDS_PER_MINUTE = 175
"""Default speed of `say`."""
PROCESS_POLL_S = 0.02
"""Interval of checks whether the process has ended or the synthesis was cancelled."""
SYNTHESIS_TIMEOUT_S = 60.0
SAY, POWERSHELL = "say", "powershell"
_LIST_SCRIPT = (
    "Add-Type -AssemblyName System.Speech;"
    "(New-Object System.Speech.Synthesis.SpeechSynthesizer).GetInstalledVoices()|"
    "%{$_.VoiceInfo.Name}"
)
_SPEAK_SCRIPT = (
    "param($file,$voice,$rate)Add-Type -AssemblyName System.Speech;"
    "$s=New-Object System.Speech.Synthesis.SpeechSynthesizer;"
    "if($voice){$s.SelectVoice($voice)};$s.Rate=$rate;"
    "[Console]::InputEncoding=[Text.Encoding]::UTF8;"
    "$f=New-Object System.Speech.AudioFormat.SpeechAudioFormatInfo(22050,"
    "[System.Speech.AudioFormat.AudioBitsPerSample]::Sixteen,"
    "[System.Speech.AudioFormat.AudioChannel]::Mono);"
    "$s.SetOutputToWaveFile($file,$f);$s.Speak([Console]::In.ReadToEnd());$s.Dispose()"
)


def is_system_tts_available() -> bool:
    """Return whether the operating system has TTS voices."""
    return _find_program() is not None


class SystemTts:
    """TTS engine of the operating system."""

    def __init__(self, program: str = "") -> None:
        """``program``: the system's TTS program; '' to find it."""
        self._program = program
        self._voices: tuple[str, ...] = ()

    def load(self, options: LoadOptions) -> Iterator[float]:
        """Find the system's TTS program and list its voices.

        Raises:
            errors.ModelLoadFailed: the operating system has no TTS program.
        """
        program = self._program or _find_program()
        if program is None:
            raise errors.ModelLoadFailed("This operating system has no TTS voices.")
        self._program = program
        listing = [program, "-v", "?"]
        if not _is_say_command(program):
            listing = _powershell_command(program, _LIST_SCRIPT)
        done = subprocess.run(
            listing,
            capture_output=True,
            timeout=SYNTHESIS_TIMEOUT_S,
            check=False,
            creationflags=NO_WINDOW,
        )
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        names = (line.split("  ")[0].strip() for line in lines)  # `say` adds languages and samples
        self._voices = tuple(name for name in names if name)
        yield 1.0

    def voices(self) -> Sequence[str]:
        """Return the voices in the system's order."""
        return self._voices

    def say(
        self, text: str, options: SynthesisOptions, cancelled: CancelCheck
    ) -> Iterator[SynthesizedAudio]:
        """Synthesize as `TtsEngine.say`, with all audio at once.

        Raises:
            errors.EngineFailed: the program failed or did not finish in time.
        """
        if options.voice and options.voice not in self._voices:
            raise errors.VoiceUnknown(hint=f"Use one of: {abbreviate_names(self._voices)}.")
        with tempfile.TemporaryDirectory(prefix="vibevoice-say-") as scratch:
            file = Path(scratch) / "said.wav"
            if self._written(text, options, file, cancelled):
                yield _read_wav(file)

    def _written(
        self, text: str, options: SynthesisOptions, file: Path, cancelled: CancelCheck
    ) -> bool:
        """Write speech to ``file``; return `False` if the synthesis was cancelled."""
        process = subprocess.Popen(
            self._command(options, file),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            creationflags=NO_WINDOW,
        )
        waited_s, raw = 0.0, text.encode()
        try:
            while not cancelled():
                try:
                    process.communicate(raw, timeout=PROCESS_POLL_S)
                except subprocess.TimeoutExpired:
                    raw, waited_s = b"", waited_s + PROCESS_POLL_S
                    if waited_s > SYNTHESIS_TIMEOUT_S:
                        raise errors.EngineFailed(
                            "The TTS of the operating system did not finish in time."
                        ) from None
                    continue
                if process.returncode:
                    ended = f"The system's voice ended with {process.returncode}."
                    raise errors.EngineFailed(ended)
                return True
            return False
        finally:
            process.kill()
            process.wait()

    def _command(self, options: SynthesisOptions, file: Path) -> list[str]:
        if _is_say_command(self._program):
            voice = ["-v", options.voice] if options.voice else []
            speed = ["-r", str(round(WORDS_PER_MINUTE * options.speed))]
            into = ["-o", str(file), f"--data-format=LEI16@{RATE}", "-f", "-"]
            return [self._program, *voice, *speed, *into]
        pace = max(-10, min(10, round(10 * (options.speed - 1))))
        path, voice_name = _quote_argument(str(file)), _quote_argument(options.voice)
        script = f"& {{{_SPEAK_SCRIPT}}} {path} {voice_name} {pace}"
        return _powershell_command(self._program, script)


def _find_program() -> str | None:
    name = {"darwin": SAY, "win32": POWERSHELL}.get(sys.platform)
    return shutil.which(name) if name else None


def _is_say_command(program: str) -> bool:
    return Path(program).stem.lower() == SAY


def _powershell_command(program: str, script: str) -> list[str]:
    return [program, "-NoProfile", "-NonInteractive", "-Command", script]


def _quote_argument(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _read_wav(file: Path) -> SynthesizedAudio:
    try:
        with wave.open(str(file)) as sound:
            if (sound.getnchannels(), sound.getsampwidth()) != (1, 2):
                raise errors.EngineFailed(
                    "The TTS of the operating system returned an unexpected audio format."
                )
            return SynthesizedAudio(sound.readframes(sound.getnframes()), sound.getframerate())
    except (OSError, EOFError, wave.Error):
        raise errors.EngineFailed("The TTS of the operating system returned no audio.") from None
