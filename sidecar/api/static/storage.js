/** What the page stores in this browser (IndexedDB). */

const HEAD = 44;
/** Seconds of pcm16 in a piece. */
export const PIECE_S = 0.1;
/** Of what browsers write by themselves, in a second. */
const BYTES_S = 16000;
/** Pieces that are read at once; what lies before is the browser's, which may put it on a disk. */
const AT_ONCE = 600;
/** Pieces that the browser did not take and that it is given again with one that it takes: it may have little room. */
const LATE = 10;
/** So often it is looked how much room there is. */
const LOOK_MS = 10000;
/** A browser that does not open its storage for so long stores nothing until it does. */
const OPENING_MS = 15000;
/** What is stored is not sent, nor saved, in part. */
const UNREAD = { detail: "The browser cannot read what it has stored of this recording.", hint: "Try again; if it still cannot, restart the browser." };

export class Database {
  #name;
  #stores;
  #opening;

  /** @param {string} name @param {Record<string, string | string[]>} stores the key of each */
  constructor(name, stores) {
    [this.#name, this.#stores] = [name, stores];
  }

  /** What the request comes to that `work` makes in one transaction, once that is complete. */
  async transact(mode, work) {
    const names = Object.keys(this.#stores);
    const transaction = (await this.#open()).transaction(names, mode);
    const request = work(...names.map((name) => transaction.objectStore(name)));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request?.result);
      transaction.onabort = () => reject(transaction.error);
    });
  }

  #open() {
    this.#opening ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(this.#name, 1);
      request.onupgradeneeded = () => {
        for (const [name, keyPath] of Object.entries(this.#stores)) request.result.createObjectStore(name, { keyPath });
      };
      request.onsuccess = () => resolve((this.#opening = Object.assign(request.result, { onclose: () => (this.#opening = undefined) })));
      request.onerror = () => ((this.#opening = undefined), reject(request.error));
      setTimeout(reject, OPENING_MS);
    });
    return this.#opening;
  }
}

const database = new Database("vibevoice-recordings", { heads: "id", pieces: ["id", "number"] });

const all = (id) => IDBKeyRange.bound([id, 0], [id, Infinity]);

const here = new Set();

/** Whether this tab has a take from now on, until it ends: no other does. It is not given twice. */
export function held(id) {
  if (here.has(id)) return Promise.resolve(false);
  here.add(id);
  return new Promise((resolve) => {
    const hold = (lock) => (resolve(lock !== null || (here.delete(id), false)), lock && new Promise(() => {}));
    if (navigator.locks) navigator.locks.request(`vibevoice-${id}`, { ifAvailable: true }, hold).catch(() => resolve(true));
    else resolve(true);
  });
}

/** What is said of takes in the browser: of those of this tab, and of others. */
export const heads = () => database.transact("readonly", (stored) => stored.getAll()).catch(() => []);

/** @returns {Promise<boolean>} whether the browser has it now */
export const keepHead = (head) => database.transact("readwrite", (stored) => stored.put(head)).then(() => true, () => false);

export const dropHead = (id) => database.transact("readwrite", (stored) => stored.delete(id)).catch(() => {});

/** The sound of a take, piece by piece: in the browser's storage before anything else is done with it,
 * and in this tab where the browser takes no more. */
export class Sound {
  /** Samples a second where it is pcm16, in pieces of `PIECE_S`; else a piece is a second of what the browser writes. */
  rate = 0;
  type = "audio/wav";
  count = 0;
  /** Bytes for which the browser has room. */
  room = Infinity;
  /** Whether the browser has all of it. */
  stored = true;
  #id;
  #here = new Map();
  #written = Promise.resolve();
  #waiting = new Set();
  #looked = -Infinity;
  #dropped = false;
  #changed;

  constructor(id, changed = () => {}) {
    [this.#id, this.#changed] = [id, changed];
  }

  /** That of a tab that is no more. */
  static async found({ id, rate, type }) {
    const sound = Object.assign(new Sound(id), { rate, type });
    const last = await database.transact("readonly", (_, pieces) => pieces.openKeyCursor(all(id), "prev"));
    sound.count = last ? last.key[1] + 1 : 0; // some may be missing before it
    return sound;
  }

  get seconds() {
    return this.count * (this.rate ? PIECE_S : 1);
  }

  /** Seconds for which there is room. */
  get room_s() {
    return this.room / (2 * this.rate || BYTES_S);
  }

  /** How the name of its file ends. */
  get ending() {
    return ["wav", "mp4", "ogg"].find((kind) => this.type.includes(kind))?.replace("mp4", "m4a") ?? "webm";
  }

  /** @param {Blob | Int16Array} piece @returns {Promise<void>} once it is written */
  add(piece) {
    this.#written = this.#written.then(() => this.#write(piece)).catch(() => {}); // of one that cannot be read
    return this.#written;
  }

  /** When all that came until now is written. */
  get written() {
    return this.#written;
  }

  /** A piece, once there is one, and undefined once `gone` says that nobody waits for it any more. */
  async piece(number, gone) {
    while (number >= this.count && !gone()) await new Promise((resolve) => this.#waiting.add(resolve));
    if (gone()) return undefined;
    const stored = this.#here.has(number) ? null : await database.transact("readonly", (_, pieces) => pieces.get([this.#id, number])).catch(() => null);
    return this.#here.get(number) ?? stored?.bytes ?? new ArrayBuffer(0); // somebody may empty the storage
  }

  /** Whoever waits for a piece asks again whether they still do. */
  ring() {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  /** All of it. @throws `UNREAD` */
  async file(name) {
    await this.#written;
    let whole = new Blob();
    for (let at = 0; at < this.count; at += AT_ONCE) {
      const to = Math.min(this.count, at + AT_ONCE) - 1;
      const read = (_, pieces) => pieces.getAll(IDBKeyRange.bound([this.#id, at], [this.#id, to]));
      const stored = this.#here.size === this.count ? [] : await database.transact("readonly", read).catch(() => Promise.reject(UNREAD));
      const some = new Map(stored.map(({ number, bytes }) => [number, bytes]));
      const parts = Array.from({ length: to - at + 1 }, (_, i) => some.get(at + i) ?? this.#here.get(at + i) ?? "");
      whole = new Blob([whole, ...parts]);
    }
    const head = this.rate ? [headOf(whole.size, this.rate)] : [];
    return new File([...head, whole], `${name}.${this.ending}`, { type: this.type });
  }

  /** The browser forgets it. */
  async drop() {
    this.#dropped = true;
    await this.#written;
    this.#here.clear();
    await database.transact("readwrite", (stored, pieces) => (stored.delete(this.#id), pieces.delete(all(this.#id)))).catch(() => {});
  }

  async #put(some) {
    await database.transact("readwrite", (_, pieces) => some.forEach(([number, bytes]) => pieces.put({ id: this.#id, number, bytes })));
    for (const [number] of some) this.#here.delete(number);
  }

  async #write(piece) {
    const bytes = piece instanceof Blob ? await piece.arrayBuffer() : piece.buffer;
    if (!bytes.byteLength || this.#dropped) return;
    const number = this.count;
    try {
      await this.#put([[number, bytes]]);
    } catch {
      this.#here.set(number, bytes);
    }
    this.count += 1;
    this.ring();
    if (this.#here.size && !this.#here.has(number)) await this.#put([...this.#here].slice(0, LATE)).catch(() => {});
    if (this.#here.size || !this.stored) {
      this.stored = !this.#here.size;
      this.#changed();
    }
    if (performance.now() - this.#looked < LOOK_MS) return;
    this.#looked = performance.now();
    navigator.storage?.estimate?.().then(({ quota, usage }) => ((this.room = quota - usage), this.#changed()), () => {});
  }
}

/** The head of a wav: mono, 16 bit. */
function headOf(bytes, rate) {
  const head = new DataView(new ArrayBuffer(HEAD));
  const words = [[0, "RIFF"], [8, "WAVEfmt "], [36, "data"]];
  for (const [at, word] of words) [...word].forEach((one, i) => head.setUint8(at + i, one.charCodeAt(0)));
  const numbers = [[4, HEAD - 8 + bytes], [16, 16], [24, rate], [28, rate * 2], [40, bytes]];
  for (const [at, number] of numbers) head.setUint32(at, number, true);
  for (const [at, number] of [[20, 1], [22, 1], [32, 2], [34, 16]]) head.setUint16(at, number, true);
  return head;
}
