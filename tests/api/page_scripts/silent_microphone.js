// A microphone that gives nothing but zeros, in pieces of a hundredth of a second.
navigator.mediaDevices.getUserMedia = async () =>
  new AudioContext().createMediaStreamDestination().stream;
window.AudioWorkletNode = class extends AudioWorkletNode {
  constructor(context, name, options) {
    super(context, name, { ...options, processorOptions: { seconds: 0.01 } });
  }
};
