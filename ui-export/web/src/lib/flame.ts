// The flame graph as numbers: reading the JSON of docs/api.md and making a drawable tree of it.
//
//   const source = parseFlame(json);                       // checked columns, nothing else
//   const graph = buildGraph(source, { type: source.defaultType });
//   graph.total[0]                                         // all samples
//
// Everything per node is a typed array, so 100,000 nodes are a few MB and a redraw allocates nothing.
// Cost: parse and build are linear in nodes + samples (about 60 ms for 100,000 nodes).

export const Kind = { Unknown: 0, Native: 1, Kernel: 2, Jit: 3, Interpreted: 4, Synthetic: 5, Label: 6 } as const;

export interface FlameAccounting {
  taken: number;
  delivered: number;
  dropped: Record<string, number>;
  stopReasons: Record<string, number>;
  missReasons: Record<string, number>;
  expected: number;  // 0: not known
  means: Record<string, number>;
  frames: number;  // 0: not known
}

export interface ValueType {
  type: string;
  unit: string;
}

export interface FlameSource {
  title: string;
  timeMs: number; // 0 when unknown
  durationNs: number; // 0 when unknown
  range: [fromMs: number, toMs: number] | null; // what the store was asked; null where no part of it can be asked again
  period: number;
  types: ValueType[];
  defaultType: number;
  accounting: FlameAccounting;
  comments: string[];
  notices: string[]; // what this page had to leave out; also among the comments
  strings: string[];
  frameName: Int32Array;
  frameKind: Uint8Array;
  frameModule: Int32Array;
  frameFile: Int32Array;
  frameLine: Int32Array;
  frameInlined: Uint8Array;
  nodeFrame: Int32Array;
  nodeParent: Int32Array;
  labelSets: Record<string, string>[];
  sampleLabels: Int32Array;
  sampleNode: Int32Array;
  sampleValues: Float64Array[];
}

export class FlameFormatError extends Error {}

// A stranger may have written an exported page: beyond these the browser would die instead of saying so.
export const kMaxNodes = 20_000_000;
export const kMaxDepth = 4096;

function fail(message: string): never {
  throw new FlameFormatError(`This flame graph cannot be read: ${message}.`);
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) fail(`${what} is missing`);
  return value as Record<string, unknown>;
}

function list(value: unknown, what: string): unknown[] {
  if (!Array.isArray(value)) fail(`${what} is not a list`);
  if (value.length > kMaxNodes) fail(`${what} has more than ${kMaxNodes} entries`);
  return value;
}

function ints(value: unknown, what: string, low: number, high: number): Int32Array {
  const from = list(value, what);
  const to = new Int32Array(from.length);
  for (let i = 0; i < from.length; i++) {
    const v = from[i];
    if (typeof v !== 'number' || !Number.isInteger(v) || v < low || v > high) {
      fail(`${what}[${i}] is ${JSON.stringify(v)}, expected ${low}…${high}`);
    }
    to[i] = v;
  }
  return to;
}

function counts(value: unknown): Record<string, number> {
  const out: Record<string, number> = {};
  if (typeof value !== 'object' || value === null) return out;
  for (const [key, v] of Object.entries(value)) if (typeof v === 'number' && Number.isFinite(v)) out[key] = v;
  return out;
}

function num(value: unknown): number {
  const n = typeof value === 'string' ? Number(value) : value;
  return typeof n === 'number' && Number.isFinite(n) ? n : 0;
}

function readRange(value: unknown): [number, number] | null {
  if (!Array.isArray(value) || value.length !== 2 || !value.every((v) => typeof v === 'number' && Number.isFinite(v))) return null;
  return [value[0] as number, value[1] as number];
}

export function parseFlame(json: unknown): FlameSource {
  const top = record(json, 'the document');
  if (top.version !== 1) fail(`its version is ${JSON.stringify(top.version)} and this page knows version 1`);
  const profile = record(top.profile, 'profile');
  const types = list(profile.types, 'profile.types').map((t, i) => {
    const r = record(t, `profile.types[${i}]`);
    return { type: String(r.type ?? ''), unit: String(r.unit ?? '') };
  });
  if (types.length === 0) fail('it has no value type');
  const strings = list(top.strings, 'strings').map((s, i) => (typeof s === 'string' ? s : fail(`strings[${i}] is no text`)));
  const maxString = strings.length - 1;

  const frames = record(top.frames, 'frames');
  const frameName = ints(frames.name, 'frames.name', 0, maxString);
  const sameLength = (a: Int32Array, what: string, n: number): Int32Array =>
    a.length === n ? a : fail(`${what} has ${a.length} entries, expected ${n}`);
  const column = (name: string, low: number, high: number): Int32Array =>
    sameLength(ints(frames[name], `frames.${name}`, low, high), `frames.${name}`, frameName.length);
  const frameKind = Uint8Array.from(column('kind', 0, 255));
  const frameModule = column('module', 0, maxString);
  const frameFile = column('file', 0, maxString);
  // A foreign profile may carry any number as a line; one that no source file has is shown as none.
  const lines = list(frames.line, 'frames.line');
  const frameLine = sameLength(
    Int32Array.from(lines, (v) => (typeof v === 'number' && v > 0 && v <= 0x7fffffff ? v : 0)), 'frames.line', frameName.length);
  const frameInlined = Uint8Array.from(column('inlined', 0, 1));

  const nodes = record(top.nodes, 'nodes');
  const nodeFrame = ints(nodes.frame, 'nodes.frame', 0, frameName.length - 1);
  const nodeParent = sameLength(ints(nodes.parent, 'nodes.parent', -1, nodeFrame.length - 1), 'nodes.parent', nodeFrame.length);
  if (nodeFrame.length === 0) fail('it has no root');
  const notices: string[] = [];
  const depth = new Int32Array(nodeFrame.length);
  const shown = new Int32Array(nodeFrame.length); // the node itself, or its last ancestor within the depth limit
  let tooDeep = false;
  for (let i = 0; i < nodeParent.length; i++) {
    const p = nodeParent[i]!;
    if (i === 0 ? p !== -1 : p < 0 || p >= i) fail(`node ${i} has parent ${p}`);
    if (i > 0) depth[i] = depth[p]! + 1;
    shown[i] = depth[i]! > kMaxDepth ? shown[p]! : i;
    if (shown[i] !== i) tooDeep = true;
  }

  const labelSets = list(top.labelSets ?? [], 'labelSets').map((set, i) => {
    const out: Record<string, string> = {};
    for (const [key, v] of Object.entries(record(set, `labelSets[${i}]`))) out[key] = String(v);
    return out;
  });
  const samples = record(top.samples, 'samples');
  const sampleNode = ints(samples.node, 'samples.node', 0, nodeFrame.length - 1);
  if (tooDeep) notices.push(`Stacks deeper than ${kMaxDepth} frames are cut there; what lies deeper counts for the last frame shown.`);
  for (let i = 0; i < sampleNode.length; i++) sampleNode[i] = shown[sampleNode[i]!]!;
  const sampleLabels = sameLength(
    ints(samples.labels, 'samples.labels', 0, Math.max(0, labelSets.length - 1)), 'samples.labels', sampleNode.length);
  if (labelSets.length === 0) labelSets.push({});
  const columns = list(samples.values, 'samples.values');
  let negative = 0;
  if (columns.length !== types.length) fail(`it has ${columns.length} value columns for ${types.length} types`);
  const sampleValues = columns.map((values, c) => {
    const from = list(values, `samples.values[${c}]`);
    if (from.length !== sampleNode.length) fail(`samples.values[${c}] has ${from.length} entries`);
    const to = new Float64Array(from.length);
    for (let i = 0; i < from.length; i++) {
      const v = from[i];
      if (typeof v !== 'number' || !Number.isFinite(v)) fail(`samples.values[${c}][${i}] is ${JSON.stringify(v)}`);
      if (v < 0) negative++;
      to[i] = Math.max(0, v);
    }
    return to;
  });

  if (negative > 0) notices.push(`${negative} values are below zero (a difference of two profiles?); a flame graph cannot show them, they count as 0.`);

  const accounting = typeof profile.accounting === 'object' && profile.accounting !== null
    ? (profile.accounting as Record<string, unknown>) : {};
  const defaultType = num(profile.defaultType);
  return {
    title: String(top.title ?? ''),
    timeMs: num(profile.timeNs) / 1e6,
    durationNs: num(profile.durationNs),
    range: readRange(top.range),
    period: num(profile.period),
    types,
    defaultType: Number.isInteger(defaultType) && defaultType >= 0 && defaultType < types.length ? defaultType : 0,
    accounting: {
      taken: num(accounting.taken),
      delivered: num(accounting.delivered),
      dropped: counts(accounting.dropped),
      stopReasons: counts(accounting.stopReasons),
      missReasons: counts(accounting.missReasons),
      expected: num(accounting.expected),
      means: counts(accounting.means),
      frames: num(accounting.frames),
    },
    comments: [...notices, ...(Array.isArray(profile.comments) ? profile.comments.map(String) : [])],
    notices,
    strings, frameName, frameKind, frameModule, frameFile, frameLine, frameInlined,
    nodeFrame, nodeParent, labelSets, sampleLabels, sampleNode, sampleValues,
  };
}

// Functions: frames that differ only in their line or inlining are one function.
export interface Functions {
  name: string[];
  kind: Uint8Array;
  module: string[];
  file: string[];
  line: Int32Array;
  inlined: Uint8Array; // 1 = inlined wherever it was seen
}

export type Order = 'value' | 'name';

export interface FlameGraph {
  fns: Functions;
  fn: Int32Array; // node -> function
  parent: Int32Array; // parent index < child index; -1 for node 0
  depth: Int32Array;
  self: Float64Array;
  total: Float64Array;
  start: Float64Array; // left edge, in value units
  level: Int32Array; // nodes by depth, then by start
  levelStart: Int32Array; // level[levelStart[d] .. levelStart[d + 1]) have depth d
  levels: number;
  unit: string;
  type: string;
}

export interface BuildOptions {
  type?: number;
  by?: readonly string[]; // one level per label under the root
  order?: Order;
}

// Growable columns while a tree is built.
class TreeBuilder {
  fn: number[] = [0];
  parent: number[] = [-1];
  self: number[] = [0];
  private children = new Map<number, number>();
  constructor(private readonly fnCount: number, rootFn: number) {
    this.fn[0] = rootFn;
  }
  child(parent: number, fn: number): number {
    const key = parent * this.fnCount + fn;
    let node = this.children.get(key);
    if (node === undefined) {
      node = this.fn.length;
      this.fn.push(fn);
      this.parent.push(parent);
      this.self.push(0);
      this.children.set(key, node);
    }
    return node;
  }
}

export class FunctionTable {
  readonly fns: { name: string[]; kind: number[]; module: string[]; file: string[]; line: number[]; inlined: number[] } =
    { name: [], kind: [], module: [], file: [], line: [], inlined: [] };
  private index = new Map<string, number>();
  add(name: string, kind: number, module: string, file = '', line = 0, inlined = 0): number {
    const key = `${kind}\u0000${module}\u0000${name}`;
    const known = this.index.get(key);
    if (known !== undefined) {
      if (!inlined) this.fns.inlined[known] = 0;
      if (!this.fns.file[known] && file) {
        this.fns.file[known] = file;
        this.fns.line[known] = line;
      }
      return known;
    }
    const id = this.fns.name.length;
    this.index.set(key, id);
    this.fns.name.push(name);
    this.fns.kind.push(kind);
    this.fns.module.push(module);
    this.fns.file.push(file);
    this.fns.line.push(line);
    this.fns.inlined.push(inlined);
    return id;
  }
  finish(): Functions {
    const f = this.fns;
    return {
      name: f.name, module: f.module, file: f.file,
      kind: Uint8Array.from(f.kind), line: Int32Array.from(f.line), inlined: Uint8Array.from(f.inlined),
    };
  }
}

export function buildGraph(source: FlameSource, options: BuildOptions = {}): FlameGraph {
  const type = options.type ?? source.defaultType;
  const by = options.by ?? [];
  const values = source.sampleValues[type]!;

  const table = new FunctionTable();
  const rootFn = table.add('all', Kind.Synthetic, '');
  const fnOfFrame = new Int32Array(source.frameName.length);
  for (let f = 0; f < fnOfFrame.length; f++) {
    fnOfFrame[f] = table.add(
      source.strings[source.frameName[f]!]!, source.frameKind[f]!, source.strings[source.frameModule[f]!]!,
      source.strings[source.frameFile[f]!]!, source.frameLine[f]!, source.frameInlined[f]!);
  }
  // Label levels under the root: a path of functions for every label set.
  const groupPaths: number[][] = [];
  const groupOfSet = new Int32Array(source.labelSets.length);
  const groupIndex = new Map<string, number>();
  source.labelSets.forEach((set, i) => {
    const path = by.map((name) => table.add(set[name] ? set[name]! : `(no ${name})`, Kind.Label, name));
    const key = path.join(',');
    let group = groupIndex.get(key);
    if (group === undefined) {
      group = groupPaths.length;
      groupIndex.set(key, group);
      groupPaths.push(path);
    }
    groupOfSet[i] = group;
  });

  const builder = new TreeBuilder(table.fns.name.length, rootFn);
  const sources = source.nodeFrame.length;
  const made: (Int32Array | undefined)[] = groupPaths.map(() => undefined);
  const chain = new Int32Array(kMaxDepth + 2);
  for (let s = 0; s < values.length; s++) {
    const value = values[s]!;
    if (value === 0) continue;
    const group = groupOfSet[source.sampleLabels[s]!]!;
    let map = made[group];
    if (!map) {
      map = made[group] = new Int32Array(sources).fill(-1);
      let at = 0;
      for (const fn of groupPaths[group]!) at = builder.child(at, fn);
      map[0] = at;
    }
    let node = source.sampleNode[s]!;
    let n = 0;
    while (map[node]! < 0) {
      chain[n++] = node;
      node = source.nodeParent[node]!;
    }
    let at = map[node]!;
    while (n > 0) {
      node = chain[--n]!;
      at = map[node] = builder.child(at, fnOfFrame[source.nodeFrame[node]!]!);
    }
    builder.self[at]! += value;
  }
  return finishGraph(table.finish(), builder.fn, builder.parent, builder.self, source.types[type]!, options.order ?? 'value');
}

// From columns with parent < child to totals and a layout.
export function finishGraph(
  fns: Functions, fnColumn: ArrayLike<number>, parentColumn: ArrayLike<number>, selfColumn: ArrayLike<number>,
  valueType: ValueType, order: Order,
): FlameGraph {
  const n = fnColumn.length;
  const fn = Int32Array.from(fnColumn);
  const parent = Int32Array.from(parentColumn);
  const self = Float64Array.from(selfColumn);
  const total = Float64Array.from(self);
  const depth = new Int32Array(n);
  const childCount = new Int32Array(n + 1);
  let levels = 1;
  for (let i = n - 1; i > 0; i--) total[parent[i]!]! += total[i]!;
  for (let i = 1; i < n; i++) {
    depth[i] = depth[parent[i]!]! + 1;
    if (depth[i]! >= levels) levels = depth[i]! + 1;
    childCount[parent[i]!]!++;
  }
  const childStart = new Int32Array(n + 1);
  for (let i = 0; i < n; i++) childStart[i + 1] = childStart[i]! + childCount[i]!;
  const children = new Int32Array(n > 0 ? n - 1 : 0);
  const fill = childStart.slice(0, n);
  for (let i = 1; i < n; i++) children[fill[parent[i]!]!++] = i;
  const names = fns.name;
  const byName = (a: number, b: number): number => {
    const x = names[fn[a]!]!, y = names[fn[b]!]!;
    if (x !== y) return x < y ? -1 : 1;
    const m = fns.module[fn[a]!]!, o = fns.module[fn[b]!]!;
    return m !== o ? (m < o ? -1 : 1) : fns.kind[fn[a]!]! - fns.kind[fn[b]!]! || a - b;
  };
  const compare = order === 'name' ? byName : (a: number, b: number): number => total[b]! - total[a]! || byName(a, b);
  for (let i = 0; i < n; i++) {
    if (childCount[i]! > 1) children.subarray(childStart[i]!, childStart[i + 1]!).sort(compare);
  }
  const start = new Float64Array(n);
  const level = new Int32Array(n);
  const levelStart = new Int32Array(levels + 1);
  let write = 1;
  for (let d = 0, read = 0; d < levels; d++) {
    levelStart[d] = read;
    for (const end = write; read < end; read++) {
      const node = level[read]!;
      let x = start[node]!;
      for (let c = childStart[node]!; c < childStart[node + 1]!; c++) {
        const child = children[c]!;
        start[child] = x;
        x += total[child]!;
        level[write++] = child;
      }
    }
  }
  levelStart[levels] = n;
  return { fns, fn, parent, depth, self, total, start, level, levelStart, levels, unit: valueType.unit, type: valueType.type };
}

// Index within graph.level of the last node of `depth` that starts at or before x; levelStart[depth] if none does.
export function seekLevel(graph: FlameGraph, depth: number, x: number): number {
  let low = graph.levelStart[depth]!, high = graph.levelStart[depth + 1]! - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (graph.start[graph.level[middle]!]! <= x) low = middle;
    else high = middle - 1;
  }
  return low;
}

export function nodeAt(graph: FlameGraph, depth: number, x: number): number {
  if (depth < 0 || depth >= graph.levels) return -1;
  const at = seekLevel(graph, depth, x);
  if (at >= graph.levelStart[depth + 1]!) return -1;
  const node = graph.level[at]!;
  return x >= graph.start[node]! && x < graph.start[node]! + graph.total[node]! ? node : -1;
}

export function childrenOf(graph: FlameGraph, node: number): number[] {
  const depth = graph.depth[node]! + 1;
  if (depth >= graph.levels) return [];
  const out: number[] = [];
  const end = graph.start[node]! + graph.total[node]!;
  for (let i = seekLevel(graph, depth, graph.start[node]!); i < graph.levelStart[depth + 1]!; i++) {
    const child = graph.level[i]!;
    if (graph.start[child]! >= end && graph.total[child]! > 0) break;
    if (graph.parent[child] === node) out.push(child);
  }
  return out;
}

export function pathTo(graph: FlameGraph, node: number): number[] {
  const path: number[] = [];
  for (let at = node; at >= 0; at = graph.parent[at]!) path.push(at);
  return path.reverse();
}

export interface TopRow {
  fn: number;
  self: number;
  total: number;
}

// Self and total per function under `root`; a recursive function's total counts each sample once.
export function topFunctions(graph: FlameGraph, root = 0): TopRow[] {
  const n = graph.fns.name.length;
  const self = new Float64Array(n), total = new Float64Array(n);
  const seen = new Uint8Array(n);
  const open = new Int32Array(n); // how often a function is on the current path
  // Pre-order walk over `level` slices would need children lists; walking by an explicit stack of (node, state) does.
  const first = new Int32Array(graph.fn.length).fill(-1), next = new Int32Array(graph.fn.length).fill(-1);
  for (let i = graph.fn.length - 1; i > 0; i--) {
    const p = graph.parent[i]!;
    next[i] = first[p]!;
    first[p] = i;
  }
  let node = root, down = true;
  for (;;) {
    if (down) {
      const f = graph.fn[node]!;
      seen[f] = 1;
      self[f]! += graph.self[node]!;
      if (open[f]!++ === 0) total[f]! += graph.total[node]!;
      if (first[node]! >= 0) {
        node = first[node]!;
        continue;
      }
    }
    open[graph.fn[node]!]!--;
    if (node === root) break;
    if (next[node]! >= 0) {
      node = next[node]!;
      down = true;
    } else {
      node = graph.parent[node]!;
      down = false;
    }
  }
  const rows: TopRow[] = [];
  for (let f = 0; f < n; f++) if (seen[f]) rows.push({ fn: f, self: self[f]!, total: total[f]! });
  return rows;
}

// Who calls `fn` (inverted, widest caller first) and what it calls: the sandwich view. Both trees have `fn` as root.
export function callersOf(graph: FlameGraph, fn: number, order: Order = 'value'): FlameGraph {
  const builder = new TreeBuilder(graph.fns.name.length, fn);
  const inside = markOutermost(graph, fn);
  for (let i = 0; i < graph.fn.length; i++) {
    if (inside[i] !== 2) continue;
    let at = 0;
    for (let up = graph.parent[i]!; up > 0; up = graph.parent[up]!) at = builder.child(at, graph.fn[up]!);
    builder.self[at]! += graph.total[i]!;
  }
  return finishGraph(graph.fns, builder.fn, builder.parent, builder.self, { type: graph.type, unit: graph.unit }, order);
}

export function calleesOf(graph: FlameGraph, fn: number, order: Order = 'value'): FlameGraph {
  const builder = new TreeBuilder(graph.fns.name.length, fn);
  const inside = markOutermost(graph, fn);
  const to = new Int32Array(graph.fn.length).fill(-1);
  for (let i = 0; i < graph.fn.length; i++) {
    if (inside[i] === 2) to[i] = 0;
    else if (inside[i] === 1) to[i] = builder.child(to[graph.parent[i]!]!, graph.fn[i]!);
    else continue;
    builder.self[to[i]!]! += graph.self[i]!;
  }
  return finishGraph(graph.fns, builder.fn, builder.parent, builder.self, { type: graph.type, unit: graph.unit }, order);
}

// 2 = outermost frame of fn, 1 = below such a frame, 0 = elsewhere.
function markOutermost(graph: FlameGraph, fn: number): Uint8Array {
  const mark = new Uint8Array(graph.fn.length);
  for (let i = 0; i < graph.fn.length; i++) {
    const p = graph.parent[i]!;
    if (p >= 0 && mark[p]! > 0) mark[i] = 1;
    else if (graph.fn[i] === fn) mark[i] = 2;
  }
  return mark;
}

// Zoom paths for the URL: a short hash per frame, so that a link still fits after the samples were refreshed.
export function zoomPath(graph: FlameGraph, node: number): string {
  return pathTo(graph, node).slice(1).map((at) => stepOf(graph, at)).join('.');
}

// The deepest node that still follows the path; 0 when even its first frame is gone.
export function resolveZoom(graph: FlameGraph, path: string): number {
  if (!path) return 0;
  let node = 0;
  for (const step of path.split('.')) {
    const child = childrenOf(graph, node).find((c) => stepOf(graph, c) === step);
    if (child === undefined) return node;
    node = child;
  }
  return node;
}

function stepOf(graph: FlameGraph, node: number): string {
  const f = graph.fn[node]!;
  return zoomStep(graph.fns.name[f]!, graph.fns.module[f]!, graph.fns.kind[f]!);
}

// One step of a zoom path.
export function zoomStep(name: string, module: string, kind: number): string {
  return hashText(`${name}\u0000${module}\u0000${kind}`);
}

function hashText(text: string): string {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return (h >>> 0).toString(36);
}
