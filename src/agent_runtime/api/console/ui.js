// What views and components are written with: `html` and the hooks. Every text that `html` shows passes through
// `visible`, so no task, tool or model can hide or reorder text, and nothing is ever parsed as HTML.

import { h } from "preact";
import htm from "htm";
import { visible } from "./text.js";

export { useEffect, useErrorBoundary, useId, useMemo, useRef, useState } from "preact/hooks";

/** The attributes that are shown or read out as text. */
const TEXTS = new Set(["title", "placeholder", "alt", "aria-label", "aria-description", "label"]);

/** Return whether a value is an integer whose digits `parseExactly` kept. @param {unknown} value @returns {value is { rawJSON: string }} */
export const isRaw = (value) => typeof value === "object" && value !== null && Object.hasOwn(value, "rawJSON");

/** Return a child with all of its texts made visible. @param {unknown} child @returns {unknown} */
function showHidden(child) {
  if (typeof child === "string") return visible(child);
  if (Array.isArray(child)) return child.map(showHidden);
  return isRaw(child) ? child.rawJSON : child;
}

/** @param {Parameters<typeof h>[0]} type @param {{ [name: string]: unknown } | null} props @param {unknown[]} children */
function make(type, props, ...children) {
  if (props && typeof type === "string") {
    delete props.dangerouslySetInnerHTML;
    for (const name of Object.keys(props)) if (TEXTS.has(name)) props[name] = showHidden(props[name]);
  }
  return h(type, props, ...(typeof type === "string" ? children.map(showHidden) : children));
}

/** A template of elements and components: html`<p class="note">${text}</p>`. */
export const html = htm.bind(make);
