// Lets a file go over the page.
const bytes = Uint8Array.from(atob(arguments[1]), (one) => one.charCodeAt(0));
const dataTransfer = new DataTransfer();
dataTransfer.items.add(new File([bytes], arguments[0], {type: "audio/wav"}));
for (const kind of ["dragenter", "dragover", "drop"])
  document.body.dispatchEvent(new DragEvent(kind, {
    bubbles: true, cancelable: true, dataTransfer}));
