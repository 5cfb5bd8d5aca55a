// Notifications of the browser about tasks that begin to wait for a person. Permission is asked for by a button only.

import { notifying } from "./device.js";
import { cut } from "./format.js";
import { go, hrefOf } from "./router.js";
import { visible } from "./text.js";

/** Browsers have notifications only for pages that came over HTTPS or from this machine. */
export const canNotify = "Notification" in window && isSecureContext;

/** Begin to notify. Throws if the person or the browser does not allow it. */
export async function startNotifying() {
  const answer = await Notification.requestPermission();
  if (answer !== "granted") throw new Error("This browser does not allow notifications of this page. Its settings can.");
  notifying.set("on");
}

/** Notify of tasks, unless the person is looking at the page. @param {SummaryView[]} tasks */
export function notifyOf(tasks) {
  const isSeen = !document.hidden && document.hasFocus();
  if (!canNotify || notifying.value !== "on" || Notification.permission !== "granted" || isSeen) return;
  for (const task of tasks) {
    const notification = new Notification("A task waits for you", { body: visible(cut(task.prompt, 200)), tag: task.task_id });
    notification.addEventListener("click", () => {
      window.focus();
      go(hrefOf(["tasks", task.task_id]));
      notification.close();
    });
  }
}
