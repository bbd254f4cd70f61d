// A logarithmic axis for durations.
export interface LogScale {
  x: (value: number) => number;
  value: (x: number) => number;
}

export function logScale(low: number, high: number, left: number, width: number): LogScale {
  const a = Math.log(low), b = Math.log(high);
  const span = b - a || 1;
  return {
    x: (v) => left + ((Math.log(Math.max(v, 1e-9)) - a) / span) * width,
    value: (x) => Math.exp(a + (Math.min(Math.max(x - left, 0), width) / width) * span),
  };
}

// 1, 10, 100, … within a range; with fewer than three of them also 2 and 5.
export function decadeTicks(low: number, high: number): number[] {
  const out: number[] = [];
  const wide = Math.log10(high / low);
  const steps = wide < 1.2 ? [1, 1.5, 2, 3, 5, 7] : wide < 3 ? [1, 2, 5] : [1];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
    for (const s of steps) {
      const v = s * 10 ** p;
      if (v >= low && v <= high) out.push(v);
    }
  }
  return out;
}

// Where an axis of durations begins: the lowest bucket, but a few values of nothing (a wait that was over before it began) must
// not take half of the picture. They then stand at its edge.
export function lowestShown(buckets: readonly (readonly [number, number, number])[]): number {
  const kNothingNs = 16;
  let all = 0, nothing = 0, low = Infinity, lowOfRest = Infinity;
  for (const [from, , n] of buckets) {
    if (n <= 0) continue;
    all += n;
    low = Math.min(low, from);
    if (from < kNothingNs) nothing += n;
    else lowOfRest = Math.min(lowOfRest, from);
  }
  if (all === 0) return 1;
  return Math.max(1, nothing < all / 100 && lowOfRest < Infinity ? lowOfRest : low);
}
