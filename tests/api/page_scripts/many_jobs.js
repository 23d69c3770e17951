// Puts so many jobs, each with a name of the list given, in the place of the one that there is.
const [NAMES] = arguments;
const real = window.fetch;
window.fetch = async (address, ...more) => {
  const answer = await real(address, ...more);
  if (!/v1\/jobs(\?|$)/.test(address) || (more[0]?.method ?? "GET") !== "GET") return answer;
  const body = await answer.json();
  const [job] = body.jobs;
  const jobs = NAMES.map((name, i) => (i ? { ...job, id: `${job.id}${i}`, name } : job));
  return new Response(JSON.stringify({ ...body, jobs }), { headers: answer.headers });
};
