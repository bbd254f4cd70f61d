// Numbers for people. Fixed number of significant digits, so that columns stay aligned and nothing jumps.

const kTimeSteps: [number, string][] = [[1e9 * 3600, 'h'], [1e9 * 60, 'min'], [1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']];

export function digits(value: number, significant = 3): string {
  if (value === 0) return '0';
  // Round first: 0.9996 has the magnitude of 1.00.
  const magnitude = Math.floor(Math.log10(Math.abs(Number(value.toPrecision(significant)))));
  return value.toFixed(Math.max(0, Math.min(6, significant - 1 - magnitude)));
}

export function duration(ns: number): string {
  if (!Number.isFinite(ns)) return '–';
  if (ns === 0) return '0';
  const size = Math.abs(ns);
  for (let i = 0; i < kTimeSteps.length; i++) {
    const [unit, name] = kTimeSteps[i]!;
    // 999.6 ms would print as "1000 ms": take the larger unit from where rounding reaches it.
    if (size >= unit * 0.9995 || unit === 1) return `${unit === 1 ? Math.round(ns) : digits(ns / unit)} ${name}`;
  }
  return `${ns} ns`;
}

// For round durations (axes, lengths of ranges): "10 µs", not "10.0 µs".
export function span(ns: number): string {
  return duration(ns).replace(/\.0+ /, ' ').replace(/(\.\d*?[1-9])0+ /, '$1 ');
}

export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let i = 0;
  while (Math.abs(value) >= 1023.5 && i < units.length - 1) {
    value /= 1024;
    i++;
  }
  return `${i === 0 ? Math.round(value) : digits(value)} ${units[i]}`;
}

export function count(value: number): string {
  return Math.round(value).toLocaleString('en-US').replace(/,/g, '\u202f');
}

export function short(value: number): string {
  if (Math.abs(value) < 9999.5) return count(value);
  const units = ['', 'k', 'M', 'G', 'T', 'P'];
  let i = 0;
  while (Math.abs(value) >= 999.5 && i < units.length - 1) {
    value /= 1000;
    i++;
  }
  return `${digits(value)} ${units[i]}`.trim();
}

export function percent(part: number, whole: number): string {
  if (!(whole > 0)) return '–';
  const p = (100 * part) / whole;
  if (p === 0) return '0 %';
  if (p < 0.01) return '<0.01 %';
  return `${p >= 99.95 ? '100' : p >= 10 ? p.toFixed(1) : p.toFixed(2)} %`;
}

export function value(v: number, unit: string): string {
  if (unit === 'nanoseconds') return duration(v);
  if (unit === 'bytes') return bytes(v);
  return unit === 'count' || unit === '' ? count(v) : `${count(v)} ${unit}`;
}

export function cores(v: number): string {
  return v < 0.005 ? (v > 0 ? '<0.01' : '0') : v.toFixed(v >= 100 ? 0 : v >= 10 ? 1 : 2);
}

const two = (n: number): string => String(n).padStart(2, '0');

export function clock(ms: number, seconds = true): string {
  const d = new Date(ms);
  return `${two(d.getHours())}:${two(d.getMinutes())}${seconds ? `:${two(d.getSeconds())}` : ''}`;
}

export function dateTime(ms: number): string {
  const d = new Date(ms);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${clock(ms)}`;
}

export function ago(ms: number, now: number): string {
  const s = Math.max(0, Math.round((now - ms) / 1000));
  if (s < 2) return 'just now';
  if (s < 120) return `${s} s ago`;
  if (s < 7200) return `${Math.round(s / 60)} min ago`;
  if (s < 172800) return `${Math.round(s / 3600)} h ago`;
  return `${Math.round(s / 86400)} days ago`;
}

// A function's name without arguments and template arguments, for narrow frames:
// "std::map<int, Foo>::find(int const&)" -> "std::map<…>::find".
export function shortName(name: string): string {
  if (!/[<(]/.test(name) || name.length > 4096) return name;
  let out = '';
  let angle = 0, round = 0;
  for (let i = 0; i < name.length; i++) {
    const c = name[i]!;
    if (c === '<' && !/operator<?$/.test(name.slice(Math.max(0, i - 9), i)) && i > 0) {
      if (angle++ === 0 && round === 0) out += '<…>';
    } else if (c === '>' && angle > 0 && name[i - 1] !== '-') {
      angle--;
    } else if (c === '(' && angle === 0) {
      if (name.startsWith('(anonymous namespace)', i) || name.startsWith('()', i) && name.slice(0, i).endsWith('operator')) {
        if (round === 0) out += name.startsWith('()', i) ? '()' : '(anonymous namespace)';
        i += name.startsWith('()', i) ? 1 : '(anonymous namespace)'.length - 1;
      } else round++;
    } else if (c === ')' && angle === 0 && round > 0) {
      round--;
    } else if (angle === 0 && round === 0) out += c;
  }
  out = out.replace(/ (const|\[clone .*\])$/, '').trim();
  return angle !== 0 || round !== 0 || out === '' ? name : out;
}

export function baseName(path: string): string {
  const at = path.lastIndexOf('/');
  return at < 0 ? path : path.slice(at + 1);
}
