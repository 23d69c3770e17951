/** Something of this page as a file of the person's. */

const READ_MS = 10000;

/** @param {string | Blob} content @param {string} name */
export function save(content, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([content])), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), READ_MS);
}
