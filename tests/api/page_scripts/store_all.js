// Ends once each database of the page has all that it was given before.
const [done] = arguments;
const stored = (name) =>
  new Promise((resolve, reject) => {
    const request = indexedDB.open(name);
    request.onerror = reject;
    request.onsuccess = ({target: {result}}) => {
      const written = result.transaction(result.objectStoreNames, "readwrite");
      written.objectStore(result.objectStoreNames[0]).count();
      written.oncomplete = () => resolve(result.close());
    };
  });
indexedDB.databases().then((all) => Promise.all(all.map(({name}) => stored(name)))).then(done);
