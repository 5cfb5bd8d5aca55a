// Images in the results of calls. They are loaded with the key of the page once they come into view, and shown from memory.

import { client, textOf } from "../api.js";
import { saveFile } from "../save-file.js";
import { html, useEffect, useRef, useState } from "../ui.js";
import { Button, ShowAll } from "./basics.js";

// Pictures without code in them, as in `domain/images.py`.
const KINDS = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const LISTED = 6;

/** @param {string} mediaType */
const kindOf = (mediaType) => mediaType.replace("image/", "");

/**
 * Load an image once `place` comes into view.
 * @param {string} taskId @param {string} digest @param {{ current: Element | null }} place
 * @returns {{ blob: Blob | null, url: string, error: string }}
 */
function useImage(taskId, digest, place) {
  const [state, setState] = useState({ blob: /** @type {Blob | null} */ (null), url: "", error: "" });
  useEffect(() => {
    let wanted = true;
    let url = "";
    const load = async () => {
      const blob = await client.loadImage(taskId, digest);
      if (!KINDS.includes(blob.type)) throw new Error(`This is no picture, but ${blob.type || "of no known type"}.`);
      if (!wanted) return;
      url = URL.createObjectURL(blob);
      setState({ blob, url, error: "" });
    };
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      load().catch((error) => wanted && setState({ blob: null, url: "", error: textOf(error) }));
    });
    if (place.current) observer.observe(place.current);
    return () => {
      wanted = false;
      observer.disconnect();
      URL.revokeObjectURL(url);
    };
  }, [taskId, digest]);
  return state;
}

/** @param {{ taskId: string, image: ImageReference, alt: string, name: string }} props */
function ResultImage({ taskId, image: { digest, media_type: mediaType, size }, alt, name }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const { blob, url, error } = useImage(taskId, digest, place);
  const [isBroken, setBroken] = useState(false);
  const note = error || (isBroken ? "The browser cannot show this image." : url ? "" : "Loading…");
  return html`
    <figure class="result-image" ref=${place}>
      ${url && !isBroken && html`<img class="picture-block" src=${url} alt=${alt} onError=${() => setBroken(true)} />`}
      ${note && html`<p class="note">${note}</p>`}
      <figcaption class="result-buttons">
        <span class="note">${kindOf(mediaType).toUpperCase()}, ${size.toLocaleString("en")} bytes</span>
        ${blob && html`<${Button} kind="quiet" action=${() => saveFile(blob, `${name}.${kindOf(mediaType)}`)}>Download<//>`}
      </figcaption>
    </figure>
  `;
}

/**
 * The images of a result. `source` says where they are from; `name` is the beginning of the names of their files.
 * @param {{ taskId: string, images: readonly ImageReference[] | undefined, source: string, name: string }} props
 */
export function ResultImages({ taskId, images = [], source, name }) {
  const [isOpen, setOpen] = useState(false);
  const first = isOpen ? images : images.slice(0, LISTED);
  return html`
    ${first.map((image, at) => html`
      <${ResultImage} key=${image.digest} taskId=${taskId} image=${image} name=${`${name}-${at + 1}`}
        alt=${`Image ${at + 1} of ${images.length} from ${source}`} />
    `)}
    ${images.length > LISTED && html`<${ShowAll} isOpen=${isOpen} setOpen=${setOpen} all=${`${images.length} images`} />`}
  `;
}
