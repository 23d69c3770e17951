// Lets nothing through of an event stream after its first two chunks, and holds one other answer.
window.real = window.fetch;
window.fetch = async (address, ...more) => {
  if (address.endsWith("/about")) await new Promise((come) => (window.letGo = come));
  const answer = await real(address, ...more);
  if (!address.endsWith("/events")) return answer;
  const reader = answer.body.getReader();
  let left = 2;
  const silent = new ReadableStream({async pull(out) {
    if ((left -= 1) >= 0) out.enqueue((await reader.read()).value);
    else await new Promise(() => {});
  }});
  return new Response(silent, {headers: answer.headers});
};
