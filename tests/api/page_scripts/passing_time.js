// `pass` has so many milliseconds go by on the page's clock.
const now = performance.now.bind(performance);
let passed = 0;
performance.now = () => now() + passed;
window.pass = (ms) => (passed += ms);
