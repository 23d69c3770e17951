import { app, ipcMain } from "electron";
import path from "node:path";
import { start, stop, transcribe } from "./host.mjs";

const name = process.platform === "win32" ? "vibevoice-asr.exe" : "vibevoice-asr";
const program = path.join(process.resourcesPath, "vibevoice-asr", name);
let sidecar; // a promise: windows may open before it is ready

app.whenReady().then(() => { sidecar = start([program]); });
ipcMain.handle("transcribe", async (event, file) =>
  transcribe(await sidecar, file, {
    onProgress: (fraction) => event.sender.send("transcribe-progress", fraction),
  }));
app.on("will-quit", () => { sidecar?.then(stop, () => {}); });
