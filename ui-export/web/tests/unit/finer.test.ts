import { describe, expect, it } from 'vitest';
import { ApiError } from '../../src/lib/api';
import { Finer, focusRequest, graft, isSmaller, wantedFocus, type AskFocus } from '../../src/lib/finer';
import { buildGraph, childrenOf, parseFlame, pathTo, resolveZoom, zoomPath, type FlameGraph, type FlameSource } from '../../src/lib/flame';
import { cut } from '../browser/cut.mjs';
import { randomFlame } from './make';

const name = (g: FlameGraph, i: number): string => g.fns.name[g.fn[i]!]!;
const smaller = (g: FlameGraph, i: number): boolean => isSmaller(name(g, i), g.fns.kind[g.fn[i]!]!);
const namesTo = (g: FlameGraph, i: number): string[] => pathTo(g, i).slice(1).map((at) => name(g, at));
// Everything that is drawn, wherever it stands in the columns.
const boxes = (g: FlameGraph, root = 0): string[] => Array.from(g.fn, (_, i) => i)
  .filter((i) => pathTo(g, i).includes(root))
  .map((i) => `${pathTo(g, i).map((at) => `${name(g, at)}@${g.fns.module[g.fn[at]!]}`).join('/')} ${g.self[i]} ${g.total[i]}`).sort();

// A tree that is large enough to be cut, with one node per function below each parent as the store has it.
function doc(seed: number): ReturnType<typeof randomFlame> {
  const json = randomFlame(seed);
  const known = new Map<string, number>(), to = [0];
  for (let i = 1; i < json.nodes.frame.length; i++) {
    const f = json.nodes.frame[i]!;
    json.nodes.parent[i] = to[json.nodes.parent[i]!]!;
    const key = `${json.nodes.parent[i]} ${json.strings[json.frames.name[f]!]} ${json.frames.module[f]} ${json.frames.kind[f]}`;
    if (!known.has(key)) known.set(key, i);
    to.push(known.get(key)!);
  }
  json.samples.node = json.samples.node.map((node) => to[node]!);
  json.labelSets = [{}];
  json.samples.labels = json.samples.labels.map(() => 0);
  return json;
}
const read = (json: unknown): FlameSource => ({ ...parseFlame(json), range: [1000, 2000] });

describe('pieces of a flame graph that was cut', () => {
  it.each(Array.from({ length: 30 }, (_, i) => i + 1))('seed %i: put in place they give the numbers of the whole', (seed) => {
    const json = doc(seed);
    const whole = buildGraph(read(json));
    const coarse = read(cut(json, 12));
    const graph = buildGraph(coarse);
    for (let i = 1; i < graph.fn.length; i++) {
      const focus = wantedFocus(coarse, zoomPath(graph, i));
      const below = boxes(graph, i).some((box) => /\(smaller\)@ \d+ \d+$/.test(box));
      if (!below || (smaller(graph, i) && graph.parent[i] === 0)) {
        expect(focus).toBeNull();
        continue;
      }
      expect(focus).toEqual(namesTo(graph, smaller(graph, i) ? graph.parent[i]! : i));
      // Everything below that box, nothing else changed.
      const fine = graft(coarse, { focus: focus!, source: read(cut(json, 100_000, focus!)) });
      const finer = buildGraph(fine);
      expect(finer.total[0]).toBe(whole.total[0]);
      const way = (g: FlameGraph, node: number): string => pathTo(g, node).slice(1, focus!.length + 1).map((at) => `${name(g, at)}@${g.fns.module[g.fn[at]!]}@${g.fns.kind[g.fn[at]!]}`).join('/');
      const shown = new Set(Array.from(graph.fn, (_, n) => n).filter((n) => graph.depth[n] === focus!.length && focus!.every((f, d) => f === namesTo(graph, n)[d])).map((n) => way(graph, n)));
      const list = (g: FlameGraph, want: boolean): string[] => Array.from(g.fn, (_, n) => n).filter((n) => shown.has(way(g, n)) === want).map((n) => `${namesTo(g, n).join('/')} ${g.self[n]} ${g.total[n]}`).sort();
      expect(list(finer, true)).toEqual(list(whole, true));
      expect(list(finer, false)).toEqual(list(graph, false));
      expect(wantedFocus(fine, zoomPath(graph, i))).toBeNull();
    }
    expect(wantedFocus(coarse, '')).toBeNull();
  });

  it('without such a box in one of them nothing changes', () => {
    const json = doc(3);
    const coarse = read(cut(json, 12));
    expect(graft(coarse, { focus: ['nobody'], source: read(json) })).toBe(coarse);
    const focus = [name(buildGraph(coarse), childrenOf(buildGraph(coarse), 0)[0]!)];
    const none = cut(json, 0);
    expect(graft(coarse, { focus, source: read(none) })).toBe(coarse);
  });

  it('a link that leads deeper than the coarse picture asks for the deepest box there is', () => {
    const json = doc(5);
    const whole = buildGraph(read(json));
    const coarse = read(cut(json, 6));
    const graph = buildGraph(coarse);
    let tried = 0;
    for (let i = 1; i < whole.fn.length; i++) {
      const at = resolveZoom(graph, zoomPath(whole, i));
      const focus = wantedFocus(coarse, zoomPath(whole, i));
      if (at === 0 || boxes(graph, at).every((box) => !box.includes('(smaller)'))) expect(focus).toBeNull();
      else {
        expect(focus).toEqual(namesTo(graph, at));
        tried++;
      }
    }
    expect(tried).toBeGreaterThan(5);
  });
});

describe('the question', () => {
  const path = 'api/v1/flame?query=cpu%7Bx%3D%22y%22%7D&from=-15m&to=now&by=comm';
  it('is the picture\u2019s own, for its very range', () => {
    const { path: address, init } = focusRequest(path, [1000, 2000], ['main', 'a<b> & c']);
    expect(init).toEqual({});
    const p = new URL(address, 'http://x/').searchParams;
    expect(Object.fromEntries(p)).toEqual({ query: 'cpu{x="y"}', from: '1000', to: '2000', by: 'comm', focus: 'main\na<b> & c' });
  });
  it('takes a body where an address would be too long, or lines do not tell names apart', () => {
    for (const focus of [['x'.repeat(7000)], ['a\nb'], ['']]) {
      const { path: address, init } = focusRequest(path, [1000, 2000], focus);
      expect(address).not.toContain('focus');
      expect(address).toContain('from=1000');
      expect(init.method).toBe('POST');
      expect(JSON.parse(String(init.body))).toEqual({ focus });
    }
  });
});

// A store that answers when told to.
function setUp(json = doc(9), max = 8) {
  const asked: { focus: string[]; range: [number, number]; signal: AbortSignal; answer: (most?: number) => Promise<void>; fail: (message: string) => Promise<void> }[] = [];
  const settle = async (act: () => void): Promise<void> => {
    act();
    for (let i = 0; i < 4; i++) await Promise.resolve();
  };
  const ask: AskFocus = (_path, range, focus, signal) => new Promise((resolve, reject) => {
    asked.push({
      focus, range, signal, answer: (most = 100_000) => settle(() => resolve(read(cut(json, most, focus)))),
      fail: (message) => settle(() => reject(new ApiError(message, 504, 'deadline_exceeded', null))),
    });
  });
  let changes = 0;
  const finer = new Finer(ask, () => changes++);
  const main = read(cut(json, max));
  const graph = buildGraph(main);
  // Boxes of the first two levels with something hidden below.
  const zooms = Array.from(graph.fn, (_, i) => i).filter((i) => i > 0 && wantedFocus(main, zoomPath(graph, i)) && !smaller(graph, i));
  const outer = zooms.find((i) => graph.parent[i] === 0)!;
  const inner = zooms.find((i) => graph.parent[i] === outer)!;
  return { json, asked, finer, main, outer: zoomPath(graph, outer), inner: zoomPath(graph, inner), again: () => read(cut(json, max)), changes: () => changes };
}

describe('Finer', () => {
  it('shows what is there until the finer picture has come, and keeps that', async () => {
    const { asked, finer, main, outer, changes } = setUp();
    finer.set(main, 'p', '');
    expect([finer.shown, finer.loading, asked.length]).toEqual([main, false, 0]);
    finer.set(main, 'p', outer);
    expect([finer.shown, finer.loading, asked.length]).toEqual([main, true, 1]);
    expect(asked[0]!.range).toEqual([1000, 2000]);
    const before = changes();
    await asked[0]!.answer();
    expect(changes()).toBe(before + 1);
    expect(finer.loading).toBe(false);
    const fine = finer.shown!;
    expect(fine).not.toBe(main);
    expect(wantedFocus(fine, outer)).toBeNull();
    expect(finer.isFinest(asked[0]!.focus)).toBe(true);
    // Out, and in again: at once, without a question.
    finer.set(main, 'p', '');
    finer.set(main, 'p', outer);
    expect([finer.shown, finer.loading, asked.length]).toEqual([fine, false, 1]);
  });

  it('asks further when zoomed on, and lets go of an answer that nobody waits for', async () => {
    const { asked, finer, main, outer, inner } = setUp();
    finer.set(main, 'p', outer);
    finer.set(main, 'p', inner);
    expect(asked.length).toBe(2);
    expect(asked[0]!.signal.aborted).toBe(true);
    await asked[0]!.answer();
    expect(finer.shown).toBe(main);
    finer.set(main, 'p', '');
    expect(asked[1]!.signal.aborted).toBe(true);
    expect(finer.loading).toBe(false);
    await asked[1]!.fail('too late');
    expect(finer.error).toBeUndefined();
    expect(finer.shown).toBe(main);
  });

  it('a piece that was cut too is asked for once, and pieces lie in each other', async () => {
    const { json, asked, finer, main, outer, inner } = setUp();
    finer.set(main, 'p', outer);
    await asked[0]!.answer(9);
    finer.set(main, 'p', inner);
    if (finer.loading) await asked[1]!.answer();
    const n = asked.length;
    finer.set(main, 'p', outer);
    expect(asked.length).toBe(n);
    const whole = buildGraph(read(json)), graph = buildGraph(finer.shown!);
    expect(graph.total[0]).toBe(whole.total[0]);
    expect(boxes(graph, resolveZoom(graph, inner))).toEqual(boxes(whole, resolveZoom(whole, inner)));
  });

  it('says why it failed, asks no more, and again when told to', async () => {
    const { asked, finer, main, outer } = setUp();
    finer.set(main, 'p', outer);
    await asked[0]!.fail('took too long');
    expect([finer.error?.message, finer.loading, finer.shown]).toEqual(['took too long', false, main]);
    finer.set(main, 'p', outer);
    expect(asked.length).toBe(1);
    finer.retry();
    expect([finer.error, finer.loading, asked.length]).toEqual([undefined, true, 2]);
    await asked[1]!.answer();
    expect([finer.error, finer.loading]).toEqual([undefined, false]);
    expect(finer.shown).not.toBe(main);
  });

  it('a refresh shows the picture before until it is as fine', async () => {
    const { asked, finer, main, outer, again } = setUp();
    finer.set(main, 'p', outer);
    await asked[0]!.answer();
    const fine = finer.shown!;
    const next = again();
    finer.set(next, 'p', outer);
    expect([finer.shown, finer.loading, asked.length]).toEqual([fine, true, 2]);
    // One more comes before the answer: the answer is not lost.
    const last = again();
    finer.set(last, 'p', outer);
    expect(asked[1]!.signal.aborted).toBe(false);
    await asked[1]!.answer();
    expect(finer.shown).not.toBe(fine);
    expect(asked.length).toBe(3);
    await asked[2]!.answer();
    expect(finer.loading).toBe(false);
    // Zoomed out while one is awaited: the newest picture at once.
    const newest = again();
    finer.set(newest, 'p', outer);
    finer.set(newest, 'p', '');
    expect([finer.shown, finer.loading]).toEqual([newest, false]);
  });

  it('another question drops what belongs to the one before', async () => {
    const { asked, finer, main, outer, again } = setUp();
    finer.set(main, 'p', outer);
    const other = again();
    finer.set(other, 'q', outer);
    expect(asked[0]!.signal.aborted).toBe(true);
    expect([finer.shown, finer.loading, asked.length]).toEqual([other, true, 2]);
    await asked[0]!.answer();
    expect(finer.shown).toBe(other);
    finer.stop();
    expect(asked[1]!.signal.aborted).toBe(true);
  });

  it('asks nothing of a file, nor of a picture that does not say its range', () => {
    const { asked, finer, main, outer } = setUp();
    finer.set(main, '', outer);
    finer.set({ ...main, range: null }, 'p', outer);
    expect(asked.length).toBe(0);
  });
});
