import { describe, expect, it } from 'vitest';
import { formatUrl, kDefaults, parsePair, parseUrl, splitBy, type UrlState } from '../../src/lib/url';
import { completionAt, formatSelector, parseSelector, SelectorError, withLabels, withType, type Matcher } from '../../src/lib/selector';
import { resolveRange, resolveTime, stepFor, ticks } from '../../src/lib/time';
import { apiPath } from '../../src/lib/api';
import { random } from './make';

describe('the address', () => {
  it('says nothing for the defaults', () => {
    expect(formatUrl(kDefaults)).toBe('');
    expect(parseUrl('')).toEqual(kDefaults);
  });
  it('brings every state back', () => {
    const rnd = random(11);
    const texts = ['', 'a', 'cpu{service="sh&op",x=~"a|b+"}', '#hash ?', 'ünïcode 🔥', '"quoted"', 'a%20b', '\\', "line\nbreak"];
    const pick = <T>(list: readonly T[]): T => list[Math.floor(rnd() * list.length)]!;
    for (let i = 0; i < 500; i++) {
      const s: UrlState = {
        view: pick(['overview', 'flame', 'syscalls', 'waits', 'network', 'sessions', 'status']), q: pick(texts), from: pick(['-15m', '1764000000000', '-1h']), to: pick(['now', '1764000060000']),
        sel: pick(['', '1764000000000-1764000060000']), live: rnd() < 0.5, by: pick(['', 'service', 'a,b']), zoom: pick(['', '1abc.2def.0']), search: pick(texts), display: pick(['both', 'graph', 'table', 'sandwich']),
        fn: pick(texts), type: pick(['', 'samples']), up: rnd() < 0.5, order: pick(['value', 'name']), row: pick(['', '{"syscall":"read"}']), slow: pick(['', '100-2000']), typical: rnd() < 0.5, idle: rnd() < 0.5, wakers: rnd() < 0.5, seconds: rnd() < 0.5, theme: pick(['', 'light', 'dark']),
      };
      expect(parseUrl(formatUrl(s))).toEqual(s);
    }
  });
  it('takes nothing strange from strangers', () => {
    const s = parseUrl('?view=evil&display=__proto__&order=x&theme=pink&sel=5-1&slow=-1-2&live=maybe&up=yes');
    expect(s).toEqual(kDefaults);
  });
  it.each([['1-2', [1, 2]], ['2-1', null], ['1-1', null], ['a-b', null], ['', null], ['1-2-3', null], [null, null]])('pair %s', (text, pair) => expect(parsePair(text as string)).toEqual(pair));
  it('splits by program unless somebody chose otherwise', () => {
    expect(splitBy('', ['node', 'comm'])).toBe('comm');
    expect(splitBy('', ['node'])).toBe('');
    expect(splitBy('-', ['comm'])).toBe('');
    expect(splitBy('node', ['comm', 'node'])).toBe('node');
  });
  it('asks the API with encoded parameters', () => {
    expect(apiPath('flame', { query: 'cpu{a="b&c"}', from: '', to: undefined, n: 3 })).toBe('api/v1/flame?query=cpu%7Ba%3D%22b%26c%22%7D&n=3');
  });
});

describe('selectors', () => {
  it.each<[string, string, Matcher[]]>([
    ['cpu', 'cpu', []], ['{}', '', []], ['cpu{}', 'cpu', []], ['{container.name="shop"}', '', [{ name: 'container.name', op: '=', value: 'shop' }]],
    [' cpu { a = "b" , c!~`x\\y`, } ', 'cpu', [{ name: 'a', op: '=', value: 'b' }, { name: 'c', op: '!~', value: 'x\\y' }]],
    ['cpu{"odd label"!="a\\"b\\\\"}', 'cpu', [{ name: 'odd label', op: '!=', value: 'a"b\\' }]], ["{a='\\x41\\u00e9'}", '', [{ name: 'a', op: '=', value: 'Aé' }]],
  ])('reads %s', (text, type, matchers) => expect(parseSelector(text)).toEqual({ type, matchers }));

  it.each([['cpu{service"x"}', 11], ['cpu{', 3], ['cpu{a="b}', 6], ['cpu{a=b}', 6], ['{a="b" c="d"}', 7], ['cpu} ', 3], ['cpu{a="\\q"}', 7], ['cpu{="x"}', 4], ['', 0]])(
    'points at the error in %s', (text, position) => {
      try {
        parseSelector(text);
        expect.unreachable(text);
      } catch (e) {
        expect(e).toBeInstanceOf(SelectorError);
        expect((e as SelectorError).position).toBe(position);
      }
    });

  it('writes what it reads', () => {
    const rnd = random(23);
    const letters = 'ab"\\{},=~ \n\té`\'🔥';
    for (let i = 0; i < 800; i++) {
      const word = (): string => Array.from({ length: Math.floor(rnd() * 6) }, () => [...letters][Math.floor(rnd() * [...letters].length)]).join('');
      const s = { type: rnd() < 0.5 ? 'cpu' : '', matchers: Array.from({ length: Math.floor(rnd() * 3) }, () => ({ name: rnd() < 0.5 ? 'a.b/c-d' : `n${word()}`, op: (['=', '!=', '=~', '!~'] as const)[Math.floor(rnd() * 4)]!, value: word() })) };
      expect(parseSelector(formatSelector(s))).toEqual(s);
    }
  });
  it('never throws anything but its own error', () => {
    const rnd = random(29), letters = 'cpu{}"=~!,\\ \'`ax';
    for (let i = 0; i < 5000; i++) {
      const text = Array.from({ length: Math.floor(rnd() * 14) }, () => letters[Math.floor(rnd() * letters.length)]).join('');
      try {
        parseSelector(text);
      } catch (e) {
        expect(e).toBeInstanceOf(SelectorError);
        expect((e as SelectorError).position).toBeLessThanOrEqual(text.length);
      }
      completionAt(text, Math.floor(rnd() * (text.length + 1)));
    }
  });
  it('asks the same of another type', () => {
    expect(withType('cpu{a="b"}', 'tcp_rtt')).toBe('tcp_rtt{a="b"}');
    expect(withType('cpu{', 'tcp_rtt')).toBe('cpu{');
    expect(withLabels('cpu{a=~"x",b="c"}', { a: 'y', d: '' })).toBe('cpu{b="c",a="y",d=""}');
  });
  it('knows what could be written at the caret', () => {
    const at = (text: string): unknown => {
      const caret = text.indexOf('|');
      const c = completionAt(text.replace('|', ''), caret);
      return c && [c.kind, c.prefix, c.from, c.to, c.label];
    };
    expect(at('|')).toEqual(['type', '', 0, 0, '']);
    expect(at('cp|')).toEqual(['type', 'cp', 0, 2, '']);
    expect(at('cpu{|}')).toEqual(['name', '', 4, 4, '']);
    expect(at('cpu{cont|}')).toEqual(['name', 'cont', 4, 8, '']);
    expect(at('cpu{a="b",se|}')).toEqual(['name', 'se', 10, 12, '']);
    expect(at('cpu{a="sh|"}')).toEqual(['value', 'sh', 7, 9, 'a']);
    expect(at('cpu{a="sh|')).toEqual(['value', 'sh', 7, 9, 'a']);
    expect(at('cpu{container.name=~"|"}')).toEqual(['value', '', 21, 21, 'container.name']);
    expect(at('cpu{a="b"|}')).toBeNull();
    expect(at('cpu{a="b"}|')).toBeNull();
  });
});

describe('time', () => {
  const now = 1_764_000_000_000;
  it.each([['now', now], ['-15m', now - 900_000], ['-1.5h', now - 5_400_000], ['1764000000', now], ['1764000000000', now], ['2025-11-24T16:00:00Z', Date.UTC(2025, 10, 24, 16)], ['gestern', null]])(
    '%s', (text, ms) => expect(resolveTime(text, now)).toBe(ms));
  it('never gives an empty range', () => {
    for (const [from, to] of [['now', '-1h'], ['x', 'y'], ['-1h', 'now']] as const) {
      const r = resolveRange(from, to, now);
      expect(r.fromMs).toBeLessThan(r.toMs);
    }
  });
  it('steps are whole windows', () => {
    for (const minutes of [5, 15, 60, 360, 1440, 10080]) {
      const step = stepFor({ fromMs: now - minutes * 60_000, toMs: now });
      expect(step % 10).toBe(0);
      expect((minutes * 60) / step).toBeLessThanOrEqual(121);
    }
  });
  it('ticks lie inside and are not too many', () => {
    for (const minutes of [5, 15, 60, 360, 1440, 10080, 500_000]) {
      const range = { fromMs: now - minutes * 60_000, toMs: now };
      const t = ticks(range, 8);
      expect(t.length).toBeLessThanOrEqual(minutes > 60_000 ? 60 : 9);
      for (const x of t) expect(x >= range.fromMs && x <= range.toMs).toBe(true);
    }
  });
});
