"""Command line of ffmpeg: one demuxer, one file, one track, no network.

The reason for each flag is in docs/decisions/hostile-audio.md.
"""

from collections.abc import Sequence

from sidecar import errors
from sidecar.audio.audio_format import AudioContainer

_MAX_ALLOC_BYTES = 256 << 20
AUDIO_DECODERS = (
    "aac,aac_latm,alac,mp1,mp1float,mp2,mp2float,mp3,mp3float,opus,libopus,vorbis,libvorbis,flac,"
    "wavpack,tta,ape,ac3,eac3,dca,truehd,wmav1,wmav2,wmapro,wmalossless,wmavoice,amrnb,amrwb,"
    "libopencore_amrnb,libopencore_amrwb,speex,libspeex,gsm,gsm_ms,qdm2,g722,g726,g726le,"
    "adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,adpcm_yamaha,adpcm_g722,adpcm_g726,adpcm_swf,"
    "adpcm_ima_oki,adpcm_ct,adpcm_sbpro_2,adpcm_sbpro_3,adpcm_sbpro_4,"
    "pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,"
    "pcm_f32be,pcm_f64le,pcm_f64be,pcm_alaw,pcm_mulaw,pcm_u16le,pcm_u16be,pcm_lxf,pcm_dvd,"
    "pcm_bluray,s302m,mlp,g723_1,nellymoser,mpc7,mpc8,tak,dss_sp,truespeech,ilbc"
)
"""Decoders that may read a track; `packaging/small_ffmpeg.py` builds an ffmpeg with these."""


def find_ffmpeg() -> str:
    """Return the path of ffmpeg: the one that came with the install, else the one on the PATH.

    Raises:
        errors.AudioFormatUnsupported: there is none.
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise ffmpeg_missing_error("none was found") from None


def ffmpeg_missing_error(why: str) -> errors.AudioFormatUnsupported:
    """Return the error that ffmpeg cannot be used, because of ``why``."""
    return errors.AudioFormatUnsupported(
        f"This format needs ffmpeg, and {why}.",
        hint="Install ffmpeg, or send wav.",
        fault=errors.Fault.DECODER,
    )


def decode_command(
    exe: str,
    source: dict[str, str],
    container: AudioContainer,
    rate: int,
    max_s: float,
    track: int = 0,
) -> list[str]:
    """Return the argument list for audio track number ``track``; its output is for `TimedOutput`.

    ``source``: ``filename``, which is the service's own handle, never a client's name, and other
    options of the input.
    """
    import ffmpeg

    stream = ffmpeg.input(
        **source,
        f=container.demuxer,
        t=f"{max_s:.3f}",
        format_whitelist=container.demuxer,
        codec_whitelist=AUDIO_DECODERS,
        dts_delta_threshold=container.max_hole_s,
        max_alloc=_MAX_ALLOC_BYTES,
        threads=1,
    ).output(
        "pipe:1",
        map=f"0:a:{track}",
        vn=None,
        sn=None,
        dn=None,
        f="matroska",
        acodec="pcm_f32le",
        af=f"aresample={rate}",
        bitexact=None,
        threads=1,
    )
    args = ("-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info")
    return [str(part) for part in stream.global_args(*args).compile(cmd=exe)]


def input_source(windows: bool, parts: Sequence[tuple[int, int]] = ()) -> dict[str, str]:
    """Return ffmpeg's input for its own standard input, as a file in which it can seek.

    ``parts``: begin and end of the bytes of it that are the whole file to ffmpeg.
    """
    # /dev/fd opens the same file again, whatever its name is now, with its own position. Windows
    # has none, and there a pipe cannot seek: the index of a film may be at its end.
    name, protocols = ("fd:", "fd") if windows else ("file:/dev/fd/0", "file")
    if windows and len(parts) > 1:
        # There all parts have one position, which ffmpeg sets where it goes on to another. It opens
        # them in order and begins to read where the last one left it: that is a byte of the first,
        # which behind the last page or block is no page and no block.
        begin, _ = parts[0]
        parts = [*parts, (begin, begin + 1)]
    if parts:
        name = "|".join(f"subfile,,start,{begin},end,{end},,:{name}" for begin, end in parts)
        protocols = f"subfile,{protocols}"
    if len(parts) > 1:
        name, protocols = f"concat:{name}", f"concat,{protocols}"
    return {"filename": name, "protocol_whitelist": protocols}
