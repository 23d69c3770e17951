// Stores copies of transcripts in the browser; the owners and ids of all that are there then.
const [owner, count, at, done] = arguments;
const request = indexedDB.open("vibevoice-copies", 1);
request.onupgradeneeded = () => {
  for (const store of ["heads", "texts"]) request.result.createObjectStore(store, {keyPath: "id"});
};
request.onsuccess = () => {
  const both = request.result.transaction(["heads", "texts"], "readwrite");
  const [heads, texts] = [both.objectStore("heads"), both.objectStore("texts")];
  for (let one = 0; one < count; one++) {
    const id = `${owner}-${at}-${one}`, created = new Date(0).toISOString();
    const progress = {audio_seconds_total: 1, audio_seconds_done: 1, fraction: 1};
    const job = {id, state: "done", revision: 0, created, ended: created, progress};
    heads.put({id, owner, job, revision: 0, at: at + one, kept: true});
    texts.put({id, segments: [], metadata: {}});
  }
  const found = heads.getAll();
  both.oncomplete = () => {
    request.result.close();
    done(found.result.map((head) => [head.owner, head.id]));
  };
};
