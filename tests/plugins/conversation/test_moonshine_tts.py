"""The synthesizers of moonshine-voice, with a voice of a kilobyte that the library really runs."""

import array
from pathlib import Path

import pytest
import tiny_piper_voice

from sidecar import errors
from sidecar.engines import missing_packages
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    SynthesisOptions,
    SynthesizedAudio,
    TtsEngine,
)
from sidecar.plugins.conversation.tts import moonshine_tts
from sidecar.plugins.conversation.tts.installed_voices import PulledVoice, voice_for_language

pytestmark = pytest.mark.skipif(
    bool(missing_packages(moonshine_tts.SPEC)), reason="moonshine-voice is missing"
)

TEXT = "Günaydın, bugün hava çok güzel."
KNOWN = {
    "de-de": ["piper_de_DE-thorsten-medium"],
    "en-gb": ["kokoro_bf_emma", "piper_en_GB-alan-medium"],
    "en-us": ["kokoro_af_heart"],
    "es-ar": ["kokoro_ef_dora"],
    "es-es": ["kokoro_ef_dora"],
}


def never() -> bool:
    return False


def loaded(folder: Path) -> TtsEngine:
    engine = moonshine_tts.MoonshineTts()
    assert list(engine.load(LoadOptions(speaks=True, checkpoint=str(folder))))[-1] == 1.0
    return engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_piper_voice.pulled(
        tmp_path_factory.mktemp("home") / "voices", tiny_piper_voice.VOICE, tiny_piper_voice.OTHER
    )


@pytest.fixture(scope="module")
def engine(folder: Path) -> TtsEngine:
    return loaded(folder)


def sound_of(engine: TtsEngine, text: str = TEXT, **options: object) -> SynthesizedAudio:
    (sound,) = engine.say(text, SynthesisOptions(**options), never)  # type: ignore[arg-type]
    return sound


def test_text_is_spoken_with_a_pulled_voice_in_one_piece(engine: TtsEngine) -> None:
    sound = sound_of(engine)
    samples = array.array("h", sound.pcm)
    assert max(samples) > 3_000
    assert len({*samples}) > 8  # a level for each kind of phoneme
    assert sound.seconds > 0.1
    assert sound_of(engine) == sound


def test_audio_is_longer_with_more_text_and_shorter_with_more_speed(engine: TtsEngine) -> None:
    once = len(sound_of(engine).pcm)
    assert len(sound_of(engine, f"{TEXT} {TEXT}").pcm) > 1.7 * once
    assert len(sound_of(engine, speed=2.0).pcm) == pytest.approx(once / 2, rel=0.2)


def test_text_without_words_gives_no_sound(engine: TtsEngine) -> None:
    for text in ("", "\0", " … —"):
        assert list(engine.say(text, SynthesisOptions(), never)) == []
    assert sound_of(engine, f"\0{TEXT}").pcm


def test_voices_are_the_pulled_ones_and_others_are_refused_with_a_hint(engine: TtsEngine) -> None:
    assert engine.voices() == (tiny_piper_voice.VOICE, tiny_piper_voice.OTHER)
    with pytest.raises(errors.VoiceUnknown) as refused:
        list(engine.say(TEXT, SynthesisOptions(voice="kokoro_af_heart"), never))
    assert "pull voice" in (refused.value.hint or "")


def test_voice_loaded_beyond_the_limit_replaces_the_loaded_one(folder: Path) -> None:
    one = moonshine_tts.MoonshineTts(max_loaded_voices=1)
    list(one.load(LoadOptions(speaks=True, checkpoint=str(folder))))
    for name in (tiny_piper_voice.OTHER, tiny_piper_voice.VOICE, tiny_piper_voice.OTHER):
        sound_of(one, voice=name)
        assert [voice.name for voice in one.loaded] == [name]


def test_folder_without_a_voice_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(errors.ModelLoadFailed) as refused:
        loaded(tmp_path)
    assert "pull voice" in (refused.value.hint or "")


def test_voice_with_a_missing_file_is_not_listed_and_alone_an_error_names_the_file(
    tmp_path: Path,
) -> None:
    """The library would speak with any voice of the folder, and say so only in its log."""
    tiny_piper_voice.pulled(tmp_path, tiny_piper_voice.VOICE, tiny_piper_voice.OTHER)
    (lost, _), kept = tiny_piper_voice.files(), tiny_piper_voice.OTHER
    (tmp_path / lost).unlink()
    assert loaded(tmp_path).voices() == (kept,)
    for key in tiny_piper_voice.files(kept):
        (tmp_path / key).unlink()
    with pytest.raises(errors.ModelLoadFailed, match=r"piper-voices/tr_TR-dfki-medium.onnx") as no:
        loaded(tmp_path)
    assert f"pull voice {tiny_piper_voice.VOICE} --language tr-tr" in (no.value.hint or "")


def test_damaged_voice_does_not_load_and_is_named(tmp_path: Path) -> None:
    tiny_piper_voice.pulled(tmp_path, tiny_piper_voice.VOICE)
    path = tmp_path / next(iter(tiny_piper_voice.files()))
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(errors.ModelLoadFailed, match=tiny_piper_voice.VOICE) as refused:
        loaded(tmp_path)
    assert "pull voice" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("name", "language", "found"),
    [
        ("", "", ("", "en-us")),
        ("", "DE", ("", "de-de")),
        ("af_heart", "", ("kokoro_af_heart", "en-us")),
        ("en_GB-alan-medium", "", ("piper_en_GB-alan-medium", "en-gb")),
        ("kokoro_bf_emma", "en_GB", ("kokoro_bf_emma", "en-gb")),
        ("ef_dora", "", ("kokoro_ef_dora", "es-es")),
        ("EF_Dora", "es-ar", ("kokoro_ef_dora", "es-ar")),
        ("alan", "", None),
        ("af_heart", "de", None),
        ("", "xx", None),
    ],
)
def test_voice_is_chosen_by_name_language_or_both_and_an_unknown_one_is_refused(
    name: str, language: str, found: tuple[str, str] | None
) -> None:
    if found is None:
        with pytest.raises(errors.VoiceUnknown) as refused:
            moonshine_tts.choose_moonshine_voice(KNOWN, name, language)
        assert refused.value.hint
    else:
        assert moonshine_tts.choose_moonshine_voice(KNOWN, name, language) == found


def test_each_language_has_a_default_voice_and_an_unknown_language_is_refused() -> None:
    there = moonshine_tts.voice_catalogue()
    assert len(there["en-us"]) > 50
    for language, names in there.items():
        assert moonshine_tts.library_default_voice(moonshine_tts.voice_files(language)) in names
    assert set(moonshine_tts.voice_files("tr-tr", tiny_piper_voice.VOICE)) == {
        *tiny_piper_voice.files()
    }
    with pytest.raises(errors.VoiceUnknown):
        moonshine_tts.voice_files("xx")


@pytest.mark.parametrize(
    ("language", "name"), [("de-DE", "b"), ("de-AT", "b"), ("en_gb", "c"), ("en", "a"), ("fr", "")]
)
def test_language_is_spoken_by_a_voice_pulled_for_it_or_for_its_base_language(
    language: str, name: str
) -> None:
    voices = [
        PulledVoice(name, tag, ()) for name, tag in (("a", "en-us"), ("b", "de-de"), ("c", "en-gb"))
    ]
    found = voice_for_language(voices, language)
    assert (found.name if found else "") == name
