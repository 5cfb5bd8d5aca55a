// The client of the page. It sends the key, and follows streams as long as the page is open.

import { Client } from "../client.js";
import { withKey } from "./session.js";

export const client = new Client(".", { fetch: withKey, awayMs: Infinity });

/** Return the address of a part of a task, such as `planning`. @param {string} id @param {string} part */
export const taskPath = (id, part) => `/v1/tasks/${encodeURIComponent(id)}/${part}`;

/** Return a tool of the catalogue; none if the server offers no such tool. @param {string} server @param {string} name @returns {Promise<ToolView | undefined>} */
export async function findTool(server, name) {
  return (await client.listTools()).find((one) => one.server === server && one.tool === name);
}

/** Return the text of an error for people. @param {unknown} error */
export const textOf = (error) => (error instanceof Error ? error.message : String(error));
