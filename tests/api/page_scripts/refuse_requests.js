// Answers the first requests of a method with an error, and counts them in `refused`.
const refuses = REFUSES;
const { fetch } = window;
window.refused = 0;
window.fetch = async (address, options, ...more) => {
  if (options?.method !== refuses.method || window.refused >= refuses.times) return fetch(address, options, ...more);
  window.refused += 1;
  return Response.json({ code: refuses.code, detail: "No.", hint: "" }, { status: refuses.status });
};
