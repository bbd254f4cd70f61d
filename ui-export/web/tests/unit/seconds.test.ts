import { describe, expect, it } from 'vitest';
import type { SubSecond } from '../../src/lib/api';
import { cellAt, cellsFor, strongest, whatIsMissing } from '../../src/lib/seconds';
import { wholeWindows } from '../../src/lib/time';

const map = (columns: SubSecond['columns'], samples: number, timed: number): SubSecond => ({ stepNs: 1e9, cellNs: 20e6, samples, timed, columns });

describe('within seconds', () => {
  it.each([[5 * 60, 1000, 20], [15 * 60, 1000, 20], [3600, 5000, 100], [6 * 3600, 20_000, 400], [86_400, 120_000, 2400], [30 * 86_400, 3_600_000, 72_000]])(
    'of %i s: steps of %i ms, cells of %i ms', (seconds, stepMs, cellMs) => {
      const range = { fromMs: 1_764_000_000_000, toMs: 1_764_000_000_000 + seconds * 1000 };
      expect(cellsFor(range)).toEqual({ stepMs, cellMs });
      // What the store takes: cells of whole milliseconds, steps multiples of them, a million cells.
      expect(Number.isInteger(cellMs) && stepMs % cellMs === 0).toBe(true);
      expect((seconds * 1000) / cellMs).toBeLessThan(1_000_000);
    });
  it('one burst does not make the rest pale', () => {
    const cells = Array.from({ length: 50 }, (_, i) => 1 + (i % 4));
    const columns = Array.from({ length: 20 }, (_, i) => ({ t: i * 1000, cells }));
    columns[3] = { t: 3000, cells: cells.map((n, i) => (i === 7 ? 400 : n)) };
    expect(strongest(map(columns, 1, 1))).toBe(4);
    expect(strongest(map([], 0, 0))).toBe(1);
  });
  it('says what is missing, and why', () => {
    expect(whatIsMissing(map([], 100, 100))).toBe('');
    expect(whatIsMissing(map([], 1000, 600))).toMatch(/^400 of 1\u202f000 samples \(40\.0 %\) have no time and are not shown\. .*--retention-offsets/);
    expect(whatIsMissing(map([], 5, 0))).toMatch(/^None of the 5 samples has a time\. .*--retention-offsets/);
  });
  it('finds the cell below the pointer', () => {
    const one = map([{ t: 7000, cells: Array.from({ length: 50 }, (_, i) => i) }], 1, 1);
    expect(cellAt(one, 7999, 245)).toEqual({ t: 7000, low: 240, high: 260, n: 12 });
    expect(cellAt(one, 7000, 999.9)).toEqual({ t: 7000, low: 980, high: 1000, n: 49 });
    for (const [t, offset] of [[8000, 10], [7500, -1], [7500, 1000]] as const) expect(cellAt(one, t, offset)).toBeNull();
  });
  it('a choice is of whole windows', () => {
    expect(wholeWindows(20_001, 29_999)).toEqual({ fromMs: 20_000, toMs: 30_000 });
    expect(wholeWindows(20_000, 20_000)).toEqual({ fromMs: 20_000, toMs: 30_000 });
    expect(wholeWindows(19_999, 30_001)).toEqual({ fromMs: 10_000, toMs: 40_000 });
  });
});
