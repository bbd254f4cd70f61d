import { describe, expect, it } from 'vitest';
import {
  buildGraph, calleesOf, callersOf, childrenOf, FlameFormatError, nodeAt, parseFlame, pathTo, resolveZoom, topFunctions, zoomPath, type FlameGraph,
} from '../../src/lib/flame';
import { makeSearch, matchedShare, matchFunctions } from '../../src/lib/search';
import { randomFlame, random, tiny } from './make';

function selfSum(graph: FlameGraph): number {
  return graph.self.reduce((a, b) => a + b, 0);
}

describe('parseFlame', () => {
  it('reads the document of docs/api.md', () => {
    const s = parseFlame(tiny());
    expect(s.types.map((t) => t.type)).toEqual(['samples', 'cpu']);
    expect(s.defaultType).toBe(1);
    expect(s.timeMs).toBe(1764000000000);
    expect(s.durationNs).toBe(10e9);
  });

  const broken: [string, (j: ReturnType<typeof tiny>) => unknown][] = [
    ['another version', (j) => (j.version = 2)],
    ['a string index outside', (j) => (j.frames.name[1] = 99)],
    ['a negative string index', (j) => (j.frames.file[0] = -1)],
    ['columns of different length', (j) => j.frames.kind.pop()],
    ['a parent after its child', (j) => (j.nodes.parent[1] = 3)],
    ['a node that is its own parent', (j) => (j.nodes.parent[2] = 2)],
    ['a second root', (j) => (j.nodes.parent[2] = -1)],
    ['a frame outside', (j) => (j.nodes.frame[1] = 50)],
    ['a sample of no node', (j) => (j.samples.node[0] = 77)],
    ['a value that is no number', (j) => ((j.samples.values[0] as unknown[])[0] = '3')],
    ['a missing value column', (j) => j.samples.values.pop()],
    ['no types', (j) => (j.profile.types = [])],
    ['no nodes', (j) => (j.nodes = { frame: [], parent: [] })],
    ['a list where a record should be', (j) => ((j as Record<string, unknown>).frames = [])],
    ['fractional indices', (j) => (j.samples.node[0] = 0.5)],
  ];
  it.each(broken)('refuses %s', (_name, damage) => {
    const json = tiny();
    damage(json);
    expect(() => parseFlame(json)).toThrow(FlameFormatError);
  });

  it('refuses what is no document at all', () => {
    for (const v of [null, 1, 'x', [], {}]) expect(() => parseFlame(v)).toThrow(FlameFormatError);
  });

  it('counts values below zero as none, and says so', () => {
    const json = tiny();
    json.samples.values[0]![0] = -5;
    const s = parseFlame(json);
    expect(buildGraph(s, { type: 0 }).total[0]).toBe(9);
    expect(s.notices.join()).toMatch(/^1 values are below zero/);
  });

  it('takes strange lines for none', () => {
    const json = tiny();
    json.frames.line = [-1, 2 ** 40, 0.5, 7];
    expect(Array.from(parseFlame(json).frameLine)).toEqual([0, 0, 0, 7]);
  });

  it('cuts stacks too deep to draw, loses nothing, and says so', () => {
    const n = 5000;
    const json = tiny();
    json.nodes = { frame: Array.from({ length: n }, () => 1), parent: Array.from({ length: n }, (_, i) => i - 1) };
    json.samples = { labels: [0], node: [n - 1], values: [[1], [1]] };
    const s = parseFlame(json);
    const g = buildGraph(s, { type: 0 });
    expect(g.total[0]).toBe(1);
    expect(g.levels).toBe(4097);
    expect(s.notices.join()).toMatch(/deeper/);
  });
});

describe('buildGraph', () => {
  it('adds up totals', () => {
    const g = buildGraph(parseFlame(tiny()), { type: 0 });
    const name = (i: number): string => g.fns.name[g.fn[i]!]!;
    const total = Object.fromEntries(Array.from(g.fn, (_, i) => [name(i), g.total[i]]));
    expect(total).toEqual({ all: 10, main: 10, hot_a: 6, hot_b: 3 });
    expect(g.levels).toBe(3);
  });

  it('splits by a label, and names those who lack it', () => {
    const g = buildGraph(parseFlame(tiny()), { type: 0, by: ['container.name'] });
    const roots = childrenOf(g, 0).map((n) => [g.fns.name[g.fn[n]!], g.total[n]]);
    expect(roots).toEqual([['shop', 7], ['(no container.name)', 3]]);
  });

  it('merges frames that differ only in their line', () => {
    const json = tiny();
    json.frames.name.push(2);
    json.frames.kind.push(1);
    json.frames.module.push(json.frames.module[1]!);
    json.frames.file.push(0);
    json.frames.line.push(99);
    json.frames.inlined.push(0);
    json.nodes.frame.push(json.frames.name.length - 1);
    json.nodes.parent.push(0);
    json.samples.node.push(json.nodes.frame.length - 1);
    json.samples.labels.push(0);
    json.samples.values[0]!.push(5);
    json.samples.values[1]!.push(5);
    const g = buildGraph(parseFlame(json), { type: 0 });
    expect(childrenOf(g, 0)).toHaveLength(1);
    expect(g.total[0]).toBe(15);
  });

  it('leaves out what has no value of the chosen type', () => {
    const json = tiny();
    json.samples.values[0] = json.samples.values[0]!.map(() => 0);
    const g = buildGraph(parseFlame(json), { type: 0 });
    expect(g.fn).toHaveLength(1);
    expect(g.total[0]).toBe(0);
  });
});

describe('properties of random graphs', () => {
  const seeds = Array.from({ length: 40 }, (_, i) => i + 1);

  it.each(seeds)('seed %i: nothing is lost, nothing overlaps', (seed) => {
    const json = randomFlame(seed);
    const source = parseFlame(json);
    const rnd = random(seed);
    for (const by of [[], ['service'], ['service', 'comm']]) {
      for (const order of ['value', 'name'] as const) {
        const type = rnd() < 0.5 ? 0 : 1;
        const g = buildGraph(source, { type, by, order });
        const expected = source.sampleValues[type]!.reduce((a, b) => a + b, 0);
        // Sum of selfs = total, at the root and at each node.
        expect(selfSum(g)).toBe(expected);
        expect(g.total[0]).toBe(expected);
        for (let i = 0; i < g.fn.length; i++) {
          const kids = childrenOf(g, i);
          const sum = kids.reduce((s, k) => s + g.total[k]!, 0);
          expect(g.self[i]! + sum).toBe(g.total[i]);
          // Children lie side by side within their parent, in order.
          let x = g.start[i]!;
          for (const k of kids) {
            expect(g.start[k]).toBe(x);
            x += g.total[k]!;
          }
          expect(x).toBeLessThanOrEqual(g.start[i]! + g.total[i]!);
          if (order === 'value') for (let c = 1; c < kids.length; c++) expect(g.total[kids[c]!]!).toBeLessThanOrEqual(g.total[kids[c - 1]!]!);
          if (i > 0) expect(g.parent[i]).toBeLessThan(i);
        }
        // Levels are sorted and complete.
        expect(new Set(g.level).size).toBe(g.fn.length);
        for (let d = 0; d < g.levels; d++) {
          for (let i = g.levelStart[d]! + 1; i < g.levelStart[d + 1]!; i++) {
            expect(g.start[g.level[i]!]!).toBeGreaterThanOrEqual(g.start[g.level[i - 1]!]!);
          }
        }
        // The table: selfs add up, no total beyond the whole.
        const rows = topFunctions(g);
        expect(rows.reduce((s, r) => s + r.self, 0)).toBe(expected);
        for (const r of rows) {
          expect(r.total).toBeLessThanOrEqual(expected);
          expect(r.total).toBeGreaterThanOrEqual(r.self);
          // Search for exactly this function's name matches at least its total.
        }
        // Hit test agrees with the layout.
        for (let n = 0; n < 20; n++) {
          const node = Math.floor(rnd() * g.fn.length);
          if (g.total[node]! > 0) expect(nodeAt(g, g.depth[node]!, g.start[node]! + g.total[node]! / 2)).toBe(node);
        }
        // Zoom paths find their way back.
        const node = Math.floor(rnd() * g.fn.length);
        const back = resolveZoom(g, zoomPath(g, node));
        expect(pathTo(g, back).map((i) => g.fns.name[g.fn[i]!])).toEqual(pathTo(g, node).map((i) => g.fns.name[g.fn[i]!]));
        // Callers and callees of a function both weigh what its row says.
        const row = rows[Math.floor(rnd() * rows.length)]!;
        expect(callersOf(g, row.fn).total[0]).toBe(row.total);
        expect(calleesOf(g, row.fn).total[0]).toBe(row.total);
        // A search for one function matches its total.
        const flags = new Uint8Array(g.fns.name.length);
        flags[row.fn] = 1;
        expect(matchedShare(g, flags).value).toBe(row.total);
      }
    }
  });

  it('equal profiles give equal graphs whatever the order of samples', () => {
    const json = randomFlame(77);
    const shuffled = structuredClone(json);
    const n = shuffled.samples.node.length;
    const order = Array.from({ length: n }, (_, i) => (i * 7919) % n);
    if (new Set(order).size === n) {
      for (const column of [shuffled.samples.node, shuffled.samples.labels, ...shuffled.samples.values]) {
        const copy = column.slice();
        order.forEach((from, to) => (column[to] = copy[from]!));
      }
    }
    const shape = (g: FlameGraph): unknown => Array.from(g.level, (i) => [g.depth[i], g.fns.name[g.fn[i]!], g.start[i], g.total[i]]);
    expect(shape(buildGraph(parseFlame(shuffled)))).toEqual(shape(buildGraph(parseFlame(json))));
  });
});

describe('search', () => {
  const fns = buildGraph(parseFlame(tiny())).fns;
  it('plain text, any case, until a capital asks for case', () => {
    expect(makeSearch('HOT')!.test('hot_a')).toBe(false);
    expect(makeSearch('hot')!.test('HOT_A')).toBe(true);
    expect(makeSearch('')).toBeNull();
  });
  it('takes special characters of names literally', () => {
    expect(makeSearch('vector<int>')!.test('std::vector<int>::push_back')).toBe(true);
    expect(makeSearch('operator()')!.test('foo::operator()')).toBe(true);
  });
  it('regular expressions between slashes', () => {
    const found = matchFunctions(fns, makeSearch('/^hot_[ab]$/'))!;
    expect(fns.name.filter((_, i) => found[i])).toEqual(['hot_a', 'hot_b']);
  });
  it('says what is wrong with one', () => {
    const s = makeSearch('/(/')!;
    expect(s.error).toMatch(/regular expression/);
    expect(matchFunctions(fns, s)).toBeNull();
  });
  it('counts nested matches once', () => {
    const g = buildGraph(parseFlame(tiny()), { type: 0 });
    const m = matchFunctions(g.fns, makeSearch('/main|hot_a/'))!;
    expect(matchedShare(g, m)).toEqual({ value: 10, frames: 2 });
  });
});
