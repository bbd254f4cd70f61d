// TCP: per container and peer, how far away the other end is and what goes wrong on the way.
import { useMemo } from 'react';
import { apiPath, useApi, type Peer, type Status } from '../lib/api';
import { bytes, count, duration, percent, short } from '../lib/format';
import { withLabels } from '../lib/selector';
import { useUrl } from '../lib/url';
import { DataTable, type Column } from '../components/DataTable';
import { LatencyDetail } from '../components/LatencyDetail';
import { kRefreshMs, QueryBar, useAsked } from '../components/QueryBar';
import { ErrorBox, Help, Skeleton } from '../components/ui';
import { Waiting } from '../components/Waiting';
import { parseRow, rowKey, whose } from './Syscalls';

const time = (v: number | null | undefined): JSX.Element => (v === null || v === undefined ? <span className="faint">–</span> : <>{duration(v)}</>);
const order = (v: number | null | undefined): number => v ?? -1;

export function Network(props: { status: Status | undefined }): JSX.Element {
  const [url, go] = useUrl();
  const asked = useAsked('tcp_rtt', true);
  const reply = useApi<{ peers: Peer[] }>(
    apiPath('peers', { query: asked.query, from: asked.from, to: asked.to }), { refreshMs: asked.live ? kRefreshMs : 0, scope: `peers/${asked.query}` });
  const rows = reply.data?.peers;
  const names = useMemo(() => [...new Set((rows ?? []).flatMap((p) => Object.keys(p.labels)))].sort(), [rows]);
  const columns = useMemo<Column<Peer>[]>(() => [
    { key: 'who', label: 'Container or service', value: (p) => whose(p.labels), cell: (p) => whose(p.labels) },
    {
      key: 'peer', label: 'Peer', value: (p) => p.labels.peer ?? '', help: 'The other end; → we connected to it, ← it connected to us',
      cell: (p) => <><span className="faint" title={p.labels.direction === 'in' ? 'it connected to us' : p.labels.direction === 'out' ? 'we connected to it' : 'the connection is older than the probe'}>{p.labels.direction === 'in' ? '← ' : p.labels.direction === 'out' ? '→ ' : '· '}</span>{p.labels.peer}</>,
    },
    { key: 'p50', label: 'RTT p50', numeric: true, value: (p) => order(p.rttP50Ns), cell: (p) => <b>{time(p.rttP50Ns)}</b>, help: 'Round-trip time as TCP smooths it: half of the measurements were below' },
    { key: 'p95', label: 'p95', numeric: true, value: (p) => order(p.rttP95Ns), cell: (p) => time(p.rttP95Ns), help: '95 % of the measurements were below' },
    { key: 'p99', label: 'p99', numeric: true, value: (p) => order(p.rttP99Ns), cell: (p) => time(p.rttP99Ns), help: '99 % of the measurements were below' },
    { key: 'min', label: 'Min RTT', numeric: true, value: (p) => order(p.minRttNs), cell: (p) => time(p.minRttNs), help: 'The shortest ever seen: the distance without queues' },
    { key: 'connect', label: 'Connect', numeric: true, value: (p) => order(p.connectP50Ns), cell: (p) => time(p.connectP50Ns), help: 'Median time until a new connection was established' },
    { key: 'retransmits', label: 'Retransmits', numeric: true, value: (p) => p.retransmits, cell: (p) => (p.retransmits > 0 ? <span className="warn-text">{short(p.retransmits)}</span> : <span className="faint">0</span>), help: 'Packets sent again because they were lost or late' },
    { key: 'sent', label: 'Sent', numeric: true, value: (p) => p.bytesSent, cell: (p) => bytes(p.bytesSent) },
    { key: 'received', label: 'Received', numeric: true, value: (p) => p.bytesReceived, cell: (p) => bytes(p.bytesReceived) },
    { key: 'connections', label: 'Opened', numeric: true, value: (p) => p.connections, cell: (p) => short(p.connections), help: 'Connections opened in the range' },
    { key: 'samples', label: 'Measured', numeric: true, value: (p) => p.samples, cell: (p) => <span title={count(p.samples)}>{short(p.samples)}</span>, help: 'Number of RTT measurements' },
  ], []);
  const chosen = parseRow(url.row);
  const lost = (rows ?? []).reduce((s, p) => s + p.retransmits, 0), measured = (rows ?? []).reduce((s, p) => s + p.samples, 0);
  return (
    <>
      <QueryBar
        type="tcp_rtt" types={['tcp_rtt']} storeError={reply.error} unit="rate" title="RTT measurements per second" counted={(v) => `${short(v)} measurements per second`}
        extra={<Help title="What is RTT?" align="right" label="What is this?">
          <p><b>Round-trip time</b>: from sending a packet until its receipt is confirmed. It is TCP’s own measurement, read from the kernel; nothing is sent for it.</p>
          <p>Far above <b>min RTT</b> means queues on the way. <b>Retransmits</b> mean loss. A slow <b>connect</b> with a small RTT points at a busy server.</p>
        </Help>}
      />
      {reply.error && reply.error.status !== 400 && reply.error.status !== 401 && <ErrorBox error={reply.error} onRetry={reply.reload} stale={rows !== undefined} />}
      <div className="panel table-panel">
        {!rows ? (reply.error ? null : <Skeleton rows={12} />)
          : rows.length === 0 ? <Waiting status={props.status} what="TCP traffic" filtered={url.q !== ''} onClear={() => go({ q: '' })} />
            : <DataTable columns={columns} rows={rows} keyOf={(p) => rowKey(p.labels, names)} sortBy="p50" chosen={url.row} label="TCP peers" onChoose={(row) => go({ row, slow: '' })} />}
      </div>
      {chosen ? (
        <LatencyDetail title={`RTT between ${whose(chosen)} and ${chosen.peer ?? 'its peers'}`} query={withLabels(asked.query, chosen)} asked={asked} stacks={false} onClose={() => go({ row: '' })} />
      ) : rows && rows.length > 0 && <p className="choose-hint">Choose a row to see how its round-trip times are spread.{lost > 0 && ` ${count(lost)} ${lost === 1 ? 'retransmit' : 'retransmits'} in all (${percent(lost, measured + lost)} of measurements).`}</p>}
    </>
  );
}
