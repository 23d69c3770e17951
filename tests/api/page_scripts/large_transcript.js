// Puts a transcript of so many hours, speakers and characters of a name in the place of every
// transcript, every third line of it right to left.
const [HOURS, SPEAKERS, CHARACTERS] = arguments;
const duration = HOURS * 3600;
const name = (number) => `${number} of the delegation of the United Kingdom of Great Britain and Northern Ireland and others `.padEnd(CHARACTERS, "x").slice(0, CHARACTERS);
const hebrew = "אמרתי שנתחיל בתשע, אבל איש לא היה כאן.";
const segments = Array.from({length: duration / 6}, (_, i) => ({
  speaker: `Speaker_${Math.floor(i / 2) % SPEAKERS}`, name: name(Math.floor(i / 2) % SPEAKERS),
  start_time: i * 6, end_time: i * 6 + 5.5, flags: [],
  text: i % 3 === 2 ? hebrew : `Line ${i} of what was said in the meeting, and what follows from it.`}));
const body = JSON.stringify({segments, metadata: {duration, language: "en", num_speakers: SPEAKERS,
  engine: "made up", model_precision: "none", processing_time: 1, diarized: true,
  no_speech: false, job_id: "x", warnings: []}});
const real = window.fetch;
const answer = (address) =>
  /history/.test(address) ? JSON.stringify({revision: 0, undo: 0, redo: 0}) : body;
window.fetch = async (address, ...more) => /transcript/.test(address)
  ? new Response(answer(address), {headers: {"Content-Type": "application/json"}})
  : real(address, ...more);
