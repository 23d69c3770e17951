/**
 * How the service is. `crashed`: `code` to decide by, `reason` and the end of the `log` for developers,
 * and seconds until it is started again; null: it is not, until `restart()`.
 *
 * @typedef {{ status: "starting" }
 *   | { status: "ready", version: string, device: "cpu" | "cuda", pid: number }
 *   | { status: "busy", jobs: number }
 *   | { status: "crashed", code: string, reason: string, log: string[], restart_in: number | null }
 *   | { status: "stopped" }} Status
 *
 * @typedef {import("./wire.js").Transcript} Transcript
 * @typedef {import("./wire.js").Segment} Segment
 * @typedef {import("./wire.js").LiveEvent} LiveEvent
 * @typedef {import("./transcribe.js").Progress} Progress
 * @typedef {import("./transcribe.js").TranscribeOptions} TranscribeOptions
 */
/**
 * Call `tell` with how the service is, now and at each change.
 *
 * @param {(status: Status) => void} tell
 * @returns {Promise<() => void>} what ends it
 */
export function onState(tell: (status: Status) => void): Promise<() => void>;
export { SpeechError };
export { pullModel } from "./pull.js";
export function state(): Promise<Status>;
export function restart(): Promise<void>;
export function health(): Promise<import("./wire.js").Health>;
export function models(): Promise<{
    id: string;
}[]>;
export function localModels(): Promise<import("./wire.js").LocalModel[]>;
export function deleteModel(name: string): Promise<void>;
export function useModel(name: string): Promise<void>;
export function reload(precision: "auto" | "fp32" | "bf16" | "fp16" | "int8" | "int4"): Promise<{
    status: string;
    message: string;
}>;
/**
 * How the service is. `crashed`: `code` to decide by, `reason` and the end of the `log` for developers,
 * and seconds until it is started again; null: it is not, until `restart()`.
 */
export type Status = {
    status: "starting";
} | {
    status: "ready";
    version: string;
    device: "cpu" | "cuda";
    pid: number;
} | {
    status: "busy";
    jobs: number;
} | {
    status: "crashed";
    code: string;
    reason: string;
    log: string[];
    restart_in: number | null;
} | {
    status: "stopped";
};
/**
 * How the service is. `crashed`: `code` to decide by, `reason` and the end of the `log` for developers,
 * and seconds until it is started again; null: it is not, until `restart()`.
 */
export type Transcript = import("./wire.js").Transcript;
/**
 * How the service is. `crashed`: `code` to decide by, `reason` and the end of the `log` for developers,
 * and seconds until it is started again; null: it is not, until `restart()`.
 */
export type Segment = import("./wire.js").Segment;
/**
 * How the service is. `crashed`: `code` to decide by, `reason` and the end of the `log` for developers,
 * and seconds until it is started again; null: it is not, until `restart()`.
 */
export type LiveEvent = import("./wire.js").LiveEvent;
/**
 * How the service is. `crashed`: `code` to decide by, `reason` and the end of the `log` for developers,
 * and seconds until it is started again; null: it is not, until `restart()`.
 */
export type Progress = import("./transcribe.js").Progress;
/**
 * How the service is. `crashed`: `code` to decide by, `reason` and the end of the `log` for developers,
 * and seconds until it is started again; null: it is not, until `restart()`.
 */
export type TranscribeOptions = import("./transcribe.js").TranscribeOptions;
import { SpeechError } from "./call.js";
export { cancel, transcribe } from "./transcribe.js";
export { live, LiveSession } from "./live.js";
