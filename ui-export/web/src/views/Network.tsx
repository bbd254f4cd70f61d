// TCP: per container and peer, how far away the other end is and what goes wrong on the way.
import { useMemo } from 'react';
import { apiPath, useApi, type Peer, type Status } from '../lib/api';
import { kLimits, kRetransmitHelp, ranked, total } from '../lib/causes';
import { bytes, count, duration, percent, short } from '../lib/format';
import { withLabels } from '../lib/selector';
import { useUrl } from '../lib/url';
import { CauseBar, CauseLegend } from '../components/CauseBar';
import { DataTable, type Column } from '../components/DataTable';
import { LatencyDetail } from '../components/LatencyDetail';
import { kRefreshMs, QueryBar, useAsked } from '../components/QueryBar';
import { ErrorBox, Help, Skeleton } from '../components/ui';
import { Waiting } from '../components/Waiting';
import { parseRow, rowKey, whose } from './Syscalls';

const time = (v: number | null | undefined): JSX.Element => (v === null || v === undefined ? <span className="faint">–</span> : <>{duration(v)}</>);
const order = (v: number | null | undefined): number => v ?? -1;

// The sum, and the most frequent cause.
function Causes(props: { counts: Readonly<Record<string, number>> }): JSX.Element {
  const list = ranked(props.counts);
  if (list.length === 0) return <span className="faint">0</span>;
  return <span className="warn-text" title={list.map(([c, n]) => `${c}: ${count(n)}`).join('\n')}>{short(total(props.counts))} <small>{list[0]![0]}</small></span>;
}

// What the numbers of a peer say about why it is slow.
function PeerCauses(props: { peer: Peer | undefined }): JSX.Element | null {
  const p = props.peer;
  if (!p) return null;
  const notes: [string, string][] = ranked(p.retransmitsByCause).map(([c, n]) => [`${count(n)} retransmitted: ${c}`, kRetransmitHelp[c] ?? '']);
  if (p.zeroWindows.received) notes.push([`the peer’s window closed ${count(p.zeroWindows.received)} ×`, 'it does not read what we send']);
  if (p.zeroWindows.sent) notes.push([`our window closed ${count(p.zeroWindows.sent)} ×`, 'our program does not read what it is sent']);
  if (p.resets.received) notes.push([`${count(p.resets.received)} resets received`, 'the peer cut connections off, or nobody listens there']);
  if (p.resets.sent) notes.push([`${count(p.resets.sent)} resets sent`, 'we cut connections off, or closed them with data unread']);
  if (p.connectFailures) notes.push([`${count(p.connectFailures)} connections failed`, 'refused, or no answer']);
  if (p.rttP99Ns !== null && p.minRttNs !== null && p.minRttNs > 0 && p.rttP99Ns > 3 * p.minRttNs) {
    notes.push([`p99 is ${Math.round(p.rttP99Ns / p.minRttNs)} × the distance`, 'queues on the way, or a peer that confirms late']);
  }
  return (
    <>
      <CauseLegend causes={p.limitedNs} info={kLimits} what="Connections were held up by:" />
      {notes.length > 0 && <ul className="peer-notes" aria-label="Why it may be slow">{notes.map(([what, why]) => <li key={what}><b>{what}</b> <span className="faint">{why}</span></li>)}</ul>}
    </>
  );
}

export function Network(props: { status: Status | undefined }): JSX.Element {
  const [url, go] = useUrl();
  const asked = useAsked('tcp_rtt', true);
  const reply = useApi<{ peers: Peer[] }>(
    apiPath('peers', { query: asked.query, from: asked.from, to: asked.to }), { refreshMs: asked.live ? kRefreshMs : 0, scope: `peers/${asked.query}` });
  const rows = reply.data?.peers;
  const names = useMemo(() => [...new Set((rows ?? []).flatMap((p) => Object.keys(p.labels)))].sort(), [rows]);
  const columns = useMemo<Column<Peer>[]>(() => [
    { key: 'who', label: 'Container or service', value: (p) => whose(p.labels), cell: (p) => <span className="cut" title={whose(p.labels)}>{whose(p.labels)}</span> },
    {
      key: 'peer', label: 'Peer', value: (p) => p.labels.peer ?? '', help: 'The other end; → we connected to it, ← it connected to us',
      cell: (p) => <><span className="faint" title={p.labels.direction === 'in' ? 'it connected to us' : p.labels.direction === 'out' ? 'we connected to it' : 'the connection is older than the probe'}>{p.labels.direction === 'in' ? '← ' : p.labels.direction === 'out' ? '→ ' : '· '}</span><span className="cut" title={p.labels.peer}>{p.labels.peer}</span></>,
    },
    { key: 'p50', label: 'RTT p50', numeric: true, value: (p) => order(p.rttP50Ns), cell: (p) => <b>{time(p.rttP50Ns)}</b>, help: 'Round-trip time as TCP smooths it: half of the measurements were below' },
    { key: 'p95', label: 'p95', numeric: true, fold: true, value: (p) => order(p.rttP95Ns), cell: (p) => time(p.rttP95Ns), help: '95 % of the measurements were below' },
    { key: 'p99', label: 'p99', numeric: true, value: (p) => order(p.rttP99Ns), cell: (p) => time(p.rttP99Ns), help: '99 % of the measurements were below' },
    { key: 'min', label: 'Min RTT', numeric: true, value: (p) => order(p.minRttNs), cell: (p) => time(p.minRttNs), help: 'The shortest ever seen: the distance without queues' },
    { key: 'connect', label: 'Connect', numeric: true, value: (p) => order(p.connectP50Ns), cell: (p) => time(p.connectP50Ns), help: 'Median time until a new connection was established' },
    { key: 'retransmits', label: 'Retransmits', numeric: true, value: (p) => p.retransmits, cell: (p) => <Causes counts={p.retransmitsByCause} />, help: 'Packets sent again because they were lost or late, with how that was noticed most often' },
    { key: 'resets', label: 'Resets', numeric: true, value: (p) => total(p.resets), cell: (p) => <Causes counts={p.resets} />, help: 'Connections cut off, by us (sent) or by the peer (received)' },
    { key: 'limited', label: 'Held up by', value: (p) => total(p.limitedNs, ['application']), cell: (p) => <CauseBar causes={p.limitedNs} info={kLimits} without={['application']} none="nothing" />, help: 'What kept connections with data to send from sending: the network, the receiver, or our send buffer' },
    { key: 'sent', label: 'Sent', numeric: true, value: (p) => p.bytesSent, cell: (p) => bytes(p.bytesSent) },
    { key: 'received', label: 'Received', numeric: true, value: (p) => p.bytesReceived, cell: (p) => bytes(p.bytesReceived) },
    { key: 'connections', label: 'Opened', numeric: true, value: (p) => p.connections, cell: (p) => short(p.connections), help: 'Connections opened in the range' },
    { key: 'samples', label: 'Measured', numeric: true, fold: true, value: (p) => p.samples, cell: (p) => <span title={count(p.samples)}>{short(p.samples)}</span>, help: 'Number of RTT measurements' },
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
        <LatencyDetail title={`RTT between ${whose(chosen)} and ${chosen.peer ?? 'its peers'}`} query={withLabels(asked.query, chosen)} asked={asked} stacks={false} note={<PeerCauses peer={rows?.find((p) => rowKey(p.labels, names) === url.row)} />} onClose={() => go({ row: '' })} />
      ) : rows && rows.length > 0 && <p className="choose-hint">Choose a row to see how its round-trip times are spread.{lost > 0 && ` ${count(lost)} ${lost === 1 ? 'retransmit' : 'retransmits'} in all (${percent(lost, measured + lost)} of measurements).`}</p>}
    </>
  );
}
