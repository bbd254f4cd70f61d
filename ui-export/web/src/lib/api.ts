// Calls to docs/api.md. Addresses are relative, so the page works behind any path prefix.
import { useEffect, useReducer, useRef } from 'react';

export class ApiError extends Error {
  constructor(message: string, readonly status: number, readonly code: string, readonly position: number | null) {
    super(message);
  }
}

export function asApiError(e: unknown): ApiError {
  return e instanceof ApiError ? e : new ApiError(e instanceof Error ? e.message : String(e), 0, 'client', null);
}

const kTokenKey = 'pyrometer-token';
let needToken = false;
const tokenListeners = new Set<() => void>();

export function token(): string {
  return sessionStorage.getItem(kTokenKey) ?? '';
}

export function setToken(value: string): void {
  if (value) sessionStorage.setItem(kTokenKey, value);
  else sessionStorage.removeItem(kTokenKey);
  needToken = false;
  tokenListeners.forEach((l) => l());
}

export const tokenStore = {
  subscribe: (l: () => void): (() => void) => {
    tokenListeners.add(l);
    return () => tokenListeners.delete(l);
  },
  needed: (): boolean => needToken,
};

export type Params = Record<string, string | number | undefined>;

export function apiPath(call: string, params: Params = {}): string {
  const p = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) if (value !== undefined && value !== '') p.set(key, String(value));
  const text = p.toString();
  return `api/v1/${call}${text ? `?${text}` : ''}`;
}

async function request(path: string, init: RequestInit): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token()) headers.set('Authorization', `Bearer ${token()}`);
  let reply: Response;
  try {
    reply = await fetch(path, { ...init, headers });
  } catch (e) {
    if (e instanceof DOMException && e.name === 'AbortError') throw e;
    throw new ApiError('Pyrometer does not answer. Is it still running?', 0, 'unreachable', null);
  }
  if (reply.ok) return reply;
  if (reply.status === 401 && !needToken) {
    needToken = true;
    tokenListeners.forEach((l) => l());
  }
  let message = `The store answered ${reply.status} ${reply.statusText}`.trim(), code = '', position: number | null = null;
  try {
    const body: unknown = await reply.json();
    const error = (body as { error?: { message?: unknown; code?: unknown; position?: unknown } }).error;
    if (typeof error?.message === 'string') message = error.message;
    if (typeof error?.code === 'string') code = error.code;
    if (typeof error?.position === 'number') position = error.position;
  } catch {
    // Not our JSON (a proxy's page, perhaps): the status line above says all there is.
  }
  throw new ApiError(message, reply.status, code, position);
}

export async function api<T>(path: string, init: RequestInit = {}): Promise<T> {
  return (await (await request(path, init)).json()) as T;
}

// Saves a reply as a file; needed where a plain link could not carry the token.
export async function download(path: string, fallbackName: string): Promise<void> {
  const reply = await request(path, {});
  const named = /filename="([^"]+)"/.exec(reply.headers.get('Content-Disposition') ?? '');
  const url = URL.createObjectURL(await reply.blob());
  const a = document.createElement('a');
  a.href = url;
  a.download = named ? named[1]! : fallbackName;
  a.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export interface Loaded<T> {
  data: T | undefined; // the last good answer to this question, also while it is asked again
  answers: string | null; // the path that data answers: that of an older question while a new one is asked
  error: ApiError | undefined; // why the last attempt failed
  loading: boolean;
  loadedMs: number; // when data arrived
  reload: () => void;
}

interface Slot<T> {
  path: string | null;
  data: T | undefined;
  answers: string | null;
  error: ApiError | undefined;
  loading: boolean;
  loadedMs: number;
}

// Asks now, again whenever the question changes and every refreshMs (0 = never) while the page is visible. `scope`
// says which questions may show each other's answer while waiting: with equal scope the old picture stays up.
export function useApi<T>(path: string | null, options: { refreshMs?: number; scope?: string; convert?: (json: unknown) => T } = {}): Loaded<T> {
  const { refreshMs = 0, scope = path ?? '' } = options;
  const slot = useRef<Slot<T> & { scope: string }>({ path: null, data: undefined, answers: null, error: undefined, loading: false, loadedMs: 0, scope });
  const convert = useRef(options.convert);
  convert.current = options.convert;
  const [round, ask] = useReducer((n: number) => n + 1, 0);
  const [, redraw] = useReducer((n: number) => n + 1, 0);
  const s = slot.current;
  if (s.scope !== scope) {
    s.scope = scope;
    s.data = undefined;
    s.error = undefined;
  }
  if (path !== s.path) s.loading = path !== null;

  useEffect(() => {
    s.path = path;
    if (path === null) return undefined;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const run = async (): Promise<void> => {
      s.loading = true;
      redraw();
      try {
        const json = await api<unknown>(path, { signal: abort.signal });
        s.data = convert.current ? convert.current(json) : (json as T);
        s.answers = path;
        s.error = undefined;
        s.loadedMs = Date.now();
      } catch (e) {
        if (abort.signal.aborted) return;
        s.error = asApiError(e);
      }
      s.loading = false;
      redraw();
      schedule();
    };
    const schedule = (): void => {
      if (refreshMs > 0) timer = setTimeout(() => (document.hidden ? schedule() : void run()), refreshMs);
    };
    void run();
    const again = tokenStore.subscribe(() => {
      if (!tokenStore.needed()) ask();
    });
    return () => {
      abort.abort();
      clearTimeout(timer);
      again();
    };
  }, [path, refreshMs, round, s]);

  return { data: s.data, answers: s.answers, error: s.error, loading: s.loading, loadedMs: s.loadedMs, reload: ask };
}

// ---- replies ----
export type Labels = Record<string, string>;

export interface Status {
  version: string;
  startedMs: number;
  nowMs: number;
  mode: 'up' | 'store';
  node: string | null;
  authRequired: boolean;
  store: { bytes: number; series: number; stacks: number; batches: number; samples: number; memoryBytes: number };
  nodes: number;
}

export interface Probe {
  name: string;
  state: 'ok' | 'degraded' | 'off' | 'unused'; // off: it should run and does not; unused: nobody asked for it
  reason: string;
}

// A probe that should work and does not, or not wholly. One that nobody asked for is none.
export function isLimited(probe: Probe): boolean {
  return probe.state === 'degraded' || probe.state === 'off';
}

export interface NodeInfo {
  node: string;
  agentId: string;
  version: string;
  lastSeenMs: number;
  online: boolean;
  cpus: number;
  kernel: string;
  frequencyHz: number;
  probes: Probe[];
  cpuNsPerS: number;
  rssBytes: number;
  taken: number;
  delivered: number;
  dropped: Record<string, number>;
}

export interface Container {
  labels: Labels;
  isHost: boolean;
  cores: number;
  samples: number;
  spark: { t: number; v: number }[];
  syscalls: number;
  rttP50Ns: number | null;
}

export interface SeriesReply {
  unit: string;
  stepNs: number;
  series: { labels: Labels; points: [number, number][]; counts?: [number, number][] }[];
}

export type Bucket = [low: number, high: number, count: number];

export interface Histogram {
  labels: Labels;
  count: number;
  sum: number;
  max: number;
  p50: number;
  p95: number;
  p99: number;
  mean: number;
  errors: Record<string, number>;
  buckets: Bucket[];
  exemplars: number;
}

export interface Heatmap {
  stepNs: number;
  columns: { t: number; buckets: Bucket[] }[];
}

// When within each step samples were taken.
export interface SubSecond {
  stepNs: number;
  cellNs: number;
  samples: number;
  timed: number; // of them; the others have no time
  columns: { t: number; cells: number[] }[];
}

export interface Waker {
  comm: string; // '': an interrupt
  tid: number;
  cause: string;
  waitNs: number;
  frames: string[];
}

export interface Exemplar {
  timeMs: number;
  durationNs: number;
  comm: string;
  tid: number;
  call: string; // with its arguments, for reading; '' where not known
  weight: number; // drawn among all calls: how many it stands for; 0: not drawn
  slow: boolean; // one of the slowest
  splitNs: Record<string, number>; // what the time went to; empty where waits are not recorded
  waker: Waker | null; // who ended the longest wait, where that is known
  labels: Labels;
  frames: string[];
}

export interface Peer {
  labels: Labels;
  rttP50Ns: number | null;
  rttP95Ns: number | null;
  rttP99Ns: number | null;
  minRttNs: number | null;
  connectP50Ns: number | null;
  samples: number;
  rttVariationP50Ns: number | null;
  retransmits: number;
  retransmitsByCause: Record<string, number>;
  resets: Record<string, number>;
  zeroWindows: Record<string, number>;
  limitedNs: Record<string, number>;
  connectionsFound: number;
  connectionsClosed: number;
  connectFailures: number;
  bytesSent: number;
  bytesReceived: number;
  connections: number;
}

export interface Session {
  id: string;
  node: string;
  target: string;
  probes: ('cpu' | 'waits')[];
  state: 'pending' | 'running' | 'done' | 'failed' | 'stopped';
  startedMs: number;
  durationNs: number;
  samples: number;
  error: string;
}
