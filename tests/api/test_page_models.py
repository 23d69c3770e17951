"""Models on the page: downloaded from a hub on this machine, and used."""

from pathlib import Path

import pytest
import tiny_whisper
from browser_visitor import Visitor
from model_hub import Hub, hub_service
from service_process import PATIENCE_S

from sidecar.checkpoints.model_repositories import WHISPER_MODELS

pytest.importorskip("huggingface_hub")
WHISPER = "whisper:small"


def test_page_downloads_stops_and_resumes_a_model_and_uses_an_installed_one(
    visitor: Visitor, tmp_path: Path
) -> None:
    published = {WHISPER_MODELS["small"].repository: tiny_whisper.write_like(tmp_path / "small")}
    with Hub(published, trickle=True) as hub, hub_service(tmp_path / "home", hub) as server:
        hub.stall = {"model.bin": 200_000}
        visitor.opens(server)
        visitor.sees("button.status").click()
        visitor.sees(".models summary").click()
        visitor.sees(f".models button[aria-label='Download {WHISPER}']").click()
        assert hub.stalled.wait(PATIENCE_S)
        visitor.until("document.querySelector('.models progress').value > 0", "how far it is")
        assert visitor.findings() == []
        visitor.sees(".models progress + button", "Stop").click()
        visitor.sees("#said", "was stopped")
        visitor.sees(f".models button[aria-label='Download {WHISPER}']", "Go on")
        hub.stall = {}
        visitor.sees(f".models button[aria-label='Download {WHISPER}']").click()
        visitor.sees(f".models button[aria-label='Use {WHISPER}']", "Use")
        visitor.sees(".models button[aria-label='Use moonshine']").click()
        visitor.sees("#said", "moonshine is")
        facts = "document.querySelector('.facts').innerText"
        visitor.until(f"{facts}.includes('moonshine')", "it serves")
        visitor.sees(".models li:first-child > span:last-child", "in use for recordings")
        assert visitor.wrong() == []
