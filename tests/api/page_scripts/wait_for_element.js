// The first element that a selector matches and that has this text in it, once there is one and the
// page has done what it does after it has drawn; null after so many milliseconds.
const [selector, text, ms] = arguments;
return new Promise((resolve) => {
  const found = () => [...document.querySelectorAll(selector)].find((one) => one.textContent.includes(text)) ?? null;
  const end = () => {
    watch.disconnect();
    resolve(found());
  };
  const drawn = () => {
    watch.disconnect();
    setTimeout(end, 100); // a page that is not shown is not drawn
    requestAnimationFrame(() => setTimeout(end));
  };
  const watch = new MutationObserver(() => found() && drawn());
  watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  if (found()) drawn();
  else setTimeout(end, ms);
});
