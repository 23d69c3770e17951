// Ends the pause of five seconds after which a page looks at a job of which it hears nothing in half
// a second.
const wait = window.setTimeout;
window.setTimeout = (work, ms, ...given) => wait(work, ms === 5000 ? 500 : ms, ...given);
