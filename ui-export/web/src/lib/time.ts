// Ranges: the same words as the API takes (now, -15m, Unix s or ms, RFC 3339), resolved against a clock.

export const kPresets = [
  { from: '-5m', label: '5m', title: 'the last 5 minutes' },
  { from: '-15m', label: '15m', title: 'the last 15 minutes' },
  { from: '-1h', label: '1h', title: 'the last hour' },
  { from: '-6h', label: '6h', title: 'the last 6 hours' },
  { from: '-24h', label: '24h', title: 'the last 24 hours' },
] as const;

const kUnits: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

export function resolveTime(text: string, nowMs: number): number | null {
  if (text === 'now') return nowMs;
  const relative = /^-(\d+(?:\.\d+)?)(ms|s|m|h|d|w)$/.exec(text);
  if (relative) return nowMs - Number(relative[1]) * kUnits[relative[2]!]!;
  if (/^\d+(\.\d+)?$/.test(text)) {
    const n = Number(text);
    return n < 1e11 ? n * 1000 : n;
  }
  const parsed = Date.parse(text);
  return Number.isNaN(parsed) ? null : parsed;
}

export interface Range {
  fromMs: number;
  toMs: number;
}

export function resolveRange(from: string, to: string, nowMs: number): Range {
  const toMs = resolveTime(to, nowMs) ?? nowMs;
  const fromMs = resolveTime(from, nowMs) ?? toMs - 900_000;
  return fromMs < toMs ? { fromMs, toMs } : { fromMs: toMs - 900_000, toMs };
}

// The store answers in windows of 10 s: a part of a range is what they lie in.
export function wholeWindows(fromMs: number, toMs: number): Range {
  const from = Math.floor(fromMs / 10_000) * 10_000;
  return { fromMs: from, toMs: Math.max(Math.ceil(toMs / 10_000) * 10_000, from + 10_000) };
}

// A step that gives about `points` points and is a round number of 10 s windows.
export function stepFor(range: Range, points = 120): number {
  const wanted = (range.toMs - range.fromMs) / points / 1000;
  for (const s of [10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400]) if (s >= wanted) return s;
  return 86400;
}

// Round tick times (local) within a range.
export function ticks(range: Range, count: number): number[] {
  const span = range.toMs - range.fromMs;
  const steps = [1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 108e5, 216e5, 432e5, 864e5, 6048e5];
  const step = steps.find((s) => span / s <= count) ?? 6048e5;
  const offset = new Date(range.fromMs).getTimezoneOffset() * 60_000;
  const out: number[] = [];
  for (let t = Math.ceil((range.fromMs - offset) / step) * step + offset; t <= range.toMs; t += step) out.push(t);
  return out;
}
