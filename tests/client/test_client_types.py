"""Types of the clients: they have each option of the service, and Rust drops none of the page's."""

import re
from pathlib import Path

import pytest

from sidecar.api.job_schemas import SUBMIT_FIELDS
from sidecar.interfaces.request_fields import REQUEST_FIELDS

CLIENTS = Path(__file__).parents[2] / "clients"
ALIASES = {name for name, row in REQUEST_FIELDS.items() if row.same_as}
OPTIONS = SUBMIT_FIELDS - {"audio", "audio_path"}


def typedef(source: str, name: str) -> set[str]:
    """Names of the properties of a type in JavaScript."""
    text = (CLIENTS / source).read_text("utf-8")
    found = re.search(rf"@typedef {{object}} {name}\n((?: \* @property .*\n)+)", text)
    assert found is not None, (source, name)
    return set(re.findall(r"@property {.+?} \[(\w+)\]", found[1]))


def struct(source: str, name: str) -> set[str]:
    """Names of the fields of a type in Rust, which are those of the wire."""
    text = (CLIENTS / source).read_text("utf-8")
    found = re.search(rf"pub struct {name} {{\n(.*?)^}}", text, re.DOTALL | re.MULTILINE)
    assert found is not None, (source, name)
    assert "rename" not in found[1]
    return set(re.findall(r"^    pub (\w+):", found[1], re.MULTILINE))


def test_types_of_each_client_have_each_option_of_a_job() -> None:
    assert typedef("js/src/wire.js", "Options") == OPTIONS
    assert typedef("tauri/guest-js/src/wire.js", "Options") == OPTIONS - ALIASES
    assert struct("rust/src/wire.rs", "Options") == OPTIONS - ALIASES


@pytest.mark.parametrize(
    ("kind", "file"), [("Options", "rust/src/wire.rs"), ("LiveOptions", "rust/src/live_wire.rs")]
)
def test_rust_has_each_option_that_a_page_of_tauri_may_send(kind: str, file: str) -> None:
    """serde would drop another one without a word."""
    assert typedef("tauri/guest-js/src/wire.js", kind) <= struct(file, kind)
