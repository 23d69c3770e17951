import { spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

/** Start the service; what its ready line says, and the process. */
export async function start([program, ...args], limitMs = 60_000) {
  const child = spawn(program, [...args, "--port", "0", "--generate-token", "--exit-with-stdin"], {
    stdio: ["pipe", "pipe", "inherit"], // its log appears in ours; a file is as good
    windowsHide: true,
  });
  const exited = once(child, "exit"); // rejects where there is no such program
  exited.catch(() => {});
  const lines = createInterface({ input: child.stdout });
  const timer = setTimeout(() => child.kill("SIGKILL"), limitMs);
  const first = once(lines, "line").then(([line]) => JSON.parse(line));
  const ready = await Promise.race([first, exited.then(() => sleep(200))]);
  clearTimeout(timer);
  if (ready?.event !== "ready") {
    const [code] = await exited;
    throw new Error(`${ready?.message ?? "it ended without a word"} (exit code ${code})`);
  }
  if (ready.contract !== 1) throw new Error(`contract ${ready.contract} is not known here`);
  return { child, exited, ready };
}

/** One request; the body of the answer. An error has the service's `code` to decide by; its message is for developers. */
export async function call({ ready }, method, path, body, headers = {}) {
  const response = await fetch(ready.url + path, {
    method,
    body: body && JSON.stringify(body),
    headers: { authorization: `Bearer ${ready.token}`, "content-type": "application/json", ...headers },
  });
  const answer = await response.json();
  if (!response.ok) throw problem(answer);
  return answer;
}

const problem = ({ detail, hint, code }) => Object.assign(new Error(`${detail} ${hint} (${code})`), { code });

/** Transcribe a file of this machine; `signal` cancels. `options`: { language: "en", diarize: false … } */
export async function transcribe(sidecar, path, { onProgress = () => {}, signal, options = {} } = {}) {
  const body = { audio_path: resolve(path), ...options }; // it takes no relative path
  let job = await call(sidecar, "POST", "/transcribe", body, { prefer: "respond-async" });
  while (job.state === "queued" || job.state === "running") {
    onProgress(job.progress.fraction);
    await sleep(100);
    job = signal?.aborted
      ? await call(sidecar, "DELETE", `/v1/jobs/${job.id}?keep=true`)
      : await call(sidecar, "GET", `/v1/jobs/${job.id}`);
  }
  return call(sidecar, "GET", `/v1/jobs/${job.id}/transcript`); // else why there is none
}

/** Let it end; its exit code. */
export async function stop({ child, exited }) {
  child.stdin.end();
  return (await exited)[0];
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [, , recording, ...command] = process.argv;
  const enter = new AbortController();
  try {
    if (command.length === 0) throw new Error("usage: node host.mjs RECORDING COMMAND…, such as vibevoice-asr");
    process.stdin.once("data", () => enter.abort());
    const sidecar = await start(command);
    try {
      const onProgress = (fraction) => console.log("progress", fraction);
      const result = await transcribe(sidecar, recording, { onProgress, signal: enter.signal });
      for (const { start_time, speaker, text } of result.segments) {
        console.log(`${start_time.toFixed(2).padStart(8)} ${speaker}: ${text}`);
      }
    } finally {
      console.log("exit code", await stop(sidecar));
    }
  } catch ({ message }) {
    console.error(message);
    process.exitCode = 1;
  }
  process.stdin.destroy();
}
