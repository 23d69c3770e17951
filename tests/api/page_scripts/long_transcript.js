// Puts the transcript of an hour of four people in the place of every transcript.
const [LONG] = arguments;
const segments = Array.from({length: LONG}, (_, i) => {
  const start = i * 2.4;
  const said = Array.from({length: 8}, (_, j) => `word${(i * 7 + j * 3) % 211}`);
  const at = (j) => start + j * 0.28;
  return {speaker: `Speaker_${Math.floor(i / 2) % 4}`, start_time: start,
    end_time: start + 2.3, text: said.join(" ") + ".", flags: [],
    words: said.map((text, j) => ({text, start_time: at(j), end_time: at(j) + 0.25}))};
});
const body = JSON.stringify({segments, metadata: {duration: LONG * 2.4, language: "en",
  num_speakers: 4, engine: "made up", model_precision: "none", processing_time: 1,
  diarized: true, no_speech: false, job_id: "x", warnings: []}});
const real = window.fetch;
const answer = (address) =>
  /history/.test(address) ? JSON.stringify({revision: 0, undo: 0, redo: 0}) : body;
window.fetch = async (address, ...more) => /transcript/.test(address)
  ? new Response(answer(address), {headers: {"Content-Type": "application/json"}})
  : real(address, ...more);
