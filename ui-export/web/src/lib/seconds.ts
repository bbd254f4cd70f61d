// When within each second samples were taken (docs/api.md, heatmap with cells): how fine to ask, and what to say of it.
import type { SubSecond } from './api';
import { count, percent } from './format';
import type { Range } from './time';

// Columns that a wide window shows, with a pixel or more each.
const kMostColumns = 1200;
const kRows = 50; // 20 ms of a second
const kSteps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600]; // s

export function cellsFor(range: Range): { stepMs: number; cellMs: number } {
  const span = (range.toMs - range.fromMs) / 1000;
  const step = kSteps.find((s) => span / s <= kMostColumns) ?? Math.ceil(span / kMostColumns / 3600) * 3600;
  return { stepMs: step * 1000, cellMs: (step * 1000) / kRows };
}

// What the strongest colour stands for: one burst must not make everything else pale.
export function strongest(map: SubSecond): number {
  const all = map.columns.flatMap((c) => c.cells.filter((n) => n > 0)).sort((a, b) => a - b);
  return all.length === 0 ? 1 : Math.max(1, all[Math.floor((all.length - 1) * 0.995)]!);
}

// Why samples are missing from the picture; '' when none are.
export function whatIsMissing(map: SubSecond): string {
  if (map.timed >= map.samples) return '';
  const why = 'Times within the second are kept for a day (--retention-offsets of the store), and agents of older versions send none.';
  return map.timed === 0 ? `None of the ${count(map.samples)} samples has a time. ${why}`
    : `${count(map.samples - map.timed)} of ${count(map.samples)} samples (${percent(map.samples - map.timed, map.samples)}) have no time and are not shown. ${why}`;
}

// The cell at a moment and an offset into its step.
export function cellAt(map: SubSecond, timeMs: number, offsetMs: number): { t: number; low: number; high: number; n: number } | null {
  const stepMs = map.stepNs / 1e6, cellMs = map.cellNs / 1e6;
  const t = Math.floor(timeMs / stepMs) * stepMs;
  const row = Math.floor(offsetMs / cellMs);
  const column = map.columns.find((c) => c.t === t);
  if (!column || row < 0 || row >= column.cells.length) return null;
  return { t, low: row * cellMs, high: (row + 1) * cellMs, n: column.cells[row]! };
}
