/** The npm package eventsource on the events of a job: `event_source.mjs PORT RECORDING`. */

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const { EventSource } = createRequire(`${process.env.CLIENTS}/`)("eventsource");
const [port, recording] = process.argv.slice(2);
const url = `http://127.0.0.1:${port}/v1/jobs`;
const form = new FormData();
form.append("audio", new Blob([await readFile(recording)]), "clip.wav");
const { id } = await (await fetch(url, { method: "POST", body: form })).json();
const events = new EventSource(`${url}/${id}/events`);
const found = { names: [], ids: [] };
await new Promise((done, failed) => {
  for (const name of ["queued", "started", "progress", "segment", "done", "failed", "cancelled", "message"])
    events.addEventListener(name, (event) => {
      found.names.push(name);
      found.ids.push(Number(event.lastEventId));
      if (["done", "failed", "cancelled"].includes(name)) done();
    });
  events.addEventListener("error", (event) => failed(new Error(`${event.code} ${event.message}`)));
});
events.close();
console.log(JSON.stringify(found));
