// Lets nothing through of an event stream after the first segment, and holds one other answer.
window.real = window.fetch;
window.silent = false;
window.fetch = async (address, ...more) => {
  if (address.endsWith("/about")) await new Promise((come) => (window.letGo = come));
  const answer = await real(address, ...more);
  if (!address.endsWith("/events")) return answer;
  const [reader, decoder] = [answer.body.getReader(), new TextDecoder()];
  let come = "";
  const one = new ReadableStream({async pull(out) {
    if (window.silent) await new Promise(() => {});
    const {value} = await reader.read();
    out.enqueue(value);
    come += decoder.decode(value, {stream: true});
    window.silent = /event: segment[^]*\n\n/.test(come);
  }});
  return new Response(one, {headers: answer.headers});
};
