// The part of the vendored libraries that the page uses, for the type check only. `vendor/` has the libraries as they
// are published; `index.html` maps their names to them.

declare module "preact" {
  export type Child = unknown;
  export interface VNode {
    type: unknown;
    props: { [name: string]: unknown };
    key: unknown;
  }
  export type Component = (props: any) => unknown;
  export function h(type: string | Component, props: { [name: string]: unknown } | null, ...children: Child[]): VNode;
  export function render(child: VNode, parent: Element): void;
}

declare module "preact/hooks" {
  type Inputs = readonly unknown[];
  type Update<T> = (next: T | ((now: T) => T)) => void;
  export function useState<T>(initial: T | (() => T)): [T, Update<T>];
  export function useEffect(effect: () => void | (() => void), inputs?: Inputs): void;
  export function useRef<T>(initial: T): { current: T };
  export function useMemo<T>(make: () => T, inputs: Inputs): T;
  export function useErrorBoundary(caught?: (error: unknown) => void): [unknown, () => void];
  export function useId(): string;
}

declare module "htm" {
  import type { Component, VNode } from "preact";
  type Html = (strings: TemplateStringsArray, ...values: unknown[]) => VNode;
  type H = (type: string | Component, props: { [name: string]: unknown } | null, ...children: unknown[]) => VNode;
  const htm: { bind(h: H): Html };
  export default htm;
}

declare module "dagre" {
  interface Point {
    x: number;
    y: number;
  }
  export class Graph {
    setGraph(label: { [name: string]: unknown }): this;
    graph(): { width?: number; height?: number };
    setNode(name: string, label: { width: number; height: number }): this;
    node(name: string): Point & { width: number; height: number };
    setEdge(from: string, to: string, label: { [name: string]: unknown }): this;
    edge(from: string, to: string): { points: Point[]; x?: number; y?: number };
  }
  export function layout(graph: Graph): void;
}
