// What the store holds, which nodes send, and what each of their probes can do.
import type { Loaded, NodeInfo, Status } from '../lib/api';
import { ago, bytes, cores, count, dateTime, duration, percent } from '../lib/format';
import { explainReason } from '../lib/reasons';
import { ProbeBadge, probeNote } from '../components/ProbeState';
import { Empty, ErrorBox, Skeleton, Term } from '../components/ui';

export function StatusPage(props: { status: Loaded<Status>; nodes: Loaded<{ nodes: NodeInfo[] }> }): JSX.Element {
  const s = props.status.data;
  const now = s?.nowMs ?? Date.now();
  const nodes = props.nodes.data?.nodes;
  return (
    <div className="status">
      {props.status.error && props.status.error.status !== 401 && <ErrorBox error={props.status.error} onRetry={props.status.reload} stale={s !== undefined} />}
      <section className="panel pad">
        <h1>Store</h1>
        {!s ? <Skeleton rows={3} /> : (
          <dl className="facts">
            <div><dt>Version</dt><dd>{s.version}</dd></div>
            <div><dt>Runs since</dt><dd>{dateTime(s.startedMs)} <span className="faint">({duration((now - s.startedMs) * 1e6)})</span></dd></div>
            <div><dt>Mode</dt><dd>{s.mode === 'up' ? `this machine${s.node ? ` (${s.node})` : ''}` : 'central store'}</dd></div>
            <div><dt>On disk</dt><dd>{bytes(s.store.bytes)}</dd></div>
            <div><dt>Memory</dt><dd>{bytes(s.store.memoryBytes)}</dd></div>
            <div><dt><Term help="Samples stored, all time">Samples</Term></dt><dd>{count(s.store.samples)}</dd></div>
            <div><dt><Term help="Distinct sets of labels, per kind of measurement">Series</Term></dt><dd>{count(s.store.series)}</dd></div>
            <div><dt><Term help="Distinct paths of function calls, each stored once">Stacks</Term></dt><dd>{count(s.store.stacks)}</dd></div>
            <div><dt><Term help="Deliveries from agents that are safely on disk">Batches</Term></dt><dd>{count(s.store.batches)}</dd></div>
            <div><dt>Token</dt><dd>{s.authRequired ? 'required' : 'not required (loopback only)'}</dd></div>
          </dl>
        )}
        <p className="faint">The store’s own counters for Prometheus: <a href="metrics">metrics</a>.</p>
      </section>
      <section className="panel pad">
        <h1>Nodes</h1>
        {props.nodes.error && props.nodes.error.status !== 401 && <ErrorBox error={props.nodes.error} onRetry={props.nodes.reload} stale={nodes !== undefined} />}
        {!nodes ? <Skeleton rows={6} /> : nodes.length === 0 ? (
          <Empty title="No node yet"><p>On each machine, as root: <code>pyrometer agent --store HOST:PORT</code></p></Empty>
        ) : nodes.map((n) => <Node key={n.agentId || n.node} node={n} now={now} />)}
      </section>
    </div>
  );
}

function Node(props: { node: NodeInfo; now: number }): JSX.Element {
  const n = props.node;
  const dropped = Object.entries(n.dropped).filter(([, v]) => v > 0);
  const lost = dropped.reduce((s, [, v]) => s + v, 0);
  return (
    <article className="node-detail">
      <h2>{n.node} {n.online ? <span className="badge ok"><i className="dot" /> sends</span> : <span className="badge bad"><i className="dot" /> silent since {ago(n.lastSeenMs, props.now)}</span>}</h2>
      <dl className="facts">
        <div><dt>Kernel</dt><dd>Linux {n.kernel}</dd></div>
        <div><dt>CPUs</dt><dd>{n.cpus}</dd></div>
        <div><dt>Agent</dt><dd>{n.version} <span className="faint">{n.agentId.slice(0, 8)}</span></dd></div>
        <div><dt><Term help="How often each CPU is looked at">Rate</Term></dt><dd>{n.frequencyHz} per second and CPU</dd></div>
        <div><dt><Term help="What the agent itself takes">Own cost</Term></dt><dd>{cores(n.cpuNsPerS / 1e9)} cores, {bytes(n.rssBytes)}</dd></div>
        <div><dt>Last minute</dt><dd>{count(n.taken)} samples = {count(n.delivered)} delivered + {count(lost)} dropped{lost > 0 && ` (${percent(lost, n.taken)})`}</dd></div>
      </dl>
      {dropped.length > 0 && <ul className="reasons">{dropped.map(([r, v]) => <li key={r}><b>{count(v)}</b><span>{explainReason(r)}</span></li>)}</ul>}
      <table className="probes">
        <thead><tr><th>Probe</th><th>State</th><th>Why, and what to do</th></tr></thead>
        <tbody>
          {n.probes.map((p) => (
            <tr key={p.name}>
              <td><b>{p.name}</b><div className="faint">{kProbes[p.name] ?? ''}</div></td>
              <td><ProbeBadge probe={p} /></td>
              <td><span className={p.state === 'ok' || p.state === 'unused' ? 'faint' : ''}>{probeNote(p)}</span></td>
            </tr>
          ))}
        </tbody>
      </table>
      <p className="faint">All features, effects and remedies of this machine: <code>pyrometer doctor</code></p>
    </article>
  );
}

const kProbes: Record<string, string> = {
  cpu_sampler: 'which functions take CPU time',
  syscall_latency: 'how long system calls take',
  io_uring_latency: 'how long io_uring operations take',
  tcp_latency: 'round-trip times and retransmits',
  process_events: 'programs starting, ending, loading libraries',
  off_cpu: 'where programs wait',
};
