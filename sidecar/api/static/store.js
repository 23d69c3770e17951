/** What the page knows, in one place: set here, and told to whoever draws it, once a frame. */

export class Store {
  state;
  #listeners = new Set();
  #due = false;

  /** @param {Record<string, any>} state what is known at the start */
  constructor(state) {
    this.state = state;
  }

  /** @param {Record<string, any>} change */
  set(change) {
    this.state = { ...this.state, ...change };
    if (this.#due) return;
    this.#due = true;
    queueMicrotask(() => {
      this.#due = false;
      for (const tell of [...this.#listeners]) tell(this.state);
    });
  }

  /**
   * @param {(state: Record<string, any>) => void} tell
   * @returns {() => void} ends it
   */
  listen(tell) {
    this.#listeners.add(tell);
    return () => this.#listeners.delete(tell);
  }
}
