// Drives an unmodified client of AG-UI or CopilotKit: each line of the input is a command, each line of the output its answer.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [kind, url, folder] = process.argv.slice(2);
const load = async (name) => import(pathToFileURL(createRequire(`${folder}/`).resolve(name)).href);

async function createAgent(threadId) {
  if (kind === "ag-ui") {
    const { HttpAgent } = await load("@ag-ui/client"); // it has no connect of its own
    return { agent: new HttpAgent({ url: `${url}/agui`, threadId }) };
  }
  globalThis.window ??= { location: { origin: url, href: url } }; // outside of browsers it connects to no runtime
  const { CopilotKitCore } = await load("@copilotkit/core");
  const core = new CopilotKitCore({ runtimeUrl: `${url}/copilotkit`, runtimeTransport: kind });
  await new Promise((resolve, reject) => {
    if (core.runtimeConnectionStatus === "connected") return resolve();
    core.subscribe({
      onRuntimeConnectionStatusChanged: ({ status }) => {
        if (status === "connected") resolve();
        if (status === "error") reject(new Error("the runtime cannot be reached"));
      },
    });
  });
  const agent = core.getAgent("default");
  agent.threadId = threadId;
  return { agent, core };
}

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const agents = new Map();

async function handle(command) {
  if (!agents.has(command.client)) agents.set(command.client, await createAgent(command.threadId));
  const { agent, core } = agents.get(command.client);
  const events = [];
  let error = null;
  let leave;
  const left = new Promise((resolve) => (leave = resolve)); // a run that is aborted may never end
  const subscriber = {
    onEvent: ({ event }) => {
      events.push(event);
      if (command.leaveAt && JSON.stringify(event).includes(command.leaveAt)) {
        leave();
        if (core) agent.detachActiveRun();
        else agent.abortRun();
      }
    },
    onRunFailed: ({ error: failure }) => {
      error = String(failure);
    },
  };
  if (command.say) agent.addMessage({ id: command.messageId, role: "user", content: command.say });
  if (command.forget) agent.pendingInterrupts = [];
  const options = { runId: command.runId, resume: command.resume };
  try {
    if (command.act === "connect") {
      if (core) {
        const watching = agent.subscribe(subscriber);
        await core.connectAgent({ agent });
        watching.unsubscribe();
      } else {
        agent.url = `${url}/agui/connect`;
        await agent.runAgent(options, subscriber).finally(() => (agent.url = `${url}/agui`));
      }
    } else if (core) {
      const watching = agent.subscribe(subscriber);
      await Promise.race([core.runAgent({ agent, ...options }), left]);
      watching.unsubscribe();
    } else await Promise.race([agent.runAgent(options, subscriber), left]);
  } catch (failure) {
    error = String(failure);
  }
  const { messages, state, pendingInterrupts } = agent;
  return { events, error, messages, state, interrupts: pendingInterrupts };
}

// A connection that is lost rejects promises that the libraries have left to nobody. A page survives that; Node would end.
process.on("unhandledRejection", (failure) => console.error("left to nobody:", failure));

for await (const line of createInterface({ input: process.stdin })) answer(await handle(JSON.parse(line)));
process.exit(0);
