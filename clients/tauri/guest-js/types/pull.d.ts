/**
 * Download a model, which `useModel` loads. What
 * came before a cancel stays on the disk, and the next pull resumes it. The permission `allow-pull-model` is not
 * among the default ones.
 *
 * @param {string} name as in `localModels`, or OWNER/NAME
 * @param {{ onProgress?: (bytesDone: number, bytesTotal: number) => void, signal?: AbortSignal }} [setup]
 * @returns {Promise<void>} rejected with a `SpeechError`, of code "cancelled" if the signal ended it
 */
export function pullModel(name: string, { onProgress, signal }?: {
    onProgress?: (bytesDone: number, bytesTotal: number) => void;
    signal?: AbortSignal;
}): Promise<void>;
