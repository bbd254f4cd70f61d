// Off-CPU: per container why its threads did not run, and the stacks that waited, each ending in its cause.
import { useMemo } from 'react';
import { apiPath, useApi, type Histogram, type Labels, type SeriesReply, type Status } from '../lib/api';
import { byCause, kIdleCauses, kWaitCauses, kWholeRange, total, type ByCause } from '../lib/causes';
import { parseFlame, type FlameSource } from '../lib/flame';
import { cores, count, duration, short } from '../lib/format';
import { withCondition, withLabels, withType } from '../lib/selector';
import { splitBy, useUrl } from '../lib/url';
import { CauseBar, CauseLegend } from '../components/CauseBar';
import { DataTable, type Column } from '../components/DataTable';
import { FlameView } from '../components/FlameView';
import { LatencyDetail } from '../components/LatencyDetail';
import { kRefreshMs, QueryBar, useAsked } from '../components/QueryBar';
import { ErrorBox, Help, Segments, Skeleton } from '../components/ui';
import { ExportMenu } from './Flame';
import { parseRow, rowKey, whose } from './Syscalls';
import { NotRecorded } from '../components/NotRecorded';

const kBy = ['node', 'container.name', 'service'];

interface Row {
  labels: Labels;
  time: ByCause;
  waits: number;
  queue: Histogram | undefined;
}

export function Waits(props: { status: Status | undefined }): JSX.Element {
  const [url, go] = useUrl();
  const asked = useAsked('off_cpu', true);
  const refreshMs = asked.live ? kRefreshMs : 0;
  const range = { from: asked.from, to: asked.to };
  const sums = (type: string): string => apiPath('series', { query: withType(asked.query, type), ...range, step: kWholeRange, by: [...kBy, 'cause'].join(',') });
  const times = useApi<SeriesReply>(sums('off_cpu_time'), { refreshMs, scope: `waits/t/${asked.query}` });
  const counts = useApi<SeriesReply>(sums('waits'), { refreshMs, scope: `waits/c/${asked.query}` });
  const queues = useApi<{ histograms: Histogram[] }>(
    apiPath('histograms', { query: withType(asked.query, 'run_queue_latency'), ...range, by: kBy.join(',') }), { refreshMs, scope: `waits/q/${asked.query}` });
  const rows = useMemo(() => rowsOf(times.data, counts.data, queues.data?.histograms), [times.data, counts.data, queues.data]);
  const nodes = new Set((rows ?? []).map((r) => r.labels.node)).size;
  const hidden = url.idle ? [] : kIdleCauses;
  const columns = useMemo<Column<Row>[]>(() => [
    { key: 'who', label: 'Container or service', value: (r) => whose(r.labels), cell: (r) => <>{whose(r.labels)}{nodes > 1 && <small className="faint"> {r.labels.node}</small>}</> },
    { key: 'time', label: 'Waited', numeric: true, value: (r) => total(r.time, hidden), cell: (r) => <b>{duration(total(r.time, hidden))}</b>, help: 'Time that all its threads together did not run' },
    { key: 'causes', label: 'Because of', value: (r) => total(r.time, hidden), cell: (r) => <CauseBar causes={r.time} without={hidden} />, help: 'Exact sums by cause; point at a bar for all of them' },
    { key: 'p50', label: 'Queue p50', numeric: true, value: (r) => r.queue?.p50 ?? -1, cell: (r) => (r.queue ? duration(r.queue.p50) : '–'), help: 'A thread that is ready to run waits this long for a CPU: half of the times' },
    { key: 'p99', label: 'Queue p99', numeric: true, value: (r) => r.queue?.p99 ?? -1, cell: (r) => (r.queue ? duration(r.queue.p99) : '–'), help: '99 % of the waits for a CPU were at most this long' },
    { key: 'throttled', label: 'Throttled', numeric: true, value: (r) => r.time.throttled ?? 0, cell: (r) => ((r.time.throttled ?? 0) > 0 ? <span className="warn-text">{duration(r.time.throttled!)}</span> : <span className="faint">0</span>), help: "Ready to run, but the container's CPU quota was used up" },
    { key: 'waits', label: 'Waits', numeric: true, value: (r) => r.waits, cell: (r) => <span title={count(r.waits)}>{short(r.waits)}</span>, help: 'How often its threads stopped running' },
  ], [hidden, nodes]);
  const chosen = parseRow(url.row);
  const chosenRow = chosen && rows?.find((r) => rowKey(r.labels, kBy) === url.row);
  const empty = rows?.length === 0;
  return (
    <>
      <QueryBar
        type="off_cpu" types={['off_cpu']} only storeError={times.error} unit="cores" title="Threads waiting, on average"
        counted={(v, step) => `${cores(v)} threads waiting (${duration(v * step)} in all)`}
        extra={<Help title="What are waits?" align="right" label="What is this?">
          <p>A slow program often does not run at all: it waits for a lock, a disk, the network, or for a CPU. A CPU profile does not show that; this does.</p>
          <p>Most threads of most programs idle in <b>poll</b> or <b>timer</b>. That is left out here unless you choose <b>All</b>.</p>
          <p>The sums are exact. The stacks are a fair sample: long waits are always kept, short ones stand for the others like them.</p>
        </Help>}
      />
      {times.error && times.error.status !== 400 && times.error.status !== 401 && <ErrorBox error={times.error} onRetry={times.reload} stale={rows !== undefined} />}
      <div className="panel table-panel">
        {!rows ? (times.error ? null : <Skeleton rows={8} />)
          : empty ? <NotRecorded status={props.status} what="waits" flag="--probes cpu,syscalls,tcp,waits" filtered={url.q !== ''} onClear={() => go({ q: '' })} />
            : <DataTable columns={columns} rows={rows} keyOf={(r) => rowKey(r.labels, kBy)} sortBy="time" chosen={url.row} label="Waits" onChoose={(row) => go({ row, slow: '', zoom: '', fn: '' })} />}
      </div>
      {chosen && chosenRow && <section className="panel pad"><CauseLegend causes={chosenRow.time} what={`What ${whose(chosen)} waited for:`} /></section>}
      {chosen && (
        <LatencyDetail title={`Time ${whose(chosen)} waited for a CPU`} query={withLabels(withType(asked.query, 'run_queue_latency'), chosen)} asked={asked} stacks={false} onClose={() => go({ row: '' })} />
      )}
      {rows && !empty && <WaitFlame asked={asked} query={chosen ? withLabels(asked.query, chosen) : asked.query} refreshMs={refreshMs} whole={chosen ? whose(chosen) : ''} />}
    </>
  );
}

function rowsOf(times: SeriesReply | undefined, counts: SeriesReply | undefined, queues: Histogram[] | undefined): Row[] | undefined {
  if (!times) return undefined;
  const waits = byCause(counts, (l) => rowKey(l, kBy));
  const queue = new Map((queues ?? []).map((h) => [rowKey(h.labels, kBy), h]));
  return [...byCause(times, (l) => rowKey(l, kBy))].map(([key, time]) => ({
    labels: parseRow(key) ?? {}, time, waits: total(waits.get(key) ?? {}), queue: queue.get(key),
  }));
}

function WaitFlame(props: { asked: ReturnType<typeof useAsked>; query: string; refreshMs: number; whole: string }): JSX.Element {
  const [url, go] = useUrl();
  const { asked } = props;
  const type = url.wakers ? 'off_cpu_wakers' : 'off_cpu';
  const busy = url.idle ? props.query : withCondition(props.query, { name: 'cause', op: '!~', value: kIdleCauses.join('|') });
  const query = withType(busy, type);
  const labels = useApi<{ labels: string[] }>(apiPath('labels', { query, ...asked.whole }), { scope: 'labels/off_cpu' });
  const by = splitBy(url.by, labels.data?.labels ?? []);
  const flame = useApi<FlameSource>(
    url.by !== '' || labels.data || labels.error ? apiPath('flame', { query, from: asked.from, to: asked.to, by }) : null,
    { refreshMs: props.refreshMs, scope: `wait-flame/${query}`, convert: parseFlame });
  const options = (
    <>
      <Segments
        value={url.idle ? 'all' : 'busy'} label="Which waits" onChange={(v) => go({ idle: v === 'all', zoom: '' })}
        options={[{ value: 'busy', label: 'Without idling', title: 'Leaves out poll and timer, where threads without work wait' }, { value: 'all', label: 'All', title: 'Every wait' }] as const}
      />
      <Segments
        value={url.wakers ? 'wakers' : 'causes'} label="What stands on the stacks" onChange={(v) => go({ wakers: v === 'wakers', zoom: '' })}
        options={[{ value: 'causes', label: 'Causes', title: 'Stacks that waited; the last frame is the cause' }, { value: 'wakers', label: 'Who woke it', title: 'Above the cause: the stack that ended the wait, for a lock the code that held it' }] as const}
      />
      <ExportMenu asked={{ ...asked, query }} />
    </>
  );
  return (
    <section className="panel wait-flame" aria-label="Stacks that waited">
      <header className="detail-head">
        <h2>Which code waited{props.whole && ` in ${props.whole}`}</h2>
        <span className="grow" />
        {options}
        <span className="cause-keys">{Object.entries(kWaitCauses).filter(([c]) => c !== 'running' && (url.idle || !kIdleCauses.includes(c))).map(([c, i]) => <span key={c} title={i.help}><i className="swatch" style={{ background: i.colour }} /> {i.label}</span>)}</span>
      </header>
      {flame.error && flame.error.status !== 401 && <ErrorBox error={flame.error} onRetry={flame.reload} stale={flame.data !== undefined} />}
      {flame.data && flame.data.sampleNode.length > 0
        ? <div className="wait-flame-body"><FlameView source={flame.data} path={flame.answers} labels={labels.data?.labels ?? []} by={by} groupHere={false} what={`Waiting time of ${query}`} /></div>
        : flame.data ? <p className="faint pad">No stack of a wait was kept in this part of the range{url.idle ? '' : '; threads only idled. Choose All to see where'}.</p>
          : flame.error ? null : <Skeleton rows={8} />}
    </section>
  );
}
