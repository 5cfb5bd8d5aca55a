// A client of the MCP TypeScript SDK that a test drives: one command as JSON on each line of standard input, and one answer
// for each on standard output. Commands are carried out at the same time; `id` says which answer belongs to which.

import { createInterface } from "node:readline";

const settings = JSON.parse(process.argv[2]);
const print = (value) => console.log(JSON.stringify(value));

async function open() {
  const asked = [];
  const answer = settings.answer;
  const reply = (request) => {
    asked.push(request.params.message);
    return answer;
  };
  const info = { name: "test", version: "1" };
  const capabilities = answer ? { elicitation: {} } : {};
  let client, transports;
  if (settings.sdk === 1) {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { ElicitRequestSchema } = await import("@modelcontextprotocol/sdk/types.js");
    const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const { StdioClientTransport } = await import("@modelcontextprotocol/sdk/client/stdio.js");
    transports = { StreamableHTTPClientTransport, StdioClientTransport };
    client = new Client(info, { capabilities });
    if (answer) client.setRequestHandler(ElicitRequestSchema, reply);
  } else {
    const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
    const { StdioClientTransport } = await import("@modelcontextprotocol/client/stdio");
    transports = { StreamableHTTPClientTransport, StdioClientTransport };
    client = new Client(info, { capabilities, versionNegotiation: { mode: settings.mode } });
    if (answer) client.setRequestHandler("elicitation/create", reply);
  }
  const transport = settings.command
    ? new transports.StdioClientTransport({ ...settings.command, stderr: "ignore" })
    : new transports.StreamableHTTPClientTransport(new URL(settings.url), { requestInit: { headers: settings.headers } });
  await client.connect(transport);
  return { client, asked };
}

let opened;

const verbs = {
  async connect() {
    opened = await open();
    return opened.client.getServerVersion().name;
  },
  async close() {
    await opened.client.close();
    return null;
  },
  async list() {
    return (await opened.client.listTools()).tools.map((tool) => tool.name);
  },
  async read({ uri }) {
    return (await opened.client.readResource({ uri })).contents[0].text;
  },
  async call({ name, args }) {
    const lines = [];
    const onprogress = ({ message }) => lines.push(message);
    const options = { timeout: 60_000, onprogress };
    const params = { name, arguments: args };
    const call = settings.sdk === 1
      ? opened.client.callTool(params, undefined, options)
      : opened.client.callTool(params, options);
    const result = await call;
    return { task: result.structuredContent, isError: result.isError ?? false, text: result.content[0].text, lines };
  },
  async asked() {
    return opened.asked;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, verb, ...more } = JSON.parse(line);
  verbs[verb](more).then(
    (result) => print({ id, result }),
    (error) => print({ id, error: String(error.message ?? error), code: error.code ?? null }),
  );
}
process.exit(0);
