// The fields of responses that the page's scripts use, named as in `api/shapes.py`, `domain/plan.py` and
// `domain/contract.py`. For the type check only; the page does not load this file.

type Json = string | number | boolean | null | Json[] | { [name: string]: Json };

interface ErrorView {
  code: string;
  message: string;
  step_id: string | null;
}

interface ImageReference {
  digest: string;
  media_type: string;
  size: number;
}

interface StoredResult {
  text: string;
  output: Json;
  is_error: boolean;
  cut: boolean;
  size: number;
  images?: ImageReference[];
}

interface TouchView {
  argument: string | null;
  value: string | null;
  resolved: boolean;
}

interface PreviewView {
  sentence: string;
  likely_effect: "read" | "write" | "destructive" | "unknown";
  effect_text: string;
  touches: TouchView[];
  waits_on: string[];
  asks: string | null;
  covers: string | null;
}

interface PlanPreview {
  plan_digest: string | null;
  as_of: string | null;
  steps: PreviewView[];
}

interface DifferenceView {
  from: Json;
  to: Json;
}

interface SentencesView {
  from: string | null;
  to: string | null;
}

interface ChangeView {
  step_id: string | null;
  change: string;
  fields: { [name: string]: DifferenceView };
  sentence: SentencesView;
}

interface DiffView {
  text: string;
  changes: ChangeView[];
}

interface StepView {
  id: string;
  server: string | null;
  tool: string | null;
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
  arguments: { [name: string]: Json };
  arguments_digest: string;
  edited_by: string | null;
  input_schema: object;
  effect: "read" | "write" | "destructive" | "unknown";
  idempotent: boolean;
  hints: { [name: string]: boolean };
  sent_at: string | null;
  attempt: number;
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
  schema: { properties: { [name: string]: { type?: string; default?: Json } }; required?: string[] };
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
  reasoning?: string;
  when?: string | null;
  depends_on?: string[];
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
  reasoning?: string;
  when?: string | null;
  depends_on?: string[];
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

interface RerunView {
  task_id: string;
  reused: string[];
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
  metadata: { [name: string]: string };
  created_at: string | null;
  updated_at: string | null;
}

interface PageView {
  tasks: SummaryView[];
  next_cursor: string | null;
}

interface RevisionFailedView {
  feedback: string;
  code: string;
  message: string;
}

interface TaskView extends SummaryView {
  plan_notes: string[];
  result: string | null;
  plan_object: Contract | null;
  plan_revision: number;
  plan_digest: string | null;
  revision_failed: RevisionFailedView | null;
  steps: StepView[];
  approvals: ApprovalView[];
  attention: (AttentionView | InputView | JournalChangedView)[];
  waiting_for: WaitingView | null;
  cancel_requested: boolean;
  error: ErrorView | null;
  rerun_of: RerunView | null;
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

interface FunctionView {
  name: string;
  description: string;
}

interface TurnView {
  asked: { [name: string]: Json }[];
  answered: { [name: string]: Json }[];
}

interface ConversationView {
  step_id: string;
  functions: FunctionView[];
  turns: TurnView[];
}

interface ConversationsView {
  instructions: string;
  conversations: ConversationView[];
}

interface CallerView {
  name: string;
  tenant: string;
  scopes: string[];
  via: string;
}

interface ServerStatusView {
  id: string;
  name: string;
  type: string;
  enabled: boolean;
  connected: boolean;
  circuit: string;
  spares: number;
  detail: string;
  stderr: string;
}

interface RegistryChangesView {
  added: string[];
  changed: string[];
  removed: string[];
}

interface ToolView {
  server: string;
  tool: string;
  description: string | null;
  input_schema: Json;
  output_schema: Json;
  effect: string | null;
  idempotent: boolean | null;
  approval: string | null;
  status: string;
  detail: string | null;
}

interface ModelView {
  endpoint: string;
  model: string | null;
  api: string;
  circuit: string;
  output: string | null;
  last_error: string | null;
}

interface ModelsStatusView {
  planner: string;
  revision_help: string | null;
  model: ModelView | null;
}
