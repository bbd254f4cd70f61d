// A flame graph of the store holds so many boxes and sums up the smaller ones. Who zooms in wants to see those too: then
// the store is asked again, for that subtree with as many boxes, and the answer takes the place of the coarse one.
//
//   const finer = new Finer(askFocus, redraw);
//   finer.set(source, path, zoom);        // whenever one of them changes
//   draw(finer.shown); if (finer.loading) …
//
// Numbers never mix: a piece is asked for the very range of the picture it goes into, and a new picture (a refresh, another
// question) begins without pieces. What was fetched stays until then, so zooming out and in again costs nothing.
import { api, asApiError, type ApiError } from './api';
import { Kind, parseFlame, zoomStep, type FlameSource } from './flame';

// The store's names for boxes that stand for others.
export const kSmaller = '(smaller)';
const kOutsideFocus = '(outside the focus)';

// Pieces kept besides those on the way to the zoomed box; each has as many boxes as the whole picture.
const kMaxPieces = 6;
// The store takes addresses of 8 KiB; names of C++ functions fill that in twenty frames.
const kMaxAddress = 6000;

export interface Piece {
  focus: string[]; // names from the root, not itself named, to a box
  source: FlameSource;
}

const nameOf = (source: FlameSource, node: number): string => source.strings[source.frameName[source.nodeFrame[node]!]!]!;
const kindOf = (source: FlameSource, node: number): number => source.frameKind[source.nodeFrame[node]!]!;

export function isSmaller(name: string, kind: number): boolean {
  return kind === Kind.Synthetic && name === kSmaller;
}

// Nodes with samples at or below them: others are not drawn.
function drawnNodes(source: FlameSource): Uint8Array {
  const drawn = new Uint8Array(source.nodeFrame.length);
  for (let s = 0; s < source.sampleNode.length; s++) {
    if (source.sampleValues.some((column) => column[s] !== 0)) drawn[source.sampleNode[s]!] = 1;
  }
  for (let i = drawn.length - 1; i > 0; i--) if (drawn[i]) drawn[source.nodeParent[i]!] = 1;
  return drawn;
}

interface Reach {
  depth: number; // steps of the way that could be gone
  ends: number[]; // the nodes where it ends: functions of one name, and of a function its lines
  inside: Uint8Array; // 1: there and below
}

function follow(source: FlameSource, length: number, fits: (step: number, node: number) => boolean): Reach {
  const drawn = drawnNodes(source);
  const gone = new Int32Array(drawn.length).fill(-1); // steps that lead to the node; -1: beside the way
  gone[0] = 0;
  let depth = 0, ends = [0];
  for (let i = 1; i < gone.length; i++) {
    const step = gone[source.nodeParent[i]!]!;
    if (step < 0 || step >= length || !drawn[i] || !fits(step, i)) continue;
    gone[i] = step + 1;
    if (step + 1 > depth) {
      depth = step + 1;
      ends = [];
    }
    if (step + 1 === depth) ends.push(i);
  }
  return { depth, ends, inside: belowOf(source, ends) };
}

function belowOf(source: FlameSource, nodes: number[]): Uint8Array {
  const inside = new Uint8Array(source.nodeFrame.length);
  for (const node of nodes) inside[node] = 1;
  for (let i = 1; i < inside.length; i++) if (inside[source.nodeParent[i]!]) inside[i] = 1;
  return inside;
}

const stepAt = (source: FlameSource, node: number): string => {
  const f = source.nodeFrame[node]!;
  return zoomStep(source.strings[source.frameName[f]!]!, source.strings[source.frameModule[f]!]!, source.frameKind[f]!);
};

// The way to a node as a zoomPath: names alone do not tell apart what several modules call the same.
function wayTo(source: FlameSource, node: number): string {
  const steps: string[] = [];
  for (let at = node; at > 0; at = source.nodeParent[at]!) steps.push(stepAt(source, at));
  return steps.reverse().join('.');
}

// What to ask for when zoomed in to `zoom` (a zoomPath of flame.ts): the names of the box, when boxes below it were
// summed up. Null: everything is there, or nothing is zoomed in to.
export function wantedFocus(source: FlameSource, zoom: string): string[] | null {
  if (!zoom) return null;
  const steps = zoom.split('.');
  const reach = follow(source, steps.length, (step, i) => stepAt(source, i) === steps[step]);
  let at = reach.ends[0]!;
  const stands = (i: number): boolean => kindOf(source, i) === Kind.Synthetic && (nameOf(source, i) === kSmaller || nameOf(source, i) === kOutsideFocus);
  if (stands(at)) at = source.nodeParent[at]!; // a link to what is no box of its own
  if (at === 0) return null;
  const drawn = drawnNodes(source);
  let some = false;
  for (let i = 1; i < reach.inside.length && !some; i++) some = reach.inside[i] === 1 && isSmaller(nameOf(source, i), kindOf(source, i)) && drawn[i] === 1;
  if (!some) return null;
  const focus: string[] = [];
  for (; at > 0; at = source.nodeParent[at]!) focus.push(nameOf(source, at));
  return focus.reverse();
}

function joined<T extends Int32Array | Uint8Array>(make: (n: number) => T, a: T, b: T, shift = 0): T {
  const out = make(a.length + b.length);
  out.set(a);
  for (let i = 0; i < b.length; i++) out[a.length + i] = b[i]! + shift;
  return out;
}
const int32 = (n: number): Int32Array => new Int32Array(n);
const uint8 = (n: number): Uint8Array => new Uint8Array(n);

// `main` with what lies at and below the piece's box taken from the piece. Unchanged when one of them has no such box.
export function graft(main: FlameSource, piece: Piece): FlameSource {
  const { focus, source: fine } = piece;
  if (main.types.length !== fine.types.length) return main;
  const boxes = (source: FlameSource): Map<string, number[]> => {
    const { depth, ends } = follow(source, focus.length, (step, i) => nameOf(source, i) === focus[step]);
    const byWay = new Map<string, number[]>();
    if (depth === focus.length) for (const end of ends) byWay.set(wayTo(source, end), [...(byWay.get(wayTo(source, end)) ?? []), end]);
    return byWay;
  };
  // What both show. Others of the name may be too small for the coarse picture: there they are counted already.
  const there = boxes(main), here = boxes(fine);
  const ways = [...there.keys()].filter((way) => here.has(way));
  if (ways.length === 0) return main;
  const replaced = belowOf(main, ways.flatMap((way) => there.get(way)!)), taken = belowOf(fine, ways.flatMap((way) => here.get(way)!));
  const strings = main.strings.length, frames = main.frameName.length, nodes = main.nodeFrame.length, labels = main.labelSets.length;
  // The piece's nodes come with their whole way: buildGraph puts equal ways together. Its root is ours.
  const nodeParent = joined(int32, main.nodeParent, fine.nodeParent.subarray(1));
  for (let i = 1; i < fine.nodeParent.length; i++) {
    const parent = fine.nodeParent[i]!;
    nodeParent[nodes + i - 1] = parent === 0 ? 0 : nodes + parent - 1;
  }
  const kept: number[] = [], added: number[] = [];
  for (let s = 0; s < main.sampleNode.length; s++) if (!replaced[main.sampleNode[s]!]) kept.push(s);
  for (let s = 0; s < fine.sampleNode.length; s++) if (taken[fine.sampleNode[s]!]) added.push(s);
  const samples = (a: Int32Array, b: (s: number) => number): Int32Array => Int32Array.from([...kept.map((s) => a[s]!), ...added.map(b)]);
  return {
    ...main,
    strings: main.strings.concat(fine.strings),
    frameName: joined(int32, main.frameName, fine.frameName, strings),
    frameKind: joined(uint8, main.frameKind, fine.frameKind),
    frameModule: joined(int32, main.frameModule, fine.frameModule, strings),
    frameFile: joined(int32, main.frameFile, fine.frameFile, strings),
    frameLine: joined(int32, main.frameLine, fine.frameLine),
    frameInlined: joined(uint8, main.frameInlined, fine.frameInlined),
    nodeFrame: joined(int32, main.nodeFrame, fine.nodeFrame.subarray(1), frames),
    nodeParent,
    labelSets: main.labelSets.concat(fine.labelSets),
    sampleLabels: samples(main.sampleLabels, (s) => labels + fine.sampleLabels[s]!),
    sampleNode: samples(main.sampleNode, (s) => (fine.sampleNode[s] === 0 ? 0 : nodes + fine.sampleNode[s]! - 1)),
    sampleValues: main.sampleValues.map((column, c) => Float64Array.from([...kept.map((s) => column[s]!), ...added.map((s) => fine.sampleValues[c]![s]!)])),
  };
}

// The question for a piece of what `path` answered.
export function focusRequest(path: string, range: [number, number], focus: string[]): { path: string; init: RequestInit } {
  const [call, query] = path.split('?');
  const params = new URLSearchParams(query);
  params.set('from', String(range[0]));
  params.set('to', String(range[1]));
  const without = `${call}?${params}`;
  params.set('focus', focus.join('\n'));
  const address = `${call}?${params}`;
  if (address.length <= kMaxAddress && !focus.some((name) => name.includes('\n')) && focus.join('') !== '') return { path: address, init: {} };
  return { path: without, init: { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ focus }) } };
}

export type AskFocus = (path: string, range: [number, number], focus: string[], signal: AbortSignal) => Promise<FlameSource>;

export const askFocus: AskFocus = async (path, range, focus, signal) => {
  const question = focusRequest(path, range, focus);
  return parseFlame(await api<unknown>(question.path, { ...question.init, signal }));
};

interface Picture {
  main: FlameSource;
  path: string; // what main answers; '': nothing that can be asked again
  pieces: Piece[]; // the shorter way first: a longer one may end inside
  whole: FlameSource; // main with all of them
}

const keyOf = (focus: string[]): string => focus.join('\u0000');
const leadsTo = (way: string[], focus: string[]): boolean => way.every((name, i) => name === focus[i]);

export class Finer {
  shown: FlameSource | undefined;
  loading = false;
  error: ApiError | undefined; // why what is zoomed in to stays coarse
  private picture: Picture | undefined;
  private latest: { main: FlameSource; path: string } | undefined;
  private zoom = '';
  private asked: { key: string; abort: AbortController } | undefined;
  private failed: { key: string; error: ApiError } | undefined;
  private hold = false; // the picture before is shown until this one is as fine

  constructor(private readonly ask: AskFocus, private readonly changed: () => void) {}

  set(main: FlameSource, path: string, zoom: string): void {
    this.zoom = zoom;
    if (this.latest?.main !== main) this.latest = { main, path };
    this.go();
  }

  retry(): void {
    this.failed = undefined;
    this.go();
  }

  stop(): void {
    this.drop();
  }

  // Nothing smaller can be had below this box: it was asked for itself.
  isFinest(focus: string[]): boolean {
    return focus.length === 0 || Boolean(this.picture?.pieces.some((p) => keyOf(p.focus) === keyOf(focus)));
  }

  private drop(): void {
    this.asked?.abort.abort();
    this.asked = undefined;
  }

  // What is to be asked about a picture; null: all is there, or cannot be had.
  private missing(picture: Picture): string[] | null {
    const focus = picture.main.range && picture.path ? wantedFocus(picture.whole, this.zoom) : null;
    return focus && !picture.pieces.some((p) => keyOf(p.focus) === keyOf(focus)) ? focus : null;
  }

  private go(): void {
    const latest = this.latest;
    if (!latest) return;
    if (this.asked && this.picture) {
      const focus = this.picture.path === latest.path ? this.missing(this.picture) : null;
      if (!focus || keyOf(focus) !== this.asked.key) this.drop();
    }
    // A refresh waits until the answer at hand is there: else a slow store would never get to show one.
    const unfinished = this.picture !== undefined && this.hold && !this.failed && this.picture.path === latest.path && this.missing(this.picture) !== null;
    if (!this.asked && this.picture?.main !== latest.main && !unfinished) {
      if (this.picture?.path === latest.path) this.shown = this.picture.whole;
      this.failed = undefined;
      this.hold = this.picture?.path === latest.path && this.picture.pieces.length > 0;
      this.picture = { ...latest, pieces: [], whole: latest.main };
    }
    const picture = this.picture!;
    const focus = this.missing(picture);
    if (this.failed && (!focus || this.failed.key !== keyOf(focus))) this.failed = undefined;
    if (focus && !this.asked && !this.failed) this.start(picture.path, picture.main.range!, focus);
    if (!this.asked) this.hold = false;
    const before = [this.shown, this.loading, this.error];
    if (!this.hold) this.shown = picture.whole;
    this.loading = this.asked !== undefined;
    this.error = this.failed?.error;
    if (before[0] !== this.shown || before[1] !== this.loading || before[2] !== this.error) this.changed();
  }

  private start(path: string, range: [number, number], focus: string[]): void {
    const asked = { key: keyOf(focus), abort: new AbortController() };
    this.asked = asked;
    this.ask(path, range, focus, asked.abort.signal).then(
      (source) => {
        if (this.asked !== asked) return; // nobody waits for it any more
        this.asked = undefined;
        this.add({ focus, source });
        this.go();
      },
      (e: unknown) => {
        if (this.asked !== asked) return;
        this.asked = undefined;
        this.failed = { key: asked.key, error: asApiError(e) };
        this.go();
      },
    );
  }

  private add(piece: Piece): void {
    const picture = this.picture!;
    const aside = picture.pieces.filter((p) => !leadsTo(p.focus, piece.focus));
    const gone = aside.length >= kMaxPieces ? aside[0] : undefined;
    const pieces = [...picture.pieces.filter((p) => p !== gone), piece].sort((a, b) => a.focus.length - b.focus.length);
    this.picture = { ...picture, pieces, whole: pieces.reduce(graft, picture.main) };
  }
}
