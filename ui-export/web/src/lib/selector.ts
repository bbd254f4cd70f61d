// Selectors such as cpu{service="shop",node=~"eu-.*"}: reading them well enough to complete, edit and mark errors.
// The store's parser has the last word; this one follows the same grammar (docs in userspace/query/selector.h).

export type Op = '=' | '!=' | '=~' | '!~';

export interface Matcher {
  name: string;
  op: Op;
  value: string;
}

export interface Selector {
  type: string;
  matchers: Matcher[];
}

export class SelectorError extends Error {
  constructor(message: string, readonly position: number) {
    super(message);
  }
}

const kSimpleName = /^[A-Za-z_][A-Za-z0-9_.\-/:]*$/;

export function parseSelector(text: string): Selector {
  let at = 0;
  const space = (): void => {
    while (at < text.length && /\s/.test(text[at]!)) at++;
  };
  const word = (pattern: RegExp): string => {
    pattern.lastIndex = at;
    const m = pattern.exec(text);
    if (!m) return '';
    at = pattern.lastIndex;
    return m[0];
  };
  const quoted = (what: string): string => {
    const quote = text[at];
    if (quote !== '"' && quote !== "'" && quote !== '`') throw new SelectorError(`expected ${what} in quotes`, at);
    const begin = at++;
    let out = '';
    for (; at < text.length; at++) {
      const c = text[at]!;
      if (c === quote) {
        at++;
        return out;
      }
      if (c !== '\\' || quote === '`') {
        out += c;
        continue;
      }
      const escape = /\\(?:([\\"'nrt])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))/y;
      escape.lastIndex = at;
      const m = escape.exec(text);
      if (!m) throw new SelectorError('unknown escape; a backslash is written \\\\', at);
      out += m[1] ? ({ n: '\n', r: '\r', t: '\t' } as Record<string, string>)[m[1]] ?? m[1]
        : String.fromCharCode(parseInt(m[2] ?? m[3]!, 16));
      at += m[0].length - 1;
    }
    throw new SelectorError(`this quote is never closed`, begin);
  };

  space();
  const type = word(/[A-Za-z_][A-Za-z0-9_.:]*/y);
  space();
  const matchers: Matcher[] = [];
  const braces = text[at] === '{';
  if (braces) {
    const open = at++;
    for (;;) {
      space();
      if (text[at] === '}') {
        at++;
        break;
      }
      if (at >= text.length) throw new SelectorError("this '{' is never closed", open);
      const name = /["'`]/.test(text[at]!) ? quoted('a label name') : word(/[A-Za-z_][A-Za-z0-9_.\-/:]*/y);
      if (!name) throw new SelectorError('expected a label name', at);
      space();
      const op = word(/=~|!~|!=|=/y) as Op | '';
      if (!op) throw new SelectorError("expected '=', '!=', '=~' or '!~' after the label name", at);
      space();
      matchers.push({ name, op, value: quoted('a value') });
      space();
      if (text[at] === ',') at++;
      else if (text[at] !== '}') {
        throw at >= text.length ? new SelectorError("this '{' is never closed", open)
          : new SelectorError("expected ',' or '}'", at);
      }
    }
  }
  if (!type && !braces) throw new SelectorError('expected a type or {', at);
  space();
  if (at < text.length) throw new SelectorError('unexpected text after the selector', at);
  return { type, matchers };
}

export function quote(value: string): string {
  return `"${value.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n').replace(/\r/g, '\\r').replace(/\t/g, '\\t')}"`;
}

export function formatSelector(s: Selector): string {
  const inner = s.matchers.map((m) => `${kSimpleName.test(m.name) ? m.name : quote(m.name)}${m.op}${quote(m.value)}`).join(',');
  if (!inner) return s.type || '{}';
  return `${s.type}{${inner}}`;
}

export function tryParse(text: string): Selector | null {
  try {
    return parseSelector(text);
  } catch {
    return null;
  }
}

// The same labels asked of another type; text that cannot be read is handed on for the store to explain.
export function withType(text: string, type: string): string {
  const s = tryParse(text);
  return s ? formatSelector({ ...s, type }) : text;
}

// "=" for a value, and {name=""} to say "has no such label".
export function withLabels(text: string, labels: Record<string, string>): string {
  const s = tryParse(text) ?? { type: '', matchers: [] };
  const rest = s.matchers.filter((m) => !(m.name in labels));
  return formatSelector({
    type: s.type,
    matchers: [...rest, ...Object.entries(labels).map(([name, value]) => ({ name, op: '=' as Op, value }))],
  });
}

// One condition more.
export function withCondition(text: string, matcher: Matcher): string {
  const s = tryParse(text);
  return s ? formatSelector({ type: s.type, matchers: [...s.matchers, matcher] }) : text;
}

export type Completion =
  | { kind: 'type' | 'name'; from: number; to: number; prefix: string; label: ''; closed: false }
  | { kind: 'value'; from: number; to: number; prefix: string; label: string; closed: boolean }
  | null;

// What could be written at the caret: a type, a label name, or a value of a label.
export function completionAt(text: string, caret: number): Completion {
  const before = text.slice(0, caret);
  const open = before.indexOf('{');
  const wordEnd = (at: number): number => {
    while (at < text.length && /[A-Za-z0-9_.\-/:]/.test(text[at]!)) at++;
    return at;
  };
  if (open < 0) {
    const m = /[A-Za-z_][A-Za-z0-9_.:]*$/.exec(before) ?? { 0: '', index: caret };
    return before.trim() === m[0] ? { kind: 'type', from: caret - m[0].length, to: wordEnd(caret), prefix: m[0], label: '', closed: false } : null;
  }
  // Inside quotes? Walk from the brace, minding escapes.
  let quoteChar = '', quoteAt = 0;
  for (let i = open + 1; i < caret; i++) {
    const c = text[i]!;
    if (quoteChar) {
      if (c === '\\' && quoteChar !== '`') i++;
      else if (c === quoteChar) quoteChar = '';
    } else if (c === '"' || c === "'" || c === '`') {
      quoteChar = c;
      quoteAt = i;
    } else if (c === '}') return null;
  }
  if (quoteChar) {
    const name = /([A-Za-z_][A-Za-z0-9_.\-/:]*)\s*(?:=~|!~|!=|=)\s*$/.exec(text.slice(open + 1, quoteAt));
    if (!name) return null;
    const close = text.indexOf(quoteChar, caret);
    const end = close >= 0 && !/[{}]/.test(text.slice(caret, close)) ? close : caret;
    return { kind: 'value', from: quoteAt + 1, to: end, prefix: text.slice(quoteAt + 1, caret), label: name[1]!, closed: end === close };
  }
  const m = /(?:[{,]\s*)([A-Za-z0-9_.\-/:]*)$/.exec(before);
  return m ? { kind: 'name', from: caret - m[1]!.length, to: wordEnd(caret), prefix: m[1]!, label: '', closed: false } : null;
}
