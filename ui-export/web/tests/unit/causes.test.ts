import { describe, expect, it } from 'vitest';
import { byCause, causeOnTop, kIdleCauses, kLimits, kWaitCauses, ranked, total } from '../../src/lib/causes';
import { withCondition } from '../../src/lib/selector';

describe('causes', () => {
  it('sums a series by its other labels', () => {
    const sums = byCause({ unit: 'nanoseconds', stepNs: 1, series: [
      { labels: { service: 'a', cause: 'lock' }, points: [[0, 3], [1, 4]] },
      { labels: { service: 'a', cause: 'poll' }, points: [[0, 10]] },
      { labels: { service: 'b' }, points: [[0, 5]] },
    ] }, (l) => l.service!);
    expect(Object.fromEntries(sums)).toEqual({ a: { lock: 7, poll: 10 }, b: { other: 5 } });
    expect(byCause(undefined, () => '').size).toBe(0);
  });
  it('adds and ranks, without what is left out', () => {
    const causes = { lock: 7, poll: 10, timer: 1, network: 0 };
    expect(total(causes)).toBe(18);
    expect(total(causes, kIdleCauses)).toBe(7);
    expect(ranked(causes)).toEqual([['poll', 10], ['lock', 7], ['timer', 1]]);
    expect(ranked(causes, kIdleCauses)).toEqual([['lock', 7]]);
  });
  it('knows each cause of the kernel side, and of the limits', () => {
    expect(Object.keys(kWaitCauses).sort()).toEqual(['block_io', 'lock', 'network', 'other', 'page_fault', 'poll', 'runnable', 'running', 'throttled', 'timer']);
    expect(Object.keys(kLimits).sort()).toEqual(['application', 'network', 'receiver', 'send buffer']);
  });
  it('reads the cause on top of a stack, and nothing else', () => {
    expect(causeOnTop(['[lock]', 'futex_wait'])).toBe(kWaitCauses.lock);
    for (const frames of [[], ['read', '[lock]'], ['[truncated]'], ['[constructor]'], ['lock']]) expect(causeOnTop(frames)).toBeUndefined();
  });
  it('adds a condition to what is asked already', () => {
    expect(withCondition('off_cpu{node="a"}', { name: 'cause', op: '!~', value: 'timer|poll' })).toBe('off_cpu{node="a",cause!~"timer|poll"}');
    expect(withCondition('off_cpu{', { name: 'cause', op: '=', value: 'x' })).toBe('off_cpu{');
  });
});
