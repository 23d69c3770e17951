"""What the documents say is there, is there."""

import json
import re
from pathlib import Path

from many_cases import for_each

from sidecar.config.settings import Settings
from sidecar.interfaces.live_options import EndpointingOptions, field_limits
from sidecar.plugins.realtime.session_config import LONGEST_PADDING_MS
from sidecar.server.app import create_app

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PAGES = [page for page in DOCUMENTS if page.is_relative_to(ROOT / "docs")
         and (page.parent.name != "decisions" or page.name == "README.md")]  # fmt: skip
"""Pages of the site that are read from their beginning; a record of a decision is looked up."""
MAX_WORDS = 45_000
"""Of README and docs, table signs and bullets not counted: three hours at 250 a minute."""
MAX_PICTURES_BYTES = 600_000
"""Of all pictures: a clone of the repository has each of their versions."""
README = (ROOT / "README.md").read_text("utf-8")


@for_each("document", DOCUMENTS)
def test_links_to_files_exist(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if not (document.parent / link).exists()]
    assert missing == []


@for_each("document", sorted((ROOT / "docs").rglob("*.md")))
def test_links_to_pages_lead_to_pages_of_the_site(document: Path) -> None:
    """`make docs` refuses others; the README alone is known to it. To a folder they are allowed."""
    links = re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    pages = [(document.parent / link).resolve() for link in links]
    site = ROOT / "docs", ROOT / "README.md"
    assert [page for page in pages if not any(page.is_relative_to(one) for one in site)] == []


def test_every_page_but_single_decisions_is_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "zensical.toml").read_text("utf-8")
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    decisions = {page for page in pages if page.startswith("decisions/")} - {"decisions/README.md"}
    assert [page for page in sorted(pages - decisions) if f'"{page}"' not in navigation] == []


def _anchors(document: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them; a repeated one gets a number."""
    text = re.sub(
        r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).strip().lower() for title in titles]
    slugs = [re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain]
    return {
        slug if (before := slugs[:at].count(slug)) == 0 else f"{slug}-{before}"
        for at, slug in enumerate(slugs)
    }


@for_each("document", DOCUMENTS)
def test_links_to_headings_exist(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*)#([^)]*)\)", document.read_text(encoding="utf-8"))
    dead = [
        f"{file}#{anchor}"
        for file, anchor in links
        if anchor not in _anchors(document.parent / file if file else document)
    ]
    assert dead == []


@for_each("page", PAGES)
def test_page_says_in_its_first_two_lines_whom_it_is_for(page: Path) -> None:
    lines = [line for line in page.read_text("utf-8").splitlines() if line[:1] not in ("", "<")]
    assert lines[0].startswith("# ")
    assert re.search(r"(^|\. )For [a-z]", " ".join(lines[1:3])), lines[1]


def test_commands_in_readme_exist() -> None:
    from sidecar.cli.command_table import build_command

    known = set(build_command().commands)
    said = set(re.findall(r"vibevoice-asr (?!-)([a-z]+)", README)) - {"the", "is"}
    assert said
    assert said <= known


def test_addresses_in_readme_are_routes_of_service() -> None:
    app = create_app(Settings(engine="scripted"))
    paths = {re.sub(r"\{[^}]+\}", "ID", path) for path in app.openapi()["paths"]}
    said = set(re.findall(r"http://127\.0\.0\.1:8765(/[\w/-]+)", README)) - {"/docs"}
    assert said
    assert said <= paths


def test_transcript_in_readme_has_the_fields_of_a_segment_and_of_metadata() -> None:
    (block,) = re.findall(r"```json\n(.+?)```", README, re.DOTALL)
    body = json.loads(block)
    assert set(body["segments"][0]) == {"speaker", "start_time", "end_time", "text"}
    assert {"duration", "language", "processing_time", "model_precision", "num_speakers"} <= set(
        body["metadata"]
    )


def test_files_named_in_architecture_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    named = set(re.findall(r"`((?:[\w-]+/)*\w+\.py)`", text))
    assert len(named) > 10
    missing = [
        name
        for name in named
        if not any((top / name).is_file() for top in (ROOT / "sidecar", ROOT))
        and not list((ROOT / "sidecar/engines").glob(f"*/{name}"))
    ]
    assert missing == []


def test_architecture_lists_exactly_the_packages_that_exist() -> None:
    text = (
        (ROOT / "docs/architecture.md").read_text("utf-8").partition("<!-- end of the packages")[0]
    )
    rows = set(re.findall(r"^\| `(\w+)(?:/\w+)?/`", text, re.MULTILINE))
    assert rows == {path.parent.name for path in (ROOT / "sidecar").glob("*/__init__.py")}


def test_tests_named_in_docs_exist() -> None:
    named = {
        pair
        for document in DOCUMENTS
        for pair in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", document.read_text("utf-8"))
    }
    assert len(named) > 10
    for file, test in named:
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text("utf-8"), f"{file}::{test}"


def test_protocol_pages_state_limits_of_vad_silence_padding_and_threshold() -> None:
    limits = field_limits(EndpointingOptions)
    silence, threshold = limits["silence_s"], limits["threshold"]
    pages = {
        name: (ROOT / f"docs/{name}.md").read_text("utf-8")
        for name in ("grpc-wire", "openai-wire", "talk-wire")
    }
    assert f"`vad_silence` that is not {silence}" in pages["grpc-wire"]
    assert (
        f"a VAD threshold below {threshold.least:g} or above {threshold.most:g}"
        in pages["grpc-wire"]
    )
    padding, most = f"0 to {LONGEST_PADDING_MS:,}", f"to {1000 * silence.most:,}"
    for name in ("openai-wire", "talk-wire"):
        (row,) = (
            line for line in pages[name].splitlines() if line.startswith("| `turn_detection`")
        )
        assert str(threshold) in row
        assert padding in row
        assert most in row


def test_pictures_are_used_and_small_and_three_guides_begin_with_one() -> None:
    images = set((ROOT / "docs/images").iterdir())
    assert sum(image.stat().st_size for image in images) <= MAX_PICTURES_BYTES
    found = {
        document: {
            (document.parent / path).resolve()
            for path in re.findall(r"[(\"]([\w./-]*images/[\w.-]+)", document.read_text("utf-8"))
        }
        for document in DOCUMENTS
    }
    assert set().union(*found.values()) == images
    for guide in ("page", "desktop-app", "live-and-talk"):
        assert found[ROOT / f"docs/start/{guide}.md"], guide


def test_docs_have_at_most_45000_words() -> None:
    texts = [README, *(page.read_text("utf-8") for page in (ROOT / "docs").rglob("*.md"))]
    words = [word for text in texts for word in text.split() if re.search(r"\w", word)]
    assert len(words) <= MAX_WORDS
