// Characters that hide or reorder what stands beside them are spelled out, as the service does in a plan.

const MARKS = /[\p{C}\p{Z}]/gu;

export const visible = (text) => String(text).replace(MARKS, (mark) => {
  if (" \n\t".includes(mark)) return mark;
  const code = mark.codePointAt(0).toString(16);
  if (code.length > 4) return `\\U${code.padStart(8, "0")}`;
  return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
});
