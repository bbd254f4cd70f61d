// Searching functions by text or /regular expression/, and what share of the graph matches.
import type { FlameGraph, Functions } from './flame';

export interface Search {
  test: (name: string) => boolean;
  error: string; // '' when the text can be used
}

// Plain text matches anywhere, ignoring case unless it contains a capital letter. /text/ or /text/i is a regular expression.
export function makeSearch(text: string): Search | null {
  if (text === '') return null;
  const slashed = /^\/(.+)\/([i]?)$/.exec(text);
  if (slashed) {
    try {
      const pattern = new RegExp(slashed[1]!, slashed[2]);
      return { test: (name) => pattern.test(name), error: '' };
    } catch (e) {
      const why = e instanceof Error ? e.message.replace(/^Invalid regular expression: /, '') : String(e);
      return { test: () => false, error: `Not a regular expression: ${why}` };
    }
  }
  if (/[A-Z]/.test(text)) return { test: (name) => name.includes(text), error: '' };
  return { test: (name) => name.toLowerCase().includes(text), error: '' };
}

// One flag per function: the renderer looks up frames by it.
export function matchFunctions(fns: Functions, search: Search | null): Uint8Array | null {
  if (!search || search.error) return null;
  const out = new Uint8Array(fns.name.length);
  for (let i = 0; i < out.length; i++) if (search.test(fns.name[i]!) || search.test(fns.module[i]!)) out[i] = 1;
  return out;
}

export interface MatchedShare {
  value: number; // samples with at least one matching frame
  frames: number;
}

export function matchedShare(graph: FlameGraph, matches: Uint8Array): MatchedShare {
  const covered = new Uint8Array(graph.fn.length);
  let value = 0, frames = 0;
  for (let i = 0; i < graph.fn.length; i++) {
    const p = graph.parent[i]!;
    const hit = matches[graph.fn[i]!] === 1;
    if (hit) frames++;
    if (p >= 0 && covered[p]) covered[i] = 1;
    else if (hit) {
      covered[i] = 1;
      value += graph.total[i]!;
    }
  }
  return { value, frames };
}
