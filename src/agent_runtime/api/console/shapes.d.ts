// The fields of responses that the page's scripts use, named as in `api/shapes.py`, `domain/plan.py` and
// `domain/contract.py`. For the type check only; the page does not load this file.

type Json = string | number | boolean | null | Json[] | { [name: string]: Json };

interface ErrorView {
  message: string;
}

interface TouchView {
  argument: string | null;
  value: string | null;
  resolved: boolean;
}

interface PreviewView {
  effect: "read" | "write" | "destructive" | "unknown";
  touches: TouchView[];
  waits_on: string[];
  asks: string | null;
  covers: string | null;
}

interface StepView {
  id: string;
  status: string;
  attempts: number;
  output: string | null;
  note: string | null;
  error: ErrorView | null;
  preview: PreviewView;
}

interface ApprovalView {
  who: string;
  when: string;
  decision: string;
  comment: string | null;
  step_id: string | null;
}

interface AttentionView {
  kind: "outcome_unknown" | "call_approval";
  step_id: string;
  call_id: string;
  server: string;
  tool: string;
  arguments: Json;
  arguments_digest: string;
  reason: string;
  needed_by: string[];
}

interface WaitingView {
  kind: string;
  name: string;
  reason: string;
  attempt: number;
  next_try_at: string;
}

interface InputView {
  kind: "input";
  step_id: string;
  question_id: string;
  server: string;
  tool: string;
  message: string;
  schema: { properties: { [name: string]: { type?: string; default?: Json } } };
}

interface JournalChangedView {
  kind: "journal_changed";
  record: number;
  reason: string;
}

interface UsageView {
  input_tokens: number;
  output_tokens: number;
  tool_calls: number;
}

interface AllowedTool {
  server: string;
  tool: string;
  max_calls: number;
  timeout_s: number | null;
}

interface ToolStep {
  kind: "tool";
  id: string;
  title: string;
  when?: string | null;
  server: string;
  tool: string;
  arguments: { [name: string]: Json };
  timeout_s?: number | null;
  retries?: number;
  preapproved?: boolean;
}

interface AgentStep {
  kind: "agent";
  id: string;
  title: string;
  when?: string | null;
  instruction: string;
  tools: AllowedTool[];
  max_turns: number;
  preapproved?: boolean;
}

interface Budget {
  tool_calls: number | null;
  seconds: number | null;
  tokens?: number | null;
}

interface Limits {
  max_steps: number;
  budget: Budget | null;
}

interface PinnedPolicy {
  max_timeout_s?: number;
}

interface Contract {
  policy: { [key: string]: PinnedPolicy };
  goal: string;
  steps: (ToolStep | AgentStep)[];
  limits: Limits;
}

interface SummaryView {
  task_id: string;
  status: string;
  terminal: boolean;
  prompt: string;
  created_at: string | null;
  updated_at: string | null;
}

interface PageView {
  tasks: SummaryView[];
  next_cursor: string | null;
}

interface TaskView extends SummaryView {
  plan_notes: string[];
  result: string | null;
  plan_object: Contract | null;
  plan_revision: number;
  plan_digest: string | null;
  steps: StepView[];
  approvals: ApprovalView[];
  attention: (AttentionView | InputView | JournalChangedView)[];
  waiting_for: WaitingView | null;
  cancel_requested: boolean;
  error: ErrorView | null;
  usage: UsageView;
}

interface AttemptMessageView {
  role: string;
  content: string;
}

interface AttemptFaultView {
  field: string;
  message: string;
}

interface TokensView {
  input_tokens: number;
  output_tokens: number;
}

interface PlanningAttemptView {
  number: number;
  revision: number;
  instructions: string;
  messages: AttemptMessageView[];
  answer: string | null;
  outcome: string;
  message: string | null;
  faults: AttemptFaultView[];
  usage: TokensView;
  cut: boolean;
}

interface PlanningView {
  attempts: PlanningAttemptView[];
}
