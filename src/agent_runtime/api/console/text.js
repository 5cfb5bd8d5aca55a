// Escapes characters that hide or reorder text, by the rules of `text/escaping.py`: the Unicode categories Other and
// Separator, default-ignorable characters, and letters and symbols that are drawn as a gap.

const HIDDEN =
  /[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800\uFFFC\u{13441}\u{13442}\u{16FE4}\u{1BC9D}\u{1D159}]/gu;

/** @param {unknown} text */
export const visible = (text) => String(text).replace(HIDDEN, (mark) => {
  if (" \n\t".includes(mark)) return mark;
  if (mark === "\r") return "\\r";
  const code = Number(mark.codePointAt(0)).toString(16);
  if (code.length > 4) return `\\U${code.padStart(8, "0")}`;
  return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
});
