// Whether an expression is true, asked again for so many milliseconds, at most.
return (async () => {
  const end = performance.now() + arguments[0];
  while (!(EXPRESSION)) {
    if (performance.now() > end) return false;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return true;
})();
