/** The element of the page with this id. */
export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`There is no #${id}.`);
  return found as T;
}

/** A new element with a class and a text: never as HTML, it is what somebody said. */
export function made(tag: string, name = "", text = ""): HTMLElement {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  return element;
}

/** Show a text in an element that is hidden without one. */
export function say(id: string, text: string) {
  const place = element(id);
  place.textContent = text;
  place.hidden = text === "";
}
