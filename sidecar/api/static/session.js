/** Who asks: the token of a link or of the person, for this tab alone, and the client that sends it. */

import { VibevoiceClient } from "./client/index.js";
import { tabSetting } from "./memory.js";

const LINK = /^#open=([\w-]{20,100})$/;

/** @returns {string} the token of this tab, "" without one */
export const [token, keep] = tabSetting("vibevoice-token");

/** A client with the token that there is; sent by header, so that no other page can have it sent. */
export const client = (retry = {}, silenceMs = undefined, given = token()) =>
  new VibevoiceClient({ url: location.origin, token: given || undefined, retry, silenceMs });

/**
 * Where the page was opened by a link: its word out of the address, and the token for it. The token
 * of a named owner is not kept but returned: somebody else may have sent the link.
 *
 * @returns {Promise<{token: string, signed_in_as: string} | undefined>}
 * @throws the word does not count any more
 */
export async function arrive() {
  const word = LINK.exec(location.hash)?.[1];
  if (!word) return;
  history.replaceState(null, "", location.pathname);
  const how = { method: "POST", json: { word }, once: true };
  const session = await client().question("/v1/page/sessions", how);
  if (session.signed_in_as) return session;
  keep(session.token);
}
