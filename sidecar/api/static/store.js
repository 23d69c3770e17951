/** What the page knows, in one place: set here, and told to whoever draws it, once a frame. */

/** Work that is not begun again while it goes on; the next look tries again what did not succeed. */
export function alone(work) {
  let going = null;
  return (...given) => (going ??= work(...given).catch(() => {}).finally(() => (going = null)));
}

export class Store {
  state;
  /** Whoever draws it. */
  tell = () => {};
  #due = false;

  constructor(state) {
    this.state = state;
  }

  set(change) {
    this.state = { ...this.state, ...change };
    if (this.#due) return;
    this.#due = true;
    queueMicrotask(() => {
      this.#due = false;
      this.tell(this.state);
    });
  }
}
