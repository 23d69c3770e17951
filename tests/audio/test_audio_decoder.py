"""Files in, bounded mono blocks out; and where they come from."""

import errno
import itertools
import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
from open_descriptors import opened
from recordings import Studio, wav
from service_process import PATIENCE_S, new_file
from uploads import decoded

from sidecar import errors, files
from sidecar.audio import audio_format, audio_source, ffmpeg, ffmpeg_command
from sidecar.audio.audio_decoder import AudioInfo, decode_audio_file, open_audio, probe_audio
from sidecar.audio.audio_format import CONTAINERS, FLAC, MP3, MP4, AudioContainer
from sidecar.audio.audio_source import open_recording_file
from sidecar.audio.upload_spool import UploadSpool
from sidecar.errors import Fault
from sidecar.jobs.faults import fault_of
from sidecar.workers.worker_operations import ReadWatch

RATE = 16_000
READ = "sidecar.windows_files.read_at" if os.name == "nt" else "os.pread"
"""The function by which a recording is read."""


def sine(path: Path, *, rate: int, channels: int = 1, hertz: float = 440.0) -> Path:
    """Two seconds of a tone at half of full scale."""
    phase = 2 * np.pi * hertz * np.arange(2 * rate) / rate
    mono = (0.5 * np.sin(phase) * 32767).astype("<i2")
    path.write_bytes(wav(np.repeat(mono, channels).tobytes(), rate=rate, channels=channels))
    return path


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_resampling_to_mono_keeps_length_pitch_and_level(
    rate: int, channels: int, tmp_path: Path
) -> None:
    audio = decode_audio_file(sine(tmp_path / "a.wav", rate=rate, channels=channels), RATE)
    assert audio.dtype == np.float32
    assert audio.shape == (pytest.approx(2 * RATE, abs=2),)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    assert np.argmax(spectrum) * RATE / len(audio) == pytest.approx(440.0, abs=1.0)
    assert np.sqrt(np.mean(audio[1000:-1000] ** 2)) == pytest.approx(0.5 / 2**0.5, rel=0.01)


@pytest.mark.slow_except("m4a", "flac")
@pytest.mark.parametrize("codec", ["m4a", "webm-opus", "wma", "aac", "ogg-opus", "flac", "caf"])
def test_audio_of_every_codec_correlates_with_the_original(codec: str, studio: Studio) -> None:
    original = decode_audio_file(studio.voice, RATE)
    audio = decode_audio_file(studio.path(codec), RATE)
    count = min(len(original), len(audio)) - 4000
    heard = original[2000 : 2000 + count]
    shift = int(np.argmax(np.correlate(audio[: count + 4000], heard, "valid")))
    assert np.corrcoef(heard, audio[shift : shift + count])[0, 1] > 0.9


def test_nan_and_infinity_are_decoded_as_zero_and_loud_samples_are_clipped(tmp_path: Path) -> None:
    values = [float("nan"), float("inf"), -float("inf"), 7.0, -7.0, 0.25] * 3000
    path = tmp_path / "a.wav"
    path.write_bytes(wav(struct.pack(f"<{len(values)}f", *values), tag=3, bits=32))
    audio = decode_audio_file(path, RATE)
    assert audio[:6].tolist() == [0.0, 0.0, 0.0, 1.0, -1.0, 0.25]
    assert np.isfinite(audio).all()


def test_decoded_blocks_have_bounded_samples_and_the_decoded_seconds_are_counted(
    tmp_path: Path,
) -> None:
    path = sine(tmp_path / "a.wav", rate=8_000, channels=6)
    with path.open("rb", buffering=0) as file:
        facts = probe_audio(file.fileno(), 60.0)
        with open_audio(file.fileno(), facts, rate=RATE, max_s=60.0) as audio:
            sizes = [len(block) for block in audio]
            assert audio.done_s == pytest.approx(2.0, abs=0.001)
    assert max(sizes) <= 1 << 19


def test_skipped_seconds_are_silence_and_all_else_is_as_in_the_whole(tmp_path: Path) -> None:
    path = sine(tmp_path / "a.wav", rate=RATE)
    with path.open("rb", buffering=0) as file:
        facts = probe_audio(file.fileno(), 60.0)
        heard, levels = [], []
        for skip_s in (0.0, 0.75):
            with open_audio(file.fileno(), facts, rate=RATE, max_s=60.0, skip_s=skip_s) as audio:
                heard.append(np.concatenate(list(audio)))
                levels.append(audio.peaks.since(0))
    whole, rest = heard
    first = round(0.75 * RATE)
    assert not rest[:first].any()
    assert np.array_equal(rest[first:], whole[first:])
    assert whole[:first].any()
    assert levels[0] == levels[1], "the strip of the player shows all of it"


def test_wav_without_samples_is_refused_by_the_probe(tmp_path: Path) -> None:
    path = new_file(tmp_path / "a.wav", wav(b""))
    with path.open("rb") as file, pytest.raises(errors.AudioUndecodable):
        probe_audio(file.fileno(), 3600)


def test_probe_and_decoder_refuse_a_recording_longer_than_the_limit(tmp_path: Path) -> None:
    path = sine(tmp_path / "a.wav", rate=RATE)
    with path.open("rb", buffering=0) as file:
        facts = AudioInfo("wav", "sndfile", None)
        with (
            pytest.raises(errors.AudioTooLong),
            open_audio(file.fileno(), facts, rate=RATE, max_s=1.0) as audio,
        ):
            list(audio)
        with pytest.raises(errors.AudioTooLong):
            probe_audio(file.fileno(), 1.0)


@pytest.fixture(scope="module")
def forty_seconds(studio: Studio) -> tuple[bytes, np.ndarray]:
    """A flac of three blocks, and its samples."""
    path = studio.make("forty-seconds.flac", "-stream_loop", 13, "-i", studio.voice, "-t", 40)
    return path.read_bytes(), decode_audio_file(path, RATE)


@pytest.mark.parametrize("count", [0, None], ids=["streamed", "counted"])
@pytest.mark.parametrize("share", [0.03, 0.3, 0.6, 0.9, 0.999])
def test_truncated_flac_is_decoded_up_to_the_cut_and_marked_truncated(
    share: float, count: int | None, forty_seconds: tuple[bytes, np.ndarray]
) -> None:
    """``count``: what its header says of its samples; 0: nothing."""
    audio, whole = bytearray(forty_seconds[0]), forty_seconds[1]
    if count is not None:
        audio[18:26] = (int.from_bytes(audio[18:26]) >> 36 << 36 | count).to_bytes(8)
    assert len(whole) == 40 * RATE
    part, truncated = decoded(bytes(audio[: int(len(audio) * share)]))
    assert len(part) / len(whole) == pytest.approx(share, abs=0.02)
    assert np.array_equal(part, whole[: len(part)])
    assert truncated


def test_recording_that_is_read_elsewhere_while_ffmpeg_decodes_it_is_decoded_whole(
    forty_seconds: tuple[bytes, np.ndarray], tmp_path: Path
) -> None:
    path = new_file(tmp_path / "a.flac", forty_seconds[0])
    with path.open("rb", buffering=0) as file:
        decoder = ffmpeg.FfmpegProcess(file.fileno(), FLAC, RATE, 60.0)
        os.lseek(file.fileno(), 0, os.SEEK_END)
        assert sum(map(len, decoder)) == 40 * RATE
        decoder.close()


@pytest.mark.parametrize("name", ["m4a", "webm-opus", "wav-s16"])
def test_abandoned_decoder_leaves_no_process_and_no_descriptor(name: str, studio: Studio) -> None:
    with studio.path(name).open("rb", buffering=0) as file:
        facts = probe_audio(file.fileno(), 60.0)
        before = opened()
        for _ in range(2):
            with open_audio(file.fileno(), facts, rate=RATE, max_s=60.0) as audio:
                next(iter(audio))
        assert opened() <= before
        assert not [one for one in psutil.Process().children() if "ffmpeg" in one.name()]


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container.name)
def test_ffmpeg_command_allows_one_demuxer_and_only_files_and_limits_the_input_seconds(
    container: AudioContainer,
) -> None:
    source = ffmpeg_command.input_source(windows=False)
    words = ffmpeg_command.decode_command("ffmpeg", source, container, RATE, 10.0)
    options = dict(itertools.pairwise(words))
    assert options["-protocol_whitelist"] == "file"
    assert options["-format_whitelist"] == container.demuxer
    position = words.index("-i")
    assert words[position + 1] == "file:/dev/fd/0"
    inputs = words[:position]
    assert inputs[inputs.index("-f") + 1] == container.demuxer
    assert inputs[inputs.index("-t") + 1] == "10.000"
    assert "-nostdin" in words


def test_ffmpeg_does_not_inherit_secrets_of_the_environment_and_has_a_memory_limit(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    with studio.path("m4a").open("rb", buffering=0) as file:
        decoder = ffmpeg.FfmpegProcess(file.fileno(), MP4, RATE, 60.0)
        try:
            pid = decoder.pid
            environ = Path(f"/proc/{pid}/environ")
            if environ.exists():
                assert b"SECRET_TOKEN" not in environ.read_bytes()
                limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
                assert str(ffmpeg.MEMORY_LIMIT_BYTES) in limits
            assert list(decoder)
        finally:
            decoder.close()


CHANNELS = b"\x9f\x81\x01"
BLOCK = b"\xa3" + (1 << 28 | 16_004).to_bytes(4) + b"\x81\0\0\x80"
SAMPLES = f"out.write({BLOCK!r} + bytes(16000)); out.flush()"
"""A block of 4000 samples, as `TimedOutput` reads it."""
SAID = f"""
import os, sys, time
out = sys.stdout.buffer
print("[info] Stream mapping", file=sys.stderr)
out.write({CHANNELS!r})
"""
"""A header."""
HANGS = "time.sleep(1000)"
STARTS = """
import sys
from sidecar.audio import audio_format, ffmpeg
with open(sys.argv[1], "rb") as file:
    started = ffmpeg.FfmpegProcess(file.fileno(), audio_format.MP4, 16_000, 60.0)
    print(flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends with its next output")
def test_hanging_ffmpeg_ends_if_its_worker_process_is_killed(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = studio.path("m4a")  # made by a real one
    held, exe = tmp_path / "held", tmp_path / "ffmpeg"
    os.mkfifo(held)
    program = f"held = open({str(held)!r}, 'wb'){SAID}{SAMPLES}\n{HANGS}\n"
    exe.write_text(f"#!{sys.executable}\n{program}", "utf-8")
    exe.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(exe))
    words = [sys.executable, "-c", STARTS, str(recording)]
    # not blocking, as a worker that fails has nobody open it
    with (
        open(os.open(held, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as running,
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker,
    ):
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"\n"
        assert not select.select([running], [], [], 0)[0], "it hangs"
        worker.kill()
        assert select.select([running], [], [], PATIENCE_S)[0]
        assert running.read() == b""


@pytest.fixture
def decoded_by(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., ffmpeg.FfmpegProcess]]:
    """Starts a program in the place of ffmpeg: it writes a header, 4000 samples unless it is to
    have none, and then does what it is given. Other arguments are those of `FfmpegProcess`."""
    recording = studio.path("m4a")  # made by a real one
    with ExitStack() as stack:

        def start(then: str, *, samples: bool = True, **named: Any) -> ffmpeg.FfmpegProcess:
            program = [sys.executable, "-IS", "-c", f"{SAID}{SAMPLES if samples else ''}\n{then}"]
            monkeypatch.setattr(ffmpeg_command, "decode_command", lambda *_: program)
            file = stack.enter_context(recording.open("rb", buffering=0))
            decoder = ffmpeg.FfmpegProcess(file.fileno(), MP4, RATE, 60.0, **named)
            stack.callback(decoder.close)
            return decoder

        yield start


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a tenth of a second without output is a stall."""
    timer, wait = threading.Timer, select.select
    monkeypatch.setattr(threading, "Timer", lambda _, stop: timer(0.1, stop))
    monkeypatch.setattr(select, "select", lambda *asked: wait(*asked[:3], 0.1))


@pytest.mark.parametrize(
    "selects",
    [
        pytest.param(True, id="posix", marks=pytest.mark.posix("select of pipes")),
        pytest.param(False, id="windows"),
    ],
)
def test_stalled_ffmpeg_is_a_decode_timeout(
    selects: bool,
    decoded_by: Callable[..., ffmpeg.FfmpegProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = decoded_by(HANGS, stall_timeout_s=PATIENCE_S, selects=selects)
    be_impatient(monkeypatch)
    with pytest.raises(errors.AudioDecodeTimeout):
        list(decoder)


def test_output_that_ends_because_a_stalled_ffmpeg_is_killed_is_a_decode_timeout(
    decoded_by: Callable[..., ffmpeg.FfmpegProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    decoder = decoded_by(HANGS, stall_timeout_s=PATIENCE_S, selects=False)
    be_impatient(monkeypatch)
    kill = subprocess.Popen.kill

    def kill_and_go_on_late(process: subprocess.Popen[bytes]) -> None:
        kill(process)
        told.wait(PATIENCE_S)

    monkeypatch.setattr(subprocess.Popen, "kill", kill_and_go_on_late)
    with pytest.raises(errors.AudioDecodeTimeout):
        list(decoder)
    told.set()


def test_close_of_a_decoder_returns_although_its_killed_ffmpeg_does_not_end(
    decoded_by: Callable[..., ffmpeg.FfmpegProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoded_by(HANGS, exit_timeout_s=0.1)
    with monkeypatch.context() as held:
        held.setattr(subprocess.Popen, "kill", lambda process: None)  # a disk holds it
        closing = threading.Thread(target=decoder.close)
        closing.start()
        closing.join(PATIENCE_S)
        closed = not closing.is_alive()
    psutil.Process(decoder.pid).kill()
    assert closed


@pytest.mark.parametrize(
    "then",
    [
        pytest.param("sys.exit(1)", id="exit-1"),
        pytest.param("sys.exit(255)", id="demuxer-returns-minus-1"),
        pytest.param(
            f"os.close(1); {HANGS}",
            id="never-ends",
            marks=pytest.mark.not_in_wine("its conhost keeps the output of a program open"),
        ),
    ],
)
def test_samples_of_an_ffmpeg_that_fails_or_never_exits_are_kept_and_marked_truncated(
    then: str, decoded_by: Callable[..., ffmpeg.FfmpegProcess]
) -> None:
    exit_timeout_s = 0.1 if HANGS in then else PATIENCE_S
    decoder = decoded_by(then, stall_timeout_s=PATIENCE_S, exit_timeout_s=exit_timeout_s)
    assert sum(map(len, decoder)) == 4000
    assert decoder.lost


@pytest.mark.parametrize(
    "then",
    [
        pytest.param("os.kill(os.getpid(), 9)", id="killed", marks=pytest.mark.posix("signals")),
        pytest.param(
            "os.kill(os.getpid(), 15)", id="terminated", marks=pytest.mark.posix("signals")
        ),
        pytest.param(
            "print('[info] Exiting normally, received signal 15.', file=sys.stderr); sys.exit(255)",
            id="its_own_handler",
        ),
    ],
)
@pytest.mark.parametrize("channels", [0, 1])
def test_ffmpeg_stopped_by_a_signal_is_a_decoder_fault_and_no_end_of_the_recording(
    channels: int, then: str, decoded_by: Callable[..., ffmpeg.FfmpegProcess]
) -> None:
    samples, patient = channels > 0, {"stall_timeout_s": PATIENCE_S, "exit_timeout_s": PATIENCE_S}
    decoder = decoded_by(then, samples=samples, **patient)
    decoder.channels = channels
    with pytest.raises(errors.DecoderStopped) as raised:
        list(decoder)
    assert fault_of(raised.value) is Fault.DECODER


CRASHES = "import signal; os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.mark.posix("signals")
@pytest.mark.parametrize(
    ("first", "later", "samples"),
    [
        pytest.param(CRASHES, SAMPLES, 8000, id="once"),
        pytest.param(CRASHES, CRASHES, 4000, id="at-the-same-place-again"),
        pytest.param(
            "print('[error] Cannot allocate memory', file=sys.stderr); sys.exit(1)",
            SAMPLES,
            8000,
            id="lacks-memory",
        ),
    ],
)
def test_recording_in_which_ffmpeg_crashes_is_decoded_again_and_damaged_if_it_ends_there_again(
    first: str,
    later: str,
    samples: int,
    decoded_by: Callable[..., ffmpeg.FfmpegProcess],
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    runs.touch()
    count = f"runs = open({str(runs)!r}, 'a+'); runs.write('x'); runs.flush(); runs.seek(0)"
    decoder = decoded_by(f"{count}\nif runs.read() == 'x':\n    {first}\n{later}")
    assert sum(map(len, decoder)) == samples
    assert (decoder.lost is None) is (samples == 8000)
    assert runs.read_text("utf-8") == "xx"


@pytest.mark.posix("signals")
def test_ffmpeg_that_crashes_and_then_gives_less_than_before_is_a_decoder_fault(
    decoded_by: Callable[..., ffmpeg.FfmpegProcess], tmp_path: Path
) -> None:
    crashed = str(tmp_path / "crashed")
    fails = f"if os.path.exists({crashed!r}): sys.exit(127)\nopen({crashed!r}, 'w').close()"
    decoder = decoded_by("\n".join([fails, *[SAMPLES] * 5, CRASHES]))
    with pytest.raises(errors.DecoderStopped):
        list(decoder)


@pytest.mark.posix("signals")
def test_recording_in_which_ffmpeg_stands_still_once_is_decoded_to_its_end(
    decoded_by: Callable[..., ffmpeg.FfmpegProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, wait, vain = tmp_path / "hung", select.select, iter(range(2))
    hangs = f"open({str(hung)!r}, 'w').close(); import signal; os.kill(os.getpid(), signal.SIGSTOP)"
    decoder = decoded_by(f"if not os.path.exists({str(hung)!r}): {hangs}\n{SAMPLES}")

    def wait_in_vain_once_it_hangs(*asked: Any) -> tuple[list[Any], ...]:
        while not wait(*asked[:3], 0.01)[0]:
            if hung.exists() and next(vain, None) is not None:
                return [], [], []
        return wait(*asked)

    monkeypatch.setattr(select, "select", wait_in_vain_once_it_hangs)
    assert sum(map(len, decoder)) == 8000
    assert decoder.lost is None


@pytest.mark.posix("select of pipes")
def test_stall_of_ffmpeg_while_its_disk_hangs_is_no_timeout_and_all_audio_is_decoded(
    decoded_by: Callable[..., ffmpeg.FfmpegProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, wait, read = tmp_path / "answers", select.select, os.pread
    rest = f"while not os.path.exists({str(answers)!r}): time.sleep(0.01)\n{SAMPLES}"
    decoder = decoded_by(rest, stall_timeout_s=PATIENCE_S, exit_timeout_s=PATIENCE_S)
    blocks = iter(decoder)

    def wait_in_vain_while_disk_hangs(*asked: Any) -> tuple[list[Any], ...]:
        return wait(*asked) if answers.exists() or wait(*asked[:3], 0)[0] else ([], [], [])

    def answer(*asked: Any) -> bytes:
        answers.touch()
        return read(*asked)

    monkeypatch.setattr(select, "select", wait_in_vain_while_disk_hangs)
    monkeypatch.setattr(os, "pread", answer)
    assert sum(map(len, blocks)) == 8000


@pytest.mark.parametrize(
    "then", ["sys.exit(1)", "print('[error] Input/output error', file=sys.stderr)"]
)
@pytest.mark.parametrize("samples", [4000, 0])
def test_read_error_of_the_disk_under_ffmpeg_is_raised_and_no_end_of_the_recording(
    samples: int,
    then: str,
    decoded_by: Callable[..., ffmpeg.FfmpegProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient = {"stall_timeout_s": PATIENCE_S, "exit_timeout_s": PATIENCE_S}
    decoder = decoded_by(then, samples=samples > 0, **patient)
    decoder.channels = 1 if samples else 0

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(READ, fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        list(decoder)


def test_mp3_with_garbage_in_its_middle_is_decoded_to_the_end_without_a_second_reading(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(studio.bytes("mp3-cbr") + b"\xff\xfb" * 1000 + studio.bytes("mp3-cbr")[999:])
    with path.open("rb", buffering=0) as file:
        decoder = ffmpeg.FfmpegProcess(file.fileno(), MP3, RATE, 60.0)
        monkeypatch.setattr(audio_format, "read_file_at", lambda *_: pytest.fail("read again"))
        assert sum(map(len, decoder)) > 5 * RATE
        assert decoder.header.complaints
        assert not decoder.lost
        decoder.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param(errno.EIO, errors.StorageUnreachable, id="EIO"),
        pytest.param(errno.ETIMEDOUT, errors.StorageUnreachable, id="ETIMEDOUT"),
        pytest.param(errno.ESTALE, errors.AudioLost, id="deleted"),
    ],
)
def test_disk_error_while_decoding_is_storage_unreachable_unless_the_file_is_deleted(
    code: int, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sine(tmp_path / "a.wav", rate=96_000)
    with path.open("rb", buffering=0) as file:
        facts = probe_audio(file.fileno(), 60.0)
        reading = ReadWatch().reading
        with open_audio(file.fileno(), facts, rate=RATE, max_s=60.0, reading=reading) as audio:
            blocks = iter(audio)
            next(blocks)

            def fail(*_: object) -> bytes:
                raise OSError(code, os.strerror(code))

            monkeypatch.setattr(READ, fail)
            with pytest.raises(kind, match=os.strerror(code)):
                list(blocks)


@pytest.mark.parametrize("spilled", [True, False])
@pytest.mark.parametrize("lacking", ["nothing", "os.memfd_create"])
def test_upload_spool_keeps_its_bytes_without_a_file_name_until_its_source_is_closed(
    tmp_path: Path, spilled: bool, lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking != "nothing":
        monkeypatch.delattr(lacking, raising=False)
    spool = UploadSpool(tmp_path)
    spool.add(b"abc")
    assert spool.in_memory == hasattr(os, "memfd_create"), "a disk may block"
    if spilled:
        spool.spill()
    spool.add(memoryview(b"defg"))
    assert spool.size == 7
    with spool.finish() as source:
        assert audio_format.read_file_at(source.fd, 0, 100) == b"abcdefg"
        assert os.name == "nt" or list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        _ = source.fd
    source.close()


def test_closed_upload_spool_leaves_no_file_and_no_open_descriptor(tmp_path: Path) -> None:
    before = opened()
    spool = UploadSpool(tmp_path)
    spool.add(b"abc")
    spool.spill()
    spool.close()
    assert list(tmp_path.iterdir()) == []
    assert opened() <= before


def test_upload_spool_whose_folder_is_a_file_is_spool_unwritable(tmp_path: Path) -> None:
    spool = UploadSpool(new_file(tmp_path / "file", b""))
    spool.add(b"abc")
    with pytest.raises(errors.SpoolUnwritable):
        spool.spill()


def test_upload_spool_without_free_descriptors_is_uploads_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(name: str) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", none_left, raising=False)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **named: none_left(""))
    spool = UploadSpool(None)
    spool.add(b"abc")
    with pytest.raises(errors.UploadsFull):
        spool.finish()


@pytest.mark.posix("devices and pipes in folders")
def test_refused_path_of_a_pipe_folder_proc_file_or_device_leaves_no_open_descriptor(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = opened()
    for path in (tmp_path / "fifo", tmp_path, Path("/proc/version"), Path("/dev/zero")):
        with pytest.raises(errors.AudioPathNotAFile):
            open_recording_file(str(path))
    assert opened() <= before


@pytest.mark.posix("file descriptors by number")
def test_audio_path_opened_without_a_free_descriptor_is_machine_busy(tmp_path: Path) -> None:
    import resource

    path = new_file(tmp_path / "fine.wav", b"RIFF")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(errors.MachineBusy):
            open_recording_file(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("fails", [(files, "open_to_read"), (os, "fstat")], ids=["open", "fstat"])
def test_audio_path_on_a_failing_disk_is_machine_busy_and_leaves_no_open_descriptor(
    fails: tuple[ModuleType, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = new_file(tmp_path / "fine.wav", b"RIFF"), opened()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(*fails, fail)
    with pytest.raises(errors.MachineBusy):
        open_recording_file(str(path))
    monkeypatch.undo()
    assert opened() <= before


@pytest.mark.posix("file descriptors by number")
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")
def test_audio_path_that_leads_to_an_open_descriptor_is_refused_also_through_links(
    tmp_path: Path,
) -> None:
    spool = UploadSpool(tmp_path)
    spool.add(b"RIFF")
    named = new_file(tmp_path / "named.wav", b"RIFF")
    with spool.finish() as upload, named.open("rb") as kept:
        for fd in (upload.fd, kept.fileno()):
            (tmp_path / f"link-{fd}").symlink_to(f"/proc/self/fd/{fd}")
            (tmp_path / f"far-{fd}").symlink_to(tmp_path / f"link-{fd}")
            for path in (
                f"/proc/self/fd/{fd}",
                f"/proc/{os.getpid()}/task/{os.getpid()}/fd/{fd}",
                f"/dev/fd/{fd}",
                f"/tmp/../proc/self/fd/{fd}",
                str(tmp_path / f"link-{fd}"),
                str(tmp_path / f"far-{fd}"),
            ):
                with pytest.raises(errors.AudioPathNotAFile):
                    open_recording_file(path)
        named.rename(tmp_path / "elsewhere.wav")
        with open_recording_file(str(tmp_path / "elsewhere.wav")):
            pass


@pytest.mark.posix("a deleted file that is open has no name")
def test_file_deleted_while_it_is_opened_is_refused_and_leaves_no_open_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_file(tmp_path / "gone.wav", b"RIFF")
    before = opened()
    really_open = os.open

    def open_and_unlink(name: str, flags: int) -> int:
        fd = really_open(name, flags)
        os.unlink(name)
        return fd

    monkeypatch.setattr(audio_source.os, "open", open_and_unlink)
    with pytest.raises(errors.AudioPathNotAFile):
        open_recording_file(str(path))
    monkeypatch.undo()
    assert opened() <= before


@pytest.mark.parametrize(
    "name",
    [
        "wav-s16",
        pytest.param("m4a", marks=pytest.mark.not_in_wine("its ReOpenFile opens by the name")),
    ],
)
def test_file_replaced_after_it_was_opened_is_decoded_as_it_was(
    name: str, tmp_path: Path, studio: Studio
) -> None:
    path = new_file(tmp_path / name, studio.bytes(name))
    with open_recording_file(str(path)) as source:
        path.rename(tmp_path / "old").unlink()
        path.write_bytes(b"something else")
        facts = probe_audio(source.fd, 60.0)
        with open_audio(source.fd, facts, rate=RATE, max_s=60.0) as audio:
            assert sum(map(len, audio)) > 2.8 * RATE


def test_file_renamed_and_deleted_after_it_was_opened_is_decoded(
    tmp_path: Path, studio: Studio
) -> None:
    path = new_file(tmp_path / "a.m4a", studio.bytes("m4a"))
    with open_recording_file(str(path)) as source:
        path.rename(tmp_path / "old").unlink()
        facts = probe_audio(source.fd, 60.0)
        with open_audio(source.fd, facts, rate=RATE, max_s=60.0) as audio:
            assert sum(map(len, audio)) > 2.8 * RATE


@pytest.mark.parametrize(
    "refusal",
    [
        BlockingIOError(errno.EAGAIN, "no process"),
        OSError(errno.ENOMEM, "no memory"),
        OSError(errno.EMFILE, "no descriptor"),
    ],
    ids=["processes", "memory", "descriptors"],
)
def test_ffmpeg_not_started_for_lack_of_processes_memory_or_descriptors_is_machine_busy(
    refusal: Exception, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = studio.path("m4a")

    def refused(*arguments: Any, **options: Any) -> Any:
        raise refusal

    monkeypatch.setattr(subprocess, "Popen", refused)
    with recording.open("rb") as file, pytest.raises(errors.MachineBusy):
        probe_audio(file.fileno(), 60.0)


@pytest.mark.parametrize("broken", ["missing", "folder", "not-executable", "no-program"])
def test_missing_or_broken_ffmpeg_is_refused_with_a_hint_to_install_it(
    broken: str, tmp_path: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = studio.path("m4a")  # made by one that does
    exe = tmp_path / "ffmpeg"
    if broken == "folder":
        exe.mkdir()
    elif broken != "missing":
        exe.write_bytes(b"\0\0\0\0")
        exe.chmod(0o755 if broken == "no-program" else 0o644)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(exe))
    before = opened()
    with recording.open("rb") as file:
        with pytest.raises(errors.AudioFormatUnsupported, match="needs ffmpeg") as raised:
            probe_audio(file.fileno(), 60.0)
        assert "Install ffmpeg" in raised.value.hint
        assert raised.value.fault is errors.Fault.DECODER
    assert opened() <= before


@pytest.mark.parametrize("position", [-1, 7, 1 << 44, 1 << 62, (1 << 63) - 200, 1 << 70])
def test_place_that_no_file_has_has_no_bytes(tmp_path: Path, position: int) -> None:
    (tmp_path / "file").write_bytes(b"abcdefg")
    with (tmp_path / "file").open("rb") as file:
        assert audio_format.read_file_at(file.fileno(), position, 100) == b""


def test_places_of_a_file_that_several_threads_read_have_their_own_bytes(tmp_path: Path) -> None:
    """On Windows they share the position of the file, and so do the service and its worker."""
    (tmp_path / "file").write_bytes(bytes(range(256)) * 64)

    def read(first: int) -> set[bytes]:
        return {audio_format.read_file_at(file.fileno(), first, 64) for _ in range(2_000)}

    with (tmp_path / "file").open("rb") as file, ThreadPoolExecutor(4) as threads:
        found = [*threads.map(read, range(4))]
    assert found == [{bytes(range(first, first + 64))} for first in range(4)]
