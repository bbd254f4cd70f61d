import { describe, expect, it } from 'vitest';
import { ago, bytes, cores, count, duration, percent, short, shortName, span } from '../../src/lib/format';
import { categoryOf, fillsOf, hslHex, isLibrary, kDark, kLight, libraryHue } from '../../src/lib/colors';
import { explainReason, isComplete, isNameless } from '../../src/lib/reasons';
import { decadeTicks, logScale, lowestShown } from '../../src/lib/scale';
import { niceMax } from '../../src/components/Timeline';
import { random } from './make';

describe('where an axis of durations begins', () => {
  it('is the lowest bucket', () => expect(lowestShown([[4096, 4352, 7], [1024, 1088, 1], [9e6, 9.5e6, 1000]])).toBe(1024));
  it('leaves out a few waits of nothing', () => expect(lowestShown([[0, 1, 3], [3000, 3200, 500], [9e6, 9.5e6, 1000]])).toBe(3000));
  it('shows them where they are many', () => expect(lowestShown([[0, 1, 300], [3000, 3200, 500], [9e6, 9.5e6, 1000]])).toBe(1));
  it('is 1 of nothing', () => expect(lowestShown([])).toBe(1));
});

describe('numbers for people', () => {
  it.each([[0, '0'], [1, '1 ns'], [999, '999 ns'], [1000, '1.00 µs'], [999_499, '999 µs'], [999_600, '1.00 ms'], [20_000_000, '20.0 ms'], [1e9, '1.00 s'],
    [59.99e9, '1.00 min'], [90e9, '1.50 min'], [7200e9, '2.00 h'], [8.64e14, '240 h']])('%d ns is %s', (ns, text) => expect(duration(ns)).toBe(text));
  it.each([[1e4, '10 µs'], [60e9, '1 min'], [1.5e6, '1.5 ms'], [1e6, '1 ms'], [1e8, '100 ms'], [3.05e9, '3.05 s']])('%d ns is roundly %s', (ns, text) => expect(span(ns)).toBe(text));
  it('never shows a thousand of a unit that has a larger one', () => {
    const rnd = random(5);
    for (let i = 0; i < 5000; i++) {
      const text = duration(10 ** (rnd() * 12));
      if (!text.endsWith(' h')) expect(parseFloat(text)).toBeLessThan(1000);
    }
  });
  it.each([[0, '0 B'], [1023, '1023 B'], [1024, '1.00 KiB'], [1048575, '1.00 MiB'], [5.5e9, '5.12 GiB']])('%d bytes are %s', (n, text) => expect(bytes(n)).toBe(text));
  it.each([[0, 10, '0 %'], [1, 3, '33.3 %'], [1, 100_000, '<0.01 %'], [10, 10, '100 %'], [1, 0, '–'], [9999, 10000, '100 %'], [994, 1000, '99.4 %']])('%d of %d is %s', (a, b, text) => expect(percent(a, b)).toBe(text));
  it('counts with thin spaces', () => expect(count(1234567)).toBe('1\u202f234\u202f567'));
  it.each([[9999, '9\u202f999'], [412_300, '412 k'], [999_999, '1.00 M'], [12, '12']])('%d is short %s', (n, text) => expect(short(n)).toBe(text));
  it.each([[0, '0'], [0.001, '<0.01'], [1.234, '1.23'], [12.34, '12.3'], [640, '640']])('%d cores are %s', (n, text) => expect(cores(n)).toBe(text));
  it('says how long ago', () => {
    expect(ago(1000, 2000)).toBe('just now');
    expect(ago(0, 90_000)).toBe('90 s ago');
    expect(ago(0, 3_600_000 * 5)).toBe('5 h ago');
  });
});

describe('short names', () => {
  it.each([
    ['main', 'main'], ['shop::Server::Run(shop::Options const&)', 'shop::Server::Run'], ['std::map<int, Foo>::find(int const&)', 'std::map<…>::find'],
    ['std::vector<int, std::allocator<int> >::push_back(int&&)', 'std::vector<…>::push_back'], ['foo::operator()(int)', 'foo::operator()'],
    ['(anonymous namespace)::f(int)', '(anonymous namespace)::f'], ['Cart::Price(int) const', 'Cart::Price'], ['operator new(unsigned long)', 'operator new'],
    ['libz.so.1+0x5b20', 'libz.so.1+0x5b20'], ['Ljava/util/HashMap;::get', 'Ljava/util/HashMap;::get'],
  ])('%s -> %s', (full, text) => expect(shortName(full)).toBe(text));
  it('is never longer than the name and never empty, whatever comes', () => {
    const rnd = random(3), letters = '<>()ab:, -~&*operator';
    for (let i = 0; i < 5000; i++) {
      const name = Array.from({ length: 1 + Math.floor(rnd() * 30) }, () => letters[Math.floor(rnd() * letters.length)]).join('');
      expect(shortName(name).length).toBeGreaterThan(0);
      expect(shortName(name).length).toBeLessThanOrEqual(name.length + 2);
    }
  });
});

describe('colours', () => {
  it.each([['/usr/lib/x86_64-linux-gnu/libc.so.6', true], ['/lib/ld-linux-x86-64.so.2', true], ['[vdso]', true], ['/usr/bin/python3.11', false], ['/app/shop', false], ['/usr/lib/libz.so.1 (deleted)', true], ['', false]])(
    '%s is a library: %s', (module, is) => expect(isLibrary(module)).toBe(is));
  it('knows the kinds of the API', () => {
    expect([0, 1, 2, 3, 4, 5, 9].map((k) => categoryOf(k, '/app/shop'))).toEqual(['unknown', 'program', 'kernel', 'jit', 'interpreted', 'other', 'unknown']);
  });
  it('gives a library the same hue in every version', () => {
    expect(libraryHue('/lib/libc.so.6')).toBe(libraryHue('/usr/lib/libc-2.36.so'));
  });
  it('does not give two libraries of one graph the same hue', () => {
    const modules = ['/l/liba.so', '/l/libb.so', '/l/libc.so', '/l/libd.so', '/l/libe.so', '/l/libf.so', '/l/libg.so', '/l/libh.so'];
    const fills = fillsOf({ name: modules.map((_, i) => `f${i}`), kind: new Uint8Array(8).fill(1), module: modules, file: modules, line: new Int32Array(8), inlined: new Uint8Array(8) });
    expect(new Set(fills).size).toBe(8);
  });
  const luminance = (hex: string): number => {
    const c = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * c[0]! + 0.7152 * c[1]! + 0.0722 * c[2]!;
  };
  const contrast = (a: string, b: string): number => {
    const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
    return (x! + 0.05) / (y! + 0.05);
  };
  it.each([['light', kLight], ['dark', kDark]] as const)('every text on a %s frame can be read (4.5 : 1)', (_name, p) => {
    for (const fill of p.fills) expect(contrast(fill, p.text), fill).toBeGreaterThanOrEqual(4.5);
    expect(contrast(p.dimFill, p.dimText)).toBeGreaterThanOrEqual(4.5);
    expect(contrast(p.match, p.matchText)).toBeGreaterThanOrEqual(4.5);
  });
  it('writes colours', () => expect([hslHex(0, 1, 0.5), hslHex(120, 1, 0.5), hslHex(0, 0, 1)]).toEqual(['#ff0000', '#00ff00', '#ffffff']));
});

describe('reasons', () => {
  it('explains what the agent counts, with spaces or underscores', () => {
    expect(explainReason('no symbols')).toMatch(/debug package/);
    expect(explainReason('bad_frame')).toMatch(/unwind information/);
    expect(explainReason('kernel.bad_frame')).toMatch(/^kernel: /);
    expect(explainReason('something new')).toBe('something new');
  });
  it('knows a whole stack from a cut one', () => {
    expect(['end', 'not_taken', 'no_user_stack', 'kernel.end'].every(isComplete)).toBe(true);
    expect(['truncated', 'bad_frame', 'unreadable'].some(isComplete)).toBe(false);
  });
  it('knows a name from an address', () => {
    expect(['libz.so+0x5b20', '[unknown]', '[jit]', ''].every(isNameless)).toBe(true);
    expect(['main', 'a+b', '[truncated]'].some(isNameless)).toBe(false);
  });
});

describe('axes', () => {
  it('log scale there and back', () => {
    const s = logScale(100, 1e9, 40, 700);
    for (const v of [100, 1e3, 123_456, 1e9]) expect(s.value(s.x(v)) / v).toBeCloseTo(1, 6);
  });
  it('ticks lie inside', () => {
    for (const [low, high] of [[100, 1e9], [20e6, 21e6], [1, 10], [3e3, 5e5]] as const) {
      for (const t of decadeTicks(low, high)) {
        expect(t).toBeGreaterThanOrEqual(low);
        expect(t).toBeLessThanOrEqual(high);
      }
    }
    expect(decadeTicks(100, 1e9)).toEqual([100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9]);
  });
  it('round maxima', () => {
    for (const v of [0.003, 0.7, 1, 1.01, 3.3, 9.9, 12_345]) {
      expect(niceMax(v)).toBeGreaterThanOrEqual(v);
      expect(niceMax(v)).toBeLessThanOrEqual(v * 1.5 + 1e-9);
    }
    expect(niceMax(0)).toBe(1);
  });
});
