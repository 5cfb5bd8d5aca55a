// One request of CopilotRuntimeClient, unmodified: `node talk.mjs VERSION URL REQUEST`. Prints what it gets, as JSON.
import { createRequire } from "node:module";

const [version, url, text] = process.argv.slice(2);
// Their ES modules read a library of theirs wrongly outside of a bundler; their CommonJS ones do not.
const client_of = createRequire(import.meta.url)(`client-${version}`);
const request = JSON.parse(text);
const errors = [];
const client = new client_of.CopilotRuntimeClient({
  url,
  headers: request.headers ?? {},
  handleGQLErrors: (error) => errors.push(error.message),
});

let told = false;

function tell(value) {
  if (told) return;
  told = true;
  process.stdout.write(JSON.stringify(value), () => process.exit(0));
}

function messages_of(response) {
  return client_of.convertGqlOutputToMessages(client_of.filterAdjacentAgentStateMessages(response.messages));
}

if (request.kind === "agents") tell((await client.availableAgents().toPromise()).data);
if (request.kind === "state") {
  const { data, error } = await client.loadAgentState(request.data).toPromise();
  const said = data ? client_of.loadMessagesFromJsonRepresentation(JSON.parse(data.loadAgentState.messages)) : [];
  tell({ data, messages: said, errors: error?.graphQLErrors.map(({ message, extensions }) => ({ message, extensions })) });
}
if (request.kind === "generate") {
  const { threadId, id, prompt, metaEvents, leave } = request;
  const said = prompt ? [new client_of.TextMessage({ id, role: "user", content: prompt })] : [];
  const data = {
    threadId,
    metaEvents,
    agentSession: { agentName: request.agent ?? "agent-runtime" },
    agentStates: request.states,
    metadata: { requestType: "Chat" },
    frontend: { actions: [], url: "http://localhost/" },
    messages: client_of.convertMessagesToGqlInput(said),
  };
  const abort = new AbortController();
  client.generateCopilotResponse({ data, signal: abort.signal }).subscribe(({ data, hasNext, error }) => {
    if (error) tell({ errors: error.graphQLErrors.map(({ message, extensions }) => ({ message, extensions })), sent: error.message });
    const response = data?.generateCopilotResponse;
    if (response && leave && JSON.stringify(response).includes(leave)) {
      abort.abort();
      tell({ left: true, messages: messages_of(response) });
    } else if (response && !hasNext) {
      tell({ response, messages: messages_of(response), metaEvents: response.metaEvents, status: response.status, errors });
    }
  });
}
