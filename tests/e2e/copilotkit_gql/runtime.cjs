// The last server of CopilotKit that spoke GraphQL, without agents. Prints its port; ends with its input.
// Its adapters of language models and frameworks are peers that nothing here uses: one that is not installed is empty.
const { createServer } = require("node:http");
const Module = require("node:module");

const load = Module._load;
const empty = new Proxy(class {}, { get: (target, name) => (name === "prototype" ? target.prototype : empty) });
Module._load = function (name, ...rest) {
  try {
    return load.call(this, name, ...rest);
  } catch (error) {
    if (error.code === "MODULE_NOT_FOUND" && !name.startsWith(".")) return empty;
    throw error;
  }
};
const { CopilotRuntime, EmptyAdapter, copilotRuntimeNodeHttpEndpoint } = require("@copilotkit/runtime");

const handle = copilotRuntimeNodeHttpEndpoint({
  endpoint: "/copilotkit",
  runtime: new CopilotRuntime(),
  serviceAdapter: new EmptyAdapter(),
});
const server = createServer((request, response) => handle(request, response));
server.listen(0, "127.0.0.1", () => console.log(`port ${server.address().port}`));
process.stdin.on("end", () => process.exit(0)).resume();
