// The names of the files in a folder that is dropped, and of those that cannot be read.
const [done] = arguments;
const file = (name) => ({ name, isFile: true, file: (read) => read(new File(["x"], name)) });
const fails = (_, fail) => fail(new DOMException("gone", "NotFoundError"));
const bad = (name) => ({ name, isFile: true, file: fails });
const closed = { name: "closed", isDirectory: true, createReader: () => ({ readEntries: fails }) };
const some = [file("a.wav"), bad("bad.wav"), bad(".DS_Store"), closed, file("b.wav")];
const folder = { isDirectory: true, createReader: () => ({ readEntries: (read) => read(some.splice(0)) }) };
const app = document.querySelector("script[type=module]").src;
const unread = [];
import(app.replace("app.js", "aside.js"))
  .then(({ filesIn }) => filesIn({ items: [{ webkitGetAsEntry: () => folder }] }, () => {}, (name) => unread.push(name)))
  .then((files) => done([files.map(({ name }) => name), unread]), (error) => done(String(error)));
