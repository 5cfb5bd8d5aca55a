// Parses Markdown beside the page, which goes on meanwhile and ends the worker if a text takes too long. Import maps do
// not reach workers, so the address of the library comes with the text. The first message says that it is loaded.

onmessage = async ({ data: { library, text } }) => {
  const { lexer } = await import(library);
  postMessage(null);
  postMessage(lexer(text));
};
