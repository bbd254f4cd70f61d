// Causes of waiting and of slow connections: what each means, its colour, and sums by cause as the API gives them.
import type { Labels, SeriesReply } from './api';

export type ByCause = Readonly<Record<string, number>>;

interface CauseInfo {
  label: string;
  help: string;
  colour: string;
}

// In the order in which bars show them: what one can do something about comes first.
export const kWaitCauses: Record<string, CauseInfo> = {
  running: { label: 'running', help: 'on a CPU', colour: '#e08a3c' },
  lock: { label: 'lock', help: 'another thread holds a lock: futex (mutex, condition variable), file lock, or a lock inside the kernel', colour: '#c0392b' },
  block_io: { label: 'disk', help: 'a disk has to read or write', colour: '#7d5ba6' },
  network: { label: 'network', help: 'a socket: the other end has not sent or taken data yet', colour: '#2a7f9e' },
  page_fault: { label: 'page fault', help: 'memory that has to be read from disk first', colour: '#a8477f' },
  throttled: { label: 'throttled', help: "ready to run, but its container's CPU quota is used up: raise the limit", colour: '#8a1c1c' },
  runnable: { label: 'waiting for a CPU', help: 'ready to run, but all CPUs were busy', colour: '#d4a017' },
  other: { label: 'other', help: 'a child process, a signal, a tracer, or not known', colour: '#8b857c' },
  timer: { label: 'timer', help: 'asked to sleep', colour: '#9fb3a2' },
  poll: { label: 'poll', help: 'waits for something to happen: epoll, poll, a pipe, a terminal; usual for idle threads', colour: '#b9c4cf' },
};

// What a thread without work waits for.
export const kIdleCauses: readonly string[] = ['timer', 'poll'];

export const kLimits: Record<string, CauseInfo> = {
  network: { label: 'network', help: 'data was on its way: the congestion window or the path decides', colour: '#2a7f9e' },
  receiver: { label: 'receiver', help: "the peer's receive window was full: it does not read fast enough", colour: '#c0392b' },
  'send buffer': { label: 'send buffer', help: 'our send buffer is too small for this path', colour: '#7d5ba6' },
  application: { label: 'application', help: 'nothing to send: idle, or the turn of the other end', colour: '#b9c4cf' },
};

export const kRetransmitHelp: Record<string, string> = {
  rto: 'no answer until the timer ran out, and what followed: each costs 200 ms or more',
  fast: 'the receiver reported a hole: loss, mended within a round trip',
  tlp: 'tail loss probe: the last packets of a burst went unanswered',
  handshake: 'connection requests that had no answer: costs 1 s or more',
  other: 'in no state that names a cause',
};

// The cause on top of a stack, where waits were recorded: "[lock]" -> its words.
export function causeOnTop(frames: readonly string[]): CauseInfo | undefined {
  const name = /^\[(\w+)\]$/.exec(frames[0] ?? '')?.[1];
  return name !== undefined && Object.hasOwn(kWaitCauses, name) ? kWaitCauses[name] : undefined;
}

export function total(causes: ByCause, without: readonly string[] = []): number {
  return Object.entries(causes).reduce((sum, [cause, v]) => (without.includes(cause) ? sum : sum + v), 0);
}

// Largest first; causes without time are left out.
export function ranked(causes: ByCause, without: readonly string[] = []): [string, number][] {
  return Object.entries(causes).filter(([cause, v]) => v > 0 && !without.includes(cause)).sort((a, b) => b[1] - a[1]);
}

// Of one sum per cause: a step longer than any range gives it in one or two points.
export const kWholeRange = '31536000s';

// Sums of a series asked with the label `cause`, by the other labels: rowKey of them -> nanoseconds (or counts) by cause.
export function byCause(reply: SeriesReply | undefined, keyOf: (labels: Labels) => string): Map<string, Record<string, number>> {
  const out = new Map<string, Record<string, number>>();
  for (const s of reply?.series ?? []) {
    const key = keyOf(s.labels);
    const row = out.get(key) ?? {};
    const cause = s.labels.cause ?? 'other';
    row[cause] = (row[cause] ?? 0) + s.points.reduce((sum, [, v]) => sum + v, 0);
    out.set(key, row);
  }
  return out;
}
