/** What this browser remembers: what recordings are called, and how the page is to look. The service
 * keeps no names. */

const THEME = "vibevoice-theme";
const COPIES = "vibevoice-keeps-copies";

function read(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Then it is not remembered.
  }
}

/** What reads and what writes something that is remembered. */
function setting(key, otherwise) {
  return [() => read(key, otherwise), (wanted) => write(key, wanted)];
}

/** What reads what is remembered by id, and what writes one of it, or without a value forgets it; the oldest of more than `most` go. */
function listing(key, most) {
  const all = () => new Map(read(key, []));
  const put = (id, value) => {
    const known = all();
    known.delete(id);
    if (value !== null) known.set(id, value);
    write(key, [...known].slice(-most));
  };
  return [all, put];
}

export const [names, call] = listing("vibevoice-names", 500);

/** Sessions of talks that the job of all of a talk replaces, whose id is the value: some become jobs later than that, and some
 * could not be deleted yet. */
export const [parts, replacePart] = listing("vibevoice-parts", 100);

/** What was seen of jobs: `deleted.js`. */
export const [jobsSeen, keepJobsSeen] = setting("vibevoice-jobs", []);

/** Whether live talks become jobs of the service: only if somebody said so. */
export const [keepsTalks, keepTalks] = setting("vibevoice-keeps-talks", false);

/** Whether a key without Control shows the keys: speech that is taken for typing may press it. */
export const [showsKeys, showKeys] = setting("vibevoice-shows-keys", true);

/** Whether something is of whoever the service knows the visitor for (`about`): theirs, or inherited by them. */
export const isTheirs = ({ owner }, about) => owner === about.owner || owner === about.inherits;

/** Whether transcripts of whoever the service knows the visitor for are copied into this browser: unless they said no, or, before they said
 * anything, whom they inherit from, or anybody before that was said for each. */
export const keepsCopies = ({ owner, inherits }) => read(`${COPIES}-${owner}`, read(`${COPIES}-${inherits}`, read(COPIES, true)));

export const keepCopies = (owner, wanted) => write(`${COPIES}-${owner}`, wanted);

/** What reads and what writes something of this tab, "" at first; where the browser stores nothing, until it is loaded again. */
export function tabSetting(key) {
  let here = "";
  const stored = (work) => {
    try {
      return work(window.sessionStorage);
    } catch {
      return here;
    }
  };
  return [() => stored((there) => there.getItem(key) || ""), (wanted) => ((here = wanted), stored((there) => there.setItem(key, wanted)))];
}

/** The recording that this tab showed last. */
export const [lastShown, showLast] = tabSetting("vibevoice-shown");

export const theme = () => read(THEME, "auto");

export function look(wanted) {
  write(THEME, wanted);
  dress();
}

export function dress() {
  document.documentElement.dataset.theme = theme();
}
