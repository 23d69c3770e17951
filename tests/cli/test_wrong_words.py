"""Commands whose words cannot be meant say so in a line, and leave nothing."""

import re
import shlex
from pathlib import Path

import moonshine_voice
import pytest

from sidecar.auth.token_issuing import TokenIssuer
from sidecar.cli import run

SUCCESS = (Path(moonshine_voice.get_assets_path()) / "success.wav").as_posix()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("transcribe", 2, r"FILE.*--help"),
        (f"transcribe {SUCCESS} --format docx", 1, r"docx.*srt"),
        (f"transcribe {SUCCESS} --precision fp99", 1, r"precision.*int8"),
        (f"transcribe {SUCCESS} --language '!!'", 1, "language"),
        (f"transcribe {SUCCESS} --diarization psychic", 1, "balanced"),
        (f"transcribe {SUCCESS} --speakers 21", 1, "1 to 20"),
        (f"transcribe {SUCCESS} --output {SUCCESS}", 1, "cannot be written"),
        (f"transcribe {SUCCESS} --server http://127.0.0.1:1", 1, "No service answers.*--server"),
        (f"transcribe {SUCCESS} --server http://[::", 1, "no address"),
        (f"transcribe {SUCCESS} --server http://127.0.0.1:99999", 1, "no address"),
        (f"estimate {SUCCESS} --precision int9", 1, "int8"),
        (f"estimate {SUCCESS} --engine scripted --server localhost:1", 2, "--engine goes without"),
        ("estimate", 2, "a recording, or --minutes"),
        (f"estimate {SUCCESS} --minutes 5", 2, "a recording, or --minutes"),
        ("estimate --minutes 5 --card rtx-4095", 1, "RTX 4090 24GB"),
        ("estimate --minutes 5 --format xml", 2, "text or json"),
        (f"estimate {SUCCESS} --track 2", 1, "are: 1"),
        (f"estimate {SUCCESS} --channels both", 1, "mix, separate"),
        ("estimate --minutes 5 --track 2", 2, "go with a recording"),
        (f"estimate {SUCCESS} --card 12GB --channels separate", 2, "without --card"),
        (f"estimate {SUCCESS} --engine nosuch", 78, r"engine.*vibevoice"),
        ("serv", 2, r"'serv'\. Did you mean 'serve'\?.*--help"),
        ("--prot 1", 2, r"--prot \(Possible options: --port.*--help"),
        ("serve --prot 1", 2, r"--prot \(Possible options: --port.*--help"),
        ("talk --file nowhere.wav", 1, "nowhere.wav: There is no such file."),
        ("talk --text --server http://127.0.0.1:1", 1, "No service answers"),
        ("talk --text --file a.wav", 2, "--text goes without --file"),
        ("talk --text --device 1", 2, "--device goes without"),
        ("talk --text --speaker 1", 2, "--speaker goes with"),
        ("talk --llm auto --server http://127.0.0.1:1", 2, "--llm goes without"),
        ("live nowhere.wav", 1, "nowhere.wav: There is no such file."),
        (f"live {(Path(__file__).parents[2] / 'README.md').as_posix()}", 1, "README.md: "),
        ("live --format mp3 -", 1, "There is no format 'mp3'"),
        ("live - --channels both", 1, "mix, separate"),
        ("live - --channel-names Agent", 1, "the channels are mixed"),
        ("live --device 1 -", 2, "--device goes without FILE"),
        ("live - --server http://127.0.0.1:1", 1, "No service answers"),
        ("bench live --server http://127.0.0.1:1", 1, "No service answers"),
        ("bench live --fail-if 'speed>1'", 1, "There is no figure 'speed'"),
        ("bench live --fail-if 'final_p95 over 1'", 1, "is not a bound"),
        ("bench live --fail-if 'final_p95>2x'", 1, "--against"),
        ("bench live --audio nowhere.wav", 1, "There is no such file"),
        ("bench live --format xml", 1, "Use one of: jsonl, csv, tsv, markdown."),
        ("bench live --sessions 8,many", 2, "no list of numbers"),
        ("bench live --wire smoke", 2, "smoke"),
        ("bench live --start --server http://127.0.0.1:1", 2, "--start goes without"),
        ("bench files nowhere.wav", 1, "There is no such file"),
        ("bench live --server grpc://127.0.0.1:1", 1, "is for gRPC only"),
        ("monitor --once --server somewhere", 1, "is not an address"),
        ("monitor --once --metrics-url file:///etc", 1, "is not an address"),
        ("pull voice nobody --from http://127.0.0.1:9/", 1, "no voice 'nobody'"),
        ("pull voice --from http://127.0.0.1:9/", 69, "cannot be reached"),
        ("pull whisper:huge", 1, r"'huge'.*tiny.*large-v3-turbo"),
        ("transcribe https://example.org/talk.mp3", 1, "This is an address, not a file"),
        ("transcribe S3://bucket/talk.wav", 1, "This is an address, not a file"),
        ("transcribe file://nas/share/talk.wav", 1, "This is an address, not a file"),
        ("transcribe file:///gone/a%20b.wav", 1, r"[/\\]gone[/\\]a b.wav: There is no such file"),
        ("estimate file://localhost/gone.wav", 1, r"[/\\]gone.wav: There is no such file"),
        (f"live {SUCCESS} --output talk.WAV", 78, "'talk.WAV' is the name of a recording"),
        ("live FILE:/gone.wav", 1, "There is no such file"),
        ("transcribe ~/gone.wav", 1, r"[/\\]gone.wav: There is no such file"),
        ("estimate gone.wav", 1, "gone.wav: There is no such file"),
        ("token create --subject \u00fcnal", 78, "is not a valid subject"),
        ("token create --subject anna --expires soon", 78, "not a duration"),
        ("token create --subject anna --expires 0", 78, "above zero"),
        ("token create --subject anna --scope root", 78, "no scope 'root'"),
        ("token revoke nobody", 78, "No token was issued"),
    ],
)
def test_wrong_arguments_are_one_line_of_error(
    line: str,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("VIBEVOICE_ENGINE", "scripted")
    monkeypatch.setenv("VIBEVOICE_DATA_DIR", str(tmp_path))
    assert run(shlex.split(line)) == code
    written = capsys.readouterr()
    assert re.search(said, written.err)
    assert written.err.startswith("vibevoice-asr: ")
    assert (written.out, len(written.err.splitlines())) == ("", 1)
    assert TokenIssuer(tmp_path / "tokens").issued() == []
