// System calls: per container and call, how often and how long; from slow calls to the code behind them.
import { useMemo } from 'react';
import { apiPath, useApi, type Histogram, type Labels, type SeriesReply, type Status } from '../lib/api';
import { byCause, kWaitCauses, kWholeRange } from '../lib/causes';
import { count, duration, percent, short } from '../lib/format';
import { withLabels, withType } from '../lib/selector';
import { useUrl } from '../lib/url';
import { CauseBar } from '../components/CauseBar';
import { DataTable, type Column } from '../components/DataTable';
import { LatencyDetail } from '../components/LatencyDetail';
import { kRefreshMs, QueryBar, useAsked } from '../components/QueryBar';
import { ErrorBox, Help, Skeleton } from '../components/ui';
import { Waiting } from '../components/Waiting';

const kBy = ['node', 'container.name', 'service', 'syscall'];

export function whose(labels: Labels): string {
  return labels['container.name'] || labels.service || labels['container.id']?.slice(0, 12) || 'host';
}

export function rowKey(labels: Labels, names: readonly string[]): string {
  return JSON.stringify(Object.fromEntries(names.map((n) => [n, labels[n] ?? ''])));
}

export function parseRow(text: string): Labels | null {
  if (!text) return null;
  try {
    const v: unknown = JSON.parse(text);
    if (typeof v !== 'object' || v === null || Array.isArray(v)) return null;
    return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, String(x)]));
  } catch {
    return null; // an address someone edited: no row is chosen then
  }
}

export function Syscalls(props: { status: Status | undefined }): JSX.Element {
  const [url, go] = useUrl();
  const asked = useAsked('syscall_latency', true);
  const reply = useApi<{ histograms: Histogram[] }>(
    apiPath('histograms', { query: asked.query, from: asked.from, to: asked.to, by: kBy.join(',') }),
    { refreshMs: asked.live ? kRefreshMs : 0, scope: `syscalls/${asked.query}` });
  const split = useApi<SeriesReply>(
    apiPath('series', { query: withType(asked.query, 'syscall_time'), from: asked.from, to: asked.to, step: kWholeRange, by: [...kBy, 'cause'].join(',') }),
    { refreshMs: asked.live ? kRefreshMs : 0, scope: `syscalls/time/${asked.query}` });
  const causes = useMemo(() => byCause(split.data, (l) => rowKey(l, kBy)), [split.data]);
  const open = useApi<{ histograms: Histogram[] }>(
    apiPath('histograms', { query: withType(asked.query, 'syscall_open'), from: asked.from, to: asked.to, by: [...kBy, 'cause'].join(','), latest: 1 }),
    { refreshMs: asked.live ? kRefreshMs : 0, scope: `syscalls/open/${asked.query}` });
  const inFlight = useMemo(() => openCalls(open.data?.histograms ?? []), [open.data]);
  const rows = useMemo(() => withOpenCalls(reply.data?.histograms, inFlight), [reply.data, inFlight]);
  const nodes = new Set((rows ?? []).map((h) => h.labels.node)).size;
  const columns = useMemo<Column<Histogram>[]>(() => [
    { key: 'who', label: 'Container or service', value: (h) => whose(h.labels), cell: (h) => <>{whose(h.labels)}{nodes > 1 && <small className="faint"> {h.labels.node}</small>}</> },
    { key: 'call', label: 'Call', value: (h) => h.labels.syscall ?? '', cell: (h) => <b title={kCallHelp[h.labels.syscall ?? '']}>{h.labels.syscall}</b>, help: 'Name of the system call' },
    { key: 'count', label: 'Count', numeric: true, value: (h) => h.count, cell: (h) => <span title={count(h.count)}>{short(h.count)}</span>, help: 'How often it was called and returned' },
    { key: 'errors', label: 'Errors', numeric: true, value: (h) => errorsOf(h), cell: (h) => <Errors h={h} />, help: 'Calls that failed, by errno when pointed at' },
    { key: 'p50', label: 'p50', numeric: true, value: (h) => h.p50, cell: (h) => lasted(h, h.p50), help: 'Half of the calls were at least as fast as this' },
    { key: 'p95', label: 'p95', numeric: true, value: (h) => h.p95, cell: (h) => lasted(h, h.p95), help: '95 % of the calls were at least as fast as this' },
    { key: 'p99', label: 'p99', numeric: true, value: (h) => h.p99, cell: (h) => lasted(h, h.p99), help: '99 % of the calls were at least as fast as this' },
    { key: 'max', label: 'Slowest', numeric: true, value: (h) => h.max, cell: (h) => lasted(h, h.max), help: 'The slowest single call' },
    { key: 'sum', label: 'Total time', numeric: true, value: (h) => h.sum, cell: (h) => <b>{lasted(h, h.sum)}</b>, help: 'Time of all these calls together, over all threads. Waiting calls (epoll_wait, futex) are long by nature.' },
    ...(inFlight.size === 0 ? [] : [{ key: 'open', label: 'In flight', numeric: true, value: (h: Histogram) => inFlight.get(rowKey(h.labels, kBy))?.max ?? 0, cell: (h: Histogram) => <InFlight open={inFlight.get(rowKey(h.labels, kBy))} />, help: 'Calls that had not returned when the newest window ended: how many, the age of the oldest, and, where waits are recorded, what most of them wait for. No other column has them yet' }]),
    ...(causes.size === 0 ? [] : [{ key: 'causes', label: 'Spent on', value: (h: Histogram) => h.sum, cell: (h: Histogram) => <CauseBar causes={causes.get(rowKey(h.labels, kBy))} />, help: 'What the total time went to: running, or waiting for what. The parts add up to the total' }]),
  ], [nodes, causes, inFlight]);
  const chosen = parseRow(url.row);
  const chosenOpen = inFlight.get(url.row);
  return (
    <>
      <QueryBar
        type="syscall_latency" types={['syscall_latency']} storeError={reply.error} unit="rate" title="System calls per second"
        counted={(v) => `${short(v)} calls per second`}
        extra={<Help title="What are system calls?" align="right" label="What is this?">
          <p>A program calls the kernel to read files, send packets, wait for events or get memory. Each call is timed from entry to return.</p>
          <p>Long is not always bad: <code>epoll_wait</code> and <code>futex</code> mostly wait for something to happen. A slow <code>read</code>, <code>fsync</code> or <code>openat</code> is worth a look.</p>
          <p>Where the agent runs with <code>--probes cpu,syscalls,tcp,waits</code>, <b>Spent on</b> says what the time of each call went to.</p>
          <p><b>In flight</b> is what has not returned yet: a program that hangs in a call is seen there while it hangs.</p>
          <p>Choose a row for its histogram; choose slow calls there to see the code behind them.</p>
        </Help>}
      />
      {reply.error && reply.error.status !== 400 && reply.error.status !== 401 && <ErrorBox error={reply.error} onRetry={reply.reload} stale={rows !== undefined} />}
      <div className="panel table-panel">
        {!rows ? (reply.error ? null : <Skeleton rows={12} />)
          : rows.length === 0 ? <Waiting status={props.status} what="system calls" filtered={url.q !== ''} onClear={() => go({ q: '' })} />
            : <DataTable columns={columns} rows={rows} keyOf={(h) => rowKey(h.labels, kBy)} sortBy="sum" chosen={url.row} label="System calls"
              onChoose={(row) => go({ row, slow: '', zoom: '', search: '', fn: '' })} />}
      </div>
      {chosen ? (
        <LatencyDetail
          title={`${chosen.syscall ?? 'calls'} in ${whose(chosen)}`} query={withLabels(asked.query, chosen)} asked={asked} stacks causes={causes.get(url.row)}
          note={chosenOpen && <p className="open-calls"><b>{count(chosenOpen.count)}</b> {chosenOpen.count === 1 ? 'call' : 'calls'} had not returned when the newest window ended, the oldest after <b>{duration(chosenOpen.max)}</b>.{chosenOpen.causes.length > 0 && <> So far: {chosenOpen.causes.map(([cause, n], i) => <span key={cause}>{i > 0 && ', '}<i className="swatch" style={{ background: kWaitCauses[cause]?.colour }} /> <span title={kWaitCauses[cause]?.help}>{kWaitCauses[cause]?.label ?? cause}</span> <b>{count(n)}</b></span>)}.</>} The numbers here are of calls that returned.</p>}
          onClose={() => go({ row: '', slow: '' })}
        />
      ) : rows && rows.length > 0 && <p className="choose-hint">Choose a row to see how its times are spread, and which code made the slow calls.</p>}
    </>
  );
}

// Calls of one row that have not returned.
interface OpenCalls {
  labels: Labels;
  count: number;
  max: number; // age of the oldest
  causes: [string, number][]; // what their threads do, where it is known: most first
}

function openCalls(histograms: Histogram[]): Map<string, OpenCalls> {
  const out = new Map<string, OpenCalls>();
  for (const h of histograms) {
    const key = rowKey(h.labels, kBy);
    const row = out.get(key) ?? { labels: h.labels, count: 0, max: 0, causes: [] };
    row.count += h.count;
    row.max = Math.max(row.max, h.max);
    if (h.labels.cause) row.causes.push([h.labels.cause, h.count]);
    row.causes.sort((a, b) => b[1] - a[1]);
    out.set(key, row);
  }
  return out;
}

// Rows of calls that returned, and of those that have not, at all.
function withOpenCalls(returned: Histogram[] | undefined, inFlight: Map<string, OpenCalls>): Histogram[] | undefined {
  if (!returned) return undefined;
  const known = new Set(returned.map((h) => rowKey(h.labels, kBy)));
  const never = [...inFlight].filter(([key]) => !known.has(key));
  return [...returned, ...never.map(([, open]) => ({ labels: open.labels, count: 0, sum: 0, max: 0, p50: 0, p95: 0, p99: 0, mean: 0, errors: {}, buckets: [], exemplars: 0 }))];
}

const lasted = (h: Histogram, ns: number): string => (h.count > 0 ? duration(ns) : '–');

function InFlight(props: { open: OpenCalls | undefined }): JSX.Element {
  const { open } = props;
  if (!open) return <span className="faint">0</span>;
  const most = open.causes[0];
  const info = most && kWaitCauses[most[0]];
  return (
    <span title={`${count(open.count)} had not returned, the oldest after ${duration(open.max)}${open.causes.map(([cause, n]) => `\n${kWaitCauses[cause]?.label ?? cause}: ${count(n)}`).join('')}`}>
      {short(open.count)} <small className="faint">{duration(open.max)}{info && <> · <i className="swatch" style={{ background: info.colour }} /> {info.label}</>}</small>
    </span>
  );
}

const errorsOf = (h: Histogram): number => Object.values(h.errors).reduce((s, n) => s + n, 0);

function Errors(props: { h: Histogram }): JSX.Element {
  const n = errorsOf(props.h);
  if (n === 0) return <span className="faint">0</span>;
  const title = Object.entries(props.h.errors).sort((a, b) => b[1] - a[1]).map(([name, k]) => `${name}: ${count(k)}`).join('\n');
  return <span title={title}>{short(n)} <small className="faint">{percent(n, props.h.count)}</small></span>;
}

const kCallHelp: Record<string, string> = {
  read: 'reads from a file, pipe or socket', write: 'writes to a file, pipe or socket', openat: 'opens a file', close: 'closes a file', futex: 'waits for or wakes another thread (locks)',
  epoll_wait: 'waits for events on many sockets', epoll_pwait: 'waits for events on many sockets', poll: 'waits for events', ppoll: 'waits for events', select: 'waits for events',
  nanosleep: 'sleeps', clock_nanosleep: 'sleeps', fsync: 'waits until a file is safely on disk', fdatasync: 'waits until a file is safely on disk', mmap: 'maps memory or a file',
  munmap: 'gives mapped memory back', connect: 'connects to a peer', accept4: 'takes a new connection', recvmsg: 'receives', sendmsg: 'sends', recvfrom: 'receives', sendto: 'sends',
  wait4: 'waits for a child process', execve: 'starts a program', clone: 'makes a thread or process', ioctl: 'asks a device something', newfstatat: 'looks at a file', statx: 'looks at a file',
  getdents64: 'lists a directory', madvise: 'tells how memory is used', brk: 'grows the heap', sched_yield: 'lets others run', '[folded]': 'rare calls, counted together to bound memory',
};
