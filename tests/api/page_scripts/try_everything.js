// Tries everything on the service at a port; what came of each attempt.
const [port, done] = arguments;
const base = `http://127.0.0.1:${port}`, rebound = location.origin;
const told = {};
async function attempt(name, work) {
  try { told[name] = await work(); } catch (error) { told[name] = "refused"; }
}
async function text(response) {
  return response.type === "opaque" ? "opaque" : response.status + await response.text();
}
function form() {
  const data = new FormData();
  data.append("audio", new Blob(["RIFF"]), "a.wav");
  return data;
}
const asked = (place, options) => async () => text(await fetch(place, options));
function submitted() {
  return new Promise(done => {
    const frame = document.createElement("iframe");
    frame.name = "target";
    frame.onload = () => {
      let seen = "unreadable";
      try { seen = frame.contentDocument.body.innerText || "empty"; } catch (error) {}
      done(seen);
    };
    document.body.append(frame);
    const sent = document.createElement("form");
    Object.assign(sent, {
      action: base + "/reload-model", method: "POST", enctype: "text/plain", target: "target",
    });
    const field = document.createElement("input");
    field.name = '{"precision": "int8", "x": "'; field.value = '"}';
    sent.append(field); document.body.append(sent); sent.submit();
  });
}
function socket() {
  return new Promise((done, refused) => {
    const live = new WebSocket(`ws://127.0.0.1:${port}/live`);
    live.onopen = () => done("open");
    live.onerror = refused;
  });
}
function image() {
  return new Promise((done, refused) => {
    const picture = new Image();
    picture.onload = () => done("loaded"); picture.onerror = refused;
    picture.src = base + "/v1/jobs";
  });
}
(async () => {
  const json = {"Content-Type": "application/json"}, path = '{"audio_path": "/etc/hostname"}';
  const blind = {mode: "no-cors"}, post = {method: "POST"};
  await attempt("fetch", asked(base + "/health"));
  await attempt("jobs", asked(base + "/v1/jobs"));
  await attempt("no-cors", asked(base + "/v1/jobs", blind));
  await attempt("post", asked(base + "/transcribe", {...post, body: form()}));
  await attempt("blind post", asked(base + "/transcribe", {...post, ...blind, body: form()}));
  await attempt("json", asked(base + "/transcribe", {...post, headers: json, body: path}));
  await attempt("rebound", asked(rebound + "/health"));
  await attempt("rebound post", asked(rebound + "/transcribe", {...post, body: form()}));
  await attempt("socket", socket);
  await attempt("image", image);
  await attempt("form", submitted);
  done(told);
})();
