"""VibeVoice-ASR-Streaming on a tiny checkpoint in the released layout, against the released
algorithm written down here."""

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_streaming
from safetensors.numpy import load_file, save_file
from tiny_vibevoice import CONTEXT

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.checkpoints.installed_checkpoints import STREAMING, resolve_repository
from sidecar.interfaces.engine_interface import (
    MemoryPlan,
    Precision,
    TranscribeOptions,
    TranscriptionRequest,
)
from sidecar.transcripts.transcript import Finished, SegmentReady

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from sidecar.engines.vibevoice import streaming_model  # noqa: E402
from sidecar.engines.vibevoice.streaming_live import transcribe_each  # noqa: E402
from sidecar.engines.vibevoice.streaming_transcription import StreamingTranscription  # noqa: E402

RECORDING = "endgame_nagg_nell"
SAID = "Nag: what is it, my pet? Nel: déjà vu, 嗯. Time to go. Can you"


@pytest.fixture(scope="module")
def loaded() -> streaming_model.LoadedStreamingModel:
    return load(tiny_streaming.checkpoint())


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def sound(name: str) -> Block:
    """A recording as the model hears it, shape (samples,) at 24 kHz."""
    return decode_audio_file(tiny_streaming.clip_16k(name), 24_000)


def load(folder: Path, precision: Precision = Precision.FP32) -> Any:
    return streaming_model.load_streaming_model(folder, precision, torch.device("cpu"))


def model_of(loaded: Any, cache_tokens: int = 2_048) -> streaming_model.StreamingModel:
    return streaming_model.StreamingModel(loaded, MemoryPlan(cache_tokens=cache_tokens))


def windows(name: str) -> list[Block]:
    samples = sound(name)
    return [samples[at * 70_400 :][:83_200] for at, _ in enumerate(tiny_streaming.TEXTS[name])]


def said(model: streaming_model.StreamingModel, names: Sequence[str]) -> list[list[str]]:
    """What sessions that go on in step get for the windows of these recordings."""
    sessions = [model.open() for _ in names]
    rows = zip(*[windows(name)[:4] for name in names], strict=True)
    found = [[one.text for one in model.transcribe(sessions, row)] for row in rows]
    return [list(column) for column in zip(*found, strict=True)]


def released_algorithm(loaded: Any, samples: Block, context: str = "") -> list[str]:
    """The texts of the chunks by microsoft/VibeVoice at 1541f590, with the mean of the latents, in
    plain torch: the whole sequence goes through the model again for each token."""
    model, tokenizer = loaded.model, loaded.processor
    table = model.get_input_embeddings()

    def embedded(*ids: int) -> Any:
        return table(torch.tensor([ids]))

    prompt = (
        "You are a helpful assistant that transcribes audio input into text output. Please "
        "transcribe the following audios streamingly with these keys: speaker, content"
    )
    prompt += f" and extra info: {context}\n" if context else "\n"
    begin, end, chunk_end, stop = tokenizer.convert_tokens_to_ids(
        ["<|object_ref_start|>", "<|object_ref_end|>", "<|text_chunk_end|>", "<|endoftext|>"]
    )
    sequence = embedded(*tokenizer.encode(prompt, add_special_tokens=False))
    texts = []
    for start in range(0, len(samples), 22 * 3_200):
        window = torch.from_numpy(samples[start : start + 26 * 3_200].copy())
        window = torch.nn.functional.pad(window, (0, 26 * 3_200 - len(window)))[None, None]
        acoustic = model.model.acoustic_tokenizer_encoder(window).latents
        semantic = model.model.semantic_tokenizer_encoder(window).latents
        frames = model.model.multi_modal_projector(acoustic, semantic)
        sequence = torch.cat([sequence, embedded(begin), frames, embedded(end)], dim=1)
        ids: list[int] = []
        while len(ids) < 256:
            hidden = model.model.language_model(inputs_embeds=sequence, use_cache=False)
            token = int(model.lm_head(hidden.last_hidden_state[0, -1]).argmax())
            if token in (chunk_end, stop):
                break
            ids.append(token)
            sequence = torch.cat([sequence, embedded(token)], dim=1)
        sequence = torch.cat([sequence, embedded(chunk_end)], dim=1)
        texts.append(tokenizer.decode(ids, skip_special_tokens=True))
    return texts


@pytest.mark.parametrize("context", ["", CONTEXT], ids=["without_names", "with_names"])
def test_windows_of_session_get_the_words_of_the_released_algorithm(
    loaded: Any, context: str
) -> None:
    model, said = model_of(loaded), tiny_streaming.TEXTS[RECORDING]
    session = model.open(context)
    found = [model.transcribe([session], [one])[0].text for one in windows(RECORDING)]
    assert found == (said if not context else [*map(tiny_streaming.named, said)])
    assert found == released_algorithm(loaded, sound(RECORDING), context)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "kind"),
    [(Precision.BF16, "Linear"), (Precision.INT8, "Linear8bitLt"), (Precision.INT4, "Linear4bit")],
)
def test_precision_changes_the_decoder_and_not_the_words(precision: Precision, kind: str) -> None:
    name = "beckett"
    loaded = load(tiny_streaming.checkpoint(), precision)
    layer = loaded.model.model.language_model.layers[0].mlp.up_proj
    assert type(layer).__name__ == kind
    model = model_of(loaded)
    session = model.open()
    found = [model.transcribe([session], [one])[0].text for one in windows(name)]
    assert found == tiny_streaming.TEXTS[name]


def test_sessions_that_share_passes_get_the_words_that_each_gets_alone(loaded: Any) -> None:
    model, names = model_of(loaded), [*tiny_streaming.TEXTS]
    assert said(model, names) == [said(model, [name])[0] for name in names]


def test_full_cache_is_renewed_without_loss_of_words(loaded: Any) -> None:
    model = model_of(loaded, cache_tokens=445)
    session, found, lengths = model.open(), [], []
    for window in windows(RECORDING):
        found.append(model.transcribe([session], [window])[0].text)
        lengths.append(session.cache.length)
    assert found == tiny_streaming.TEXTS[RECORDING]
    assert lengths != sorted(lengths), "no cache began again"
    assert session.cache.capacity <= 1_024


@pytest.mark.parametrize("at", [0, 2])
def test_failing_session_does_not_change_the_results_of_those_that_share_its_passes(
    loaded: Any, at: int
) -> None:
    """From a chunk on it has a layer less than the model; the caches of the others begin again
    meanwhile."""
    model = model_of(loaded, cache_tokens=445)
    alone, first, broken, last = (model.open() for _ in range(4))
    renewed = 0
    for number, window in enumerate(windows(RECORDING)):
        if number == at:
            del broken.cache.values[-1]
        (wanted,) = model.transcribe([alone], [window])
        found = transcribe_each(model, [first, broken, last], [window] * 3)
        assert isinstance(found[1], IndexError) is (number >= at)
        for session, chunk in ((first, found[0]), (last, found[2])):
            assert isinstance(chunk, streaming_model.ChunkText)
            assert (chunk.text, chunk.renewed) == (wanted.text, wanted.renewed)
            assert chunk.likelihoods == pytest.approx(wanted.likelihoods, abs=1e-3)
            assert session.cache.length == alone.cache.length
        renewed += wanted.renewed and number >= at
    assert renewed


def test_repetition_in_a_chunk_is_cut_to_one_copy(loaded: Any) -> None:
    model = model_of(loaded)
    session = model.open()
    session.begin(torch.zeros(26, 1), logits_for(model, 7))
    before = session.cache.length
    while session.takes(model.format):
        session.cache.length += 1
        session.logits = logits_for(model, 7)
    assert session.looped
    assert session.ids == [7]
    assert session.cache.length == before + 1


def test_text_of_a_chunk_that_does_not_end_keeps_its_last_token(loaded: Any) -> None:
    model = model_of(loaded)
    session = model.open()
    session.begin(torch.zeros(26, 1), logits_for(model, 0))
    before, others = session.cache.length, range(100, 100 + streaming_model.MAX_CHUNK_TOKENS)
    for token in others:
        session.logits = logits_for(model, token)
        assert session.takes(model.format)
        session.cache.length += 1
    assert not session.takes(model.format)
    assert session.looped, "it is told"
    assert session.ids == [*others]
    assert session.cache.length == before + streaming_model.MAX_CHUNK_TOKENS, (
        "of which all are in the cache"
    )


def test_loop_over_chunks_is_told_and_is_not_in_the_cache_of_the_session(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model says one clause for ever, each time with audio of its own."""
    model = model_of(loaded)
    clause = model.loaded.processor.encode(" what is it, my pet?", add_special_tokens=False)
    kept = list[list[int]]()

    def transcribe(sessions: Any, windows: Any) -> list[streaming_model.ChunkText]:
        (session,) = sessions
        kept.extend([one for _, one in session.remembered][-1:])
        session.begin(torch.zeros(26, 1), logits_for(model, 0))
        session.ids += clause
        session.likelihoods += [0.0] * len(clause)
        session.cache.length += len(clause)
        text = model.loaded.processor.decode(clause)
        return [streaming_model.ChunkText(text, forget=session.forget_text)]

    monkeypatch.setattr(model, "transcribe", transcribe)
    request = TranscriptionRequest(Blocks(sound(RECORDING)), TranscribeOptions(), bool)
    *_, finished = StreamingTranscription(model, request).events()
    assert isinstance(finished, Finished)
    said = " ".join(one.text for one in finished.transcript.segments)
    assert 2 <= said.count("what is it, my pet?") < len(kept)
    assert [one.code for one in finished.transcript.notices] == ["loop_recovered"]
    assert kept[0] == clause
    assert kept[-1] == [], "nothing of the loop goes into a renewed cache"


def logits_for(model: streaming_model.StreamingModel, token: int) -> Any:
    logits = torch.zeros(len(model.loaded.processor))
    logits[token] = 1.0
    return logits


def test_recording_yields_turns_of_speakers_before_its_end(loaded: Any) -> None:
    audio = Blocks(sound(RECORDING))
    request = TranscriptionRequest(audio, TranscribeOptions(), bool)
    events, first_at = [], 0
    for event in StreamingTranscription(model_of(loaded), request).events():
        events.append(event)
        if isinstance(event, SegmentReady):
            first_at = first_at or audio.read
    assert first_at < len(sound(RECORDING)), "the end was not read yet"
    ready = [event.segment for event in events if isinstance(event, SegmentReady)]
    assert " ".join(one.text for one in ready) == SAID
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.transcript.text == SAID
    assert {one.speaker for one in finished.transcript.segments} == {0, 1}
    assert finished.transcript.duration == pytest.approx(len(sound(RECORDING)) / 24_000)
    assert all(one.start < one.end for one in ready)
    assert all(one.start <= after.start for one, after in pairwise(ready))


@pytest.mark.parametrize("rounds", [2, pytest.param(35, marks=pytest.mark.slow)])
def test_recording_whose_cache_is_renewed_keeps_words_and_speakers(
    loaded: Any, rounds: int
) -> None:
    """In 35 rounds as often as that of the release in a day of speech."""
    audio = Blocks(np.tile(sound(RECORDING), rounds))
    request = TranscriptionRequest(audio, TranscribeOptions(), bool)
    *_, finished = StreamingTranscription(model_of(loaded, 445), request).events()
    assert isinstance(finished, Finished)
    assert finished.transcript.text == " ".join([SAID] * rounds)
    assert {one.speaker for one in finished.transcript.segments} == {0, 1}


class Blocks:
    """A recording in blocks of a second."""

    total_s = None

    def __init__(self, samples: Block) -> None:
        self._samples, self.read = samples, 0

    def __iter__(self) -> Iterator[Block]:
        for at in range(0, len(self._samples), 24_000):
            block = self._samples[at : at + 24_000]
            self.read += len(block)
            yield block


def without_weight(folder: Path, name: str) -> Path:
    """A copy of the checkpoint that lacks a weight."""
    shutil.copytree(tiny_streaming.checkpoint(), folder)
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_output_matrix_of_a_tied_checkpoint_is_its_token_embedding(tmp_path: Path) -> None:
    folder = without_weight(tmp_path / "tied", "lm_head.weight")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["decoder_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    model = load(folder).model
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("name", ["lm_head.weight", "model.semantic_connector.fc2.weight"])
def test_checkpoint_that_lacks_a_weight_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        errors.ModelLoadFailed, match=name.split(".")[-2].replace("fc2", "linear_2")
    ):
        load(without_weight(tmp_path / "cut", name))


def test_checkpoint_without_chunk_frames_in_its_config_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_streaming.checkpoint(), tmp_path / "cut")
    values = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    del values["chunk_frames"]
    (folder / "preprocessor_config.json").write_text(json.dumps(values), "utf-8")
    with pytest.raises(errors.CheckpointDamaged, match="chunk_frames"):
        load(folder)


def test_names_of_streaming_models_resolve_to_their_repository_and_engine() -> None:
    assert resolve_repository("vibevoice-streaming")[0] == "microsoft/VibeVoice-ASR-Streaming-7B"
    assert resolve_repository("VibeVoice-Streaming-1.5B")[1].engine == "vibevoice-streaming"
    assert STREAMING.find(tiny_streaming.checkpoint()).bytes > 1_000_000
