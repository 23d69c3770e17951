// Counts what the page asks for: transcripts and lists of jobs.
const fetches = window.fetch;
[window.asked, window.looked] = [[], 0];
window.fetch = (...given) => {
  const address = String(given[0]?.url ?? given[0]);
  if (/transcript[?]|transcript$/.test(address)) window.asked.push(address);
  if (/limit=500/.test(address)) window.looked += 1;
  return fetches(...given);
};
