import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { CopilotKitProvider, useAgent, useCopilotKit, useInterrupt } from "@copilotkit/react-core/v2";

function Question({ interrupt, resolve, cancel }) {
  const { approved, resolution } = interrupt?.responseSchema?.properties ?? {};
  return (
    <div>
      <pre>{interrupt?.message}</pre>
      {approved && <button onClick={() => resolve({ approved: true })}>Approve</button>}
      {approved && <button onClick={() => resolve({ approved: false })}>Reject</button>}
      {resolution?.enum.map((name) => (
        <button key={name} onClick={() => resolve({ resolution: name })}>
          {name}
        </button>
      ))}
      <button onClick={() => cancel()}>Cancel</button>
    </div>
  );
}

function Chat() {
  const { agent } = useAgent({ agentId: "default" });
  const { copilotkit } = useCopilotKit();
  const [text, setText] = useState("");
  const question = useInterrupt({ agentId: "default", renderInChat: false, render: (props) => <Question {...props} /> });
  const connected = copilotkit.runtimeConnectionStatus === "connected";
  useEffect(() => {
    if (!connected) return;
    window.location.hash ||= crypto.randomUUID(); // the thread is part of the address, so that a reload finds it again
    agent.threadId = window.location.hash.slice(1);
    copilotkit.connectAgent({ agent });
  }, [agent, connected, copilotkit]);
  const send = () => {
    agent.addMessage({ id: crypto.randomUUID(), role: "user", content: text });
    copilotkit.runAgent({ agent });
  };
  return (
    <main>
      <input aria-label="Task" value={text} onChange={(event) => setText(event.target.value)} />
      <button onClick={send} disabled={!connected || agent.isRunning}>
        Send
      </button>
      <ol>
        {agent.messages.map(({ id, role, content }) => content && <li key={id}>{`${role}: ${content}`}</li>)}
      </ol>
      {question}
      <p>
        {agent.state?.status} {agent.state?.error?.message}
      </p>
    </main>
  );
}

createRoot(document.getElementById("root")).render(
  <CopilotKitProvider runtimeUrl={window.runtimeUrl}>
    <Chat />
  </CopilotKitProvider>,
);
