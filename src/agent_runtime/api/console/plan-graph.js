// The graph of a plan: which steps need which, and why; and where a picture has them.

import { partsOf, referencesIn } from "./components/values.js";
import { cut } from "./format.js";

/**
 * @typedef {object} Edge
 * @property {string} from
 * @property {string} to
 * @property {"data" | "condition" | "order"} kind What flows: a result into arguments, a result into a condition, or nothing.
 * @property {string[]} names The arguments that take the result.
 */

/** @param {ToolStep | AgentStep} step @returns {[name: string, value: unknown][]} */
const templatesOf = (step) => (step.kind === "agent" ? [["instruction", step.instruction]] : Object.entries(step.arguments));

/** Return the edges to a step, one for each step that it needs. @param {ToolStep | AgentStep} step @returns {Edge[]} */
export function edgesTo(step) {
  /** @type {Map<string, Edge>} */
  const found = new Map();
  for (const [name, value] of templatesOf(step)) {
    for (const { step: from } of referencesIn(value)) {
      const edge = found.get(from) ?? { from, to: step.id, kind: "data", names: [] };
      if (!edge.names.includes(name)) edge.names.push(name);
      found.set(from, edge);
    }
  }
  for (const part of partsOf(step.when ?? "")) {
    if (typeof part === "string" || found.has(part.step)) continue;
    found.set(part.step, { from: part.step, to: step.id, kind: "condition", names: [] });
  }
  for (const from of step.depends_on ?? []) {
    if (!found.has(from)) found.set(from, { from, to: step.id, kind: "order", names: [] });
  }
  return [...found.values()];
}

/** Return all edges between the steps of a plan. @param {(ToolStep | AgentStep)[]} steps */
function edgesOf(steps) {
  const known = new Set(steps.map(({ id }) => id));
  return steps.flatMap(edgesTo).filter(({ from }) => known.has(from));
}

const NODE_HEIGHT = 58;
const NODE_WIDTH = 196;
const NARROW_WIDTH = 132;
const LEAST_SCALE = 0.8;

/**
 * @typedef {{ x: number, y: number }} Point
 * @typedef {object} Layout The picture in pixels. Positions of steps are those of their upper left corners.
 * @property {number} width
 * @property {number} height
 * @property {{ width: number, height: number }} node The size of each step.
 * @property {number} scale By how much the picture is made smaller.
 * @property {Map<string, Point>} nodes
 * @property {{ edge: Edge, label: string, points: Point[], at: Point | null }[]} edges
 */

/** @param {Edge} edge */
function labelOf({ kind, names }) {
  if (kind !== "data") return kind === "condition" ? "if" : "";
  const text = names.join(", ");
  return text.length > 18 ? cut(text, 17) : text;
}

/**
 * Lay out the steps for a box of this width: from left to right, where that fits, and otherwise from top to bottom.
 * @param {typeof import("dagre")} dagre @param {(ToolStep | AgentStep)[]} steps @param {number} room
 */
export function fit(dagre, steps, room) {
  const across = layOut(dagre, steps, "LR", NODE_WIDTH);
  if (across.width <= room) return across;
  const down = layOut(dagre, steps, "TB", NODE_WIDTH);
  if (down.width <= room) return down;
  const narrow = layOut(dagre, steps, "TB", NARROW_WIDTH);
  return { ...narrow, scale: Math.max(LEAST_SCALE, Math.min(1, room / narrow.width)) };
}

/**
 * @param {typeof import("dagre")} dagre @param {(ToolStep | AgentStep)[]} steps @param {"LR" | "TB"} direction
 * @param {number} nodeWidth @returns {Layout}
 */
function layOut(dagre, steps, direction, nodeWidth) {
  const node = { width: nodeWidth, height: NODE_HEIGHT };
  const graph = new dagre.Graph();
  graph.setGraph({ rankdir: direction, nodesep: 18, ranksep: 26, edgesep: 12, marginx: 6, marginy: 6 });
  // Own names, because an id may be `constructor`, which the library would not survive.
  const names = new Map(steps.map(({ id }, at) => [id, `n${at}`]));
  const nameOf = (/** @type {string} */ id) => names.get(id) ?? "";
  for (const { id } of steps) graph.setNode(nameOf(id), { ...node });
  const edges = edgesOf(steps);
  for (const edge of edges) {
    const label = labelOf(edge);
    const size = { width: label ? 7 * label.length + 8 : 0, height: label ? 18 : 0, labelpos: "c" };
    graph.setEdge(nameOf(edge.from), nameOf(edge.to), size);
  }
  dagre.layout(graph);
  const { width = 0, height = 0 } = graph.graph();
  const corner = (/** @type {Point} */ { x, y }) => ({ x: x - node.width / 2, y: y - node.height / 2 });
  return {
    width,
    height,
    node,
    scale: 1,
    nodes: new Map(steps.map(({ id }) => [id, corner(graph.node(nameOf(id)))])),
    edges: edges.map((edge) => {
      const { points, x, y } = graph.edge(nameOf(edge.from), nameOf(edge.to));
      return { edge, label: labelOf(edge), points, at: x === undefined || y === undefined ? null : { x, y } };
    }),
  };
}

/** Return the path of an edge through its points, with round corners. @param {Point[]} points */
export function pathOf(points) {
  const [first, ...rest] = points;
  const last = rest[rest.length - 1];
  let path = `M${first.x},${first.y}`;
  for (let at = 0; at + 1 < rest.length; at += 1) {
    const [one, next] = [rest[at], rest[at + 1]];
    path += at + 2 < rest.length
      ? `Q${one.x},${one.y} ${(one.x + next.x) / 2},${(one.y + next.y) / 2}`
      : `Q${one.x},${one.y} ${last.x},${last.y}`;
  }
  return rest.length > 1 ? path : `${path}L${last.x},${last.y}`;
}
