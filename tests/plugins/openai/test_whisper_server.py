"""Command line of whisper.cpp's server, as far as hosts use it."""

import pytest
import typer
from typer.testing import CliRunner

from sidecar.cli import serve
from sidecar.plugins.openai import whisper_server


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("-m ggml-base.bin --host 0.0.0.0 --port 9000 -t 4", {"host": "0.0.0.0", "port": 9000}),
        ("-l de --no-timestamps", {"language": "de"}),
        ("-dl --port 9000", {"port": 9000}),
        ("-lpt -1.0 -nlp 5", {}),
        ("-nth 0.6 -ml 60", {}),
    ],
)
def test_whisper_cpps_options_set_host_port_and_language_and_others_have_no_effect(
    words: str, given: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[dict[str, object]]()
    monkeypatch.setattr(serve, "run", lambda settings: started.append(settings) or 0)
    app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})
    whisper_server.add_command(app)
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    assert started == [{"host": "127.0.0.1", "port": 8080} | given]
