// The page's whole state is its address, so that a link shows what its sender saw and "back" undoes.
//
//   const [state, go] = useUrl();
//   go({ view: 'flame', q: 'cpu{service="shop"}' });          // a step that "back" undoes
//   go({ search: 'malloc' }, 'replace');                      // typing: no step per letter
import { useSyncExternalStore } from 'react';

export const kViews = ['overview', 'flame', 'syscalls', 'waits', 'network', 'sessions', 'status'] as const;
export type View = (typeof kViews)[number];
export const kDisplays = ['both', 'graph', 'table', 'sandwich'] as const;
export type Display = (typeof kDisplays)[number];

export interface UrlState {
  view: View;
  q: string; // selector, with or without type
  from: string; // range shown by the time line: -15m, now, ms, RFC 3339
  to: string;
  sel: string; // "FROM_MS-TO_MS": the part of the range chosen by dragging, '' = all of it
  live: boolean; // refresh while `to` is now
  by: string; // labels at the root, comma separated; '' = by program where that is known, '-' = none
  zoom: string; // zoomPath() of the zoomed frame
  search: string;
  display: Display;
  fn: string; // chosen function: stands out in the graph, centre of the callers view
  type: string; // value type of the flame graph, '' = the profile's default
  up: boolean; // flames grow upwards
  order: 'value' | 'name';
  row: string; // chosen row of the system-call or network table: its labels as JSON
  slow: string; // "LOW-HIGH" in ns: chosen part of the histogram
  typical: boolean; // system calls: examples drawn among all calls, not the slowest
  idle: boolean; // waits: also those of threads without work
  wakers: boolean; // waits: stacks go on into who ended them
  seconds: boolean; // CPU: in place of the time line, what happened within each second
  theme: '' | 'light' | 'dark';
}

export const kDefaults: UrlState = {
  view: 'overview', q: '', from: '-15m', to: 'now', sel: '', live: true, by: '', zoom: '', search: '', display: 'both',
  fn: '', type: '', up: false, order: 'value', row: '', slow: '', typical: false, idle: false, wakers: false, seconds: false, theme: '',
};

export function parseUrl(search: string): UrlState {
  const p = new URLSearchParams(search);
  const state: UrlState = { ...kDefaults };
  const pick = <T extends string>(name: string, allowed: readonly T[], fallback: T): T => {
    const v = p.get(name);
    return v !== null && (allowed as readonly string[]).includes(v) ? (v as T) : fallback;
  };
  state.view = pick('view', kViews, kDefaults.view);
  state.display = pick('display', kDisplays, kDefaults.display);
  state.order = pick('order', ['value', 'name'] as const, kDefaults.order);
  state.theme = pick('theme', ['light', 'dark'] as const, '' as never) as UrlState['theme'];
  for (const name of ['q', 'from', 'to', 'by', 'zoom', 'search', 'fn', 'type', 'row'] as const) state[name] = p.get(name) ?? kDefaults[name];
  if (parsePair(p.get('sel'))) state.sel = p.get('sel')!;
  if (parsePair(p.get('slow'))) state.slow = p.get('slow')!;
  state.live = p.get('live') !== '0';
  for (const name of ['up', 'typical', 'idle', 'wakers', 'seconds'] as const) state[name] = p.get(name) === '1';
  return state;
}

// Only what differs from the defaults, always in the same order: equal states have equal addresses.
export function formatUrl(state: UrlState): string {
  const p = new URLSearchParams();
  for (const key of Object.keys(kDefaults) as (keyof UrlState)[]) {
    if (state[key] === kDefaults[key]) continue;
    const v = state[key];
    p.set(key, typeof v === 'boolean' ? (v ? '1' : '0') : v);
  }
  // Readable where the address bar allows it.
  const text = p.toString().replace(/%7B/g, '{').replace(/%7D/g, '}').replace(/%2C/g, ',').replace(/%3A/g, ':').replace(/%2F/g, '/');
  return text ? `?${text}` : '';
}

export function parsePair(text: string | null): [number, number] | null {
  const m = /^(\d{1,16})-(\d{1,16})$/.exec(text ?? '');
  if (!m) return null;
  const low = Number(m[1]), high = Number(m[2]);
  return low < high ? [low, high] : null;
}

// Which label the root is split by when nobody chose: whole-machine graphs without it are a mix of everything.
export function splitBy(chosen: string, labels: readonly string[]): string {
  if (chosen === '-') return '';
  return chosen !== '' ? chosen : labels.includes('comm') ? 'comm' : '';
}

// The page keeps its state behind '?', the viewer behind '#': browsers let a file:// page change only that.
let inHash = false;
const read = (): UrlState => parseUrl(inHash ? location.hash.replace(/^#/, '?') : location.search);
let current = typeof location === 'undefined' ? kDefaults : read();
const listeners = new Set<() => void>();

if (typeof window !== 'undefined') {
  window.addEventListener('popstate', () => {
    current = read();
    listeners.forEach((l) => l());
  });
}

export function keepStateInHash(): void {
  inHash = true;
  current = read();
}

const addressOf = (text: string): string =>
  inHash ? location.pathname + location.search + (text ? text.replace(/^\?/, '#') : '#') : location.pathname + text;

export type Go = (change: Partial<UrlState>, how?: 'push' | 'replace') => void;

export const go: Go = (change, how = 'push') => {
  const next = { ...current, ...change };
  const address = formatUrl(next);
  if (address === formatUrl(current)) return;
  current = next;
  const url = addressOf(address);
  if (how === 'push') history.pushState(null, '', url);
  else history.replaceState(null, '', url);
  listeners.forEach((l) => l());
};

// A link to a state reached from the present one.
export function href(change: Partial<UrlState>): string {
  return addressOf(formatUrl({ ...current, ...change }));
}

export function useUrl(): [UrlState, Go] {
  const state = useSyncExternalStore(
    (l) => {
      listeners.add(l);
      return () => listeners.delete(l);
    },
    () => current,
  );
  return [state, go];
}
