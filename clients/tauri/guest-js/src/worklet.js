/** Runs in the audio thread: samples as PCM of 16 bits, as they come; those of two channels are interleaved. */

class Pcm extends AudioWorkletProcessor {
  /** @param {Float32Array[][]} inputs */
  process([channels = []]) {
    const samples = new Int16Array(channels.length * (channels[0]?.length ?? 0));
    channels.forEach((one, channel) => {
      for (let at = 0; at < one.length; at += 1) samples[at * channels.length + channel] = Math.max(-1, Math.min(1, one[at])) * 32767;
    });
    if (samples.length) this.port.postMessage(samples.buffer, [samples.buffer]);
    return true;
  }
}

registerProcessor("vibevoice-pcm", Pcm);
