// What runs where, and how much CPU it takes now. Every row leads to its flame graph.
import { useMemo, useState } from 'react';
import { follow } from '../App';
import { apiPath, isLimited, useApi, type Container, type Labels, type Loaded, type NodeInfo, type Status } from '../lib/api';
import { bytes, cores, count, duration, percent, short, span } from '../lib/format';
import { formatSelector } from '../lib/selector';
import { href, useUrl, type UrlState } from '../lib/url';
import { explainReason } from '../lib/reasons';
import { Bar, ErrorBox, Help, Popover, Skeleton, Spark, Term } from '../components/ui';
import { Waiting } from '../components/Waiting';

interface ContainersReply {
  windowNs: number;
  containers: Container[];
}

export function Overview(props: { status: Status | undefined; nodes: Loaded<{ nodes: NodeInfo[] }> }): JSX.Element {
  const [filter, setFilter] = useState('');
  const reply = useApi<ContainersReply>(apiPath('containers'), { refreshMs: 5000, scope: 'containers' });
  const nodes = props.nodes.data?.nodes ?? [];
  const all = reply.data?.containers;
  const shown = useMemo(() => {
    const want = filter.trim().toLowerCase();
    return (all ?? []).filter((c) => !want || Object.values(c.labels).some((v) => v.toLowerCase().includes(want)));
  }, [all, filter]);
  const total = (all ?? []).reduce((s, c) => s + c.cores, 0);
  const capacity = nodes.filter((n) => n.online).reduce((s, n) => s + n.cpus, 0);
  const containers = shown.filter((c) => !c.isHost), host = shown.filter((c) => c.isHost);
  // One time axis for all little curves; where a row has no step although its node measured, it used no CPU.
  const times = useMemo(() => {
    const of = new Map<string, Set<number>>();
    for (const c of all ?? []) {
      const node = c.labels.node ?? '';
      if (!of.has(node)) of.set(node, new Set());
      for (const p of c.spark) of.get(node)!.add(p.t);
    }
    return new Map([...of].map(([node, set]) => [node, [...set].sort((a, b) => a - b)]));
  }, [all]);
  const sparkMax = Math.max(0.05, ...(all ?? []).flatMap((c) => c.spark.map((p) => p.v)));
  return (
    <div className="overview">
      <div className="overview-head">
        <div>
          <h1>What is using the CPU now</h1>
          <p className="faint">
            {all ? <>{cores(total)} {capacity > 0 ? <>of {capacity} cores busy ({percent(total, capacity)})</> : 'cores busy'}{reply.data && reply.data.windowNs > 0 && <>, over the last {span(reply.data.windowNs)}</>}. Choose a row to see which functions.</>
              : 'Asking the store…'}
          </p>
        </div>
        <span className="grow" />
        <Help title="What am I looking at?" align="right" label="What am I looking at?">
          <p><b>Cores</b> is CPU time per second: 1.00 means one CPU fully busy. It is measured by sampling, so very small values are rough.</p>
          <p><b>Containers</b> are named by their runtime (Docker, containerd, Kubernetes, …). Everything else on the machine is grouped by its service below them.</p>
          <p>Press a row for its <b>flame graph</b>, or its system calls and network on the right.</p>
        </Help>
        <label className="field"><span className="sr-only">Filter</span>
          <input type="search" className="text-input" placeholder="Filter by name, image, pod…" value={filter} onChange={(e) => setFilter(e.target.value)} />
        </label>
      </div>
      {nodes.length > 0 && <div className="node-cards">{nodes.map((n) => <NodeCard key={n.agentId || n.node} node={n} used={(all ?? []).filter((c) => c.labels.node === n.node).reduce((s, c) => s + c.cores, 0)} />)}</div>}
      {reply.error && reply.error.status !== 401 && <ErrorBox error={reply.error} onRetry={reply.reload} stale={all !== undefined} />}
      {!all ? <div className="panel"><Skeleton rows={10} /></div>
        : all.length === 0 ? <div className="panel"><Waiting status={props.status} what="CPU samples" filtered={false} /></div>
          : (
            <div className="panel table-panel">
              <table className="overview-table">
                <colgroup><col /><col className="w-labels" /><col className="w-spark" /><col className="w-cores" /><col className="w-share" /><col className="w-sys" /><col className="w-rtt" /></colgroup>
                <thead>
                  <tr>
                    <th>Container or service</th><th>Labels</th><th>Last minutes</th>
                    <th className="num"><Term help="CPU time per second: 1.00 = one CPU fully busy">Cores</Term></th>
                    <th><Term help="Share of all CPU time now in use">Share</Term></th>
                    <th className="num"><Term help="Calls into the kernel in the window shown; press for their latency">System calls</Term></th>
                    <th className="num"><Term help="Round-trip time of its TCP connections: half of the packets are answered faster than this">RTT p50</Term></th>
                  </tr>
                </thead>
                <tbody>
                  <GroupHead label="Containers" rows={containers} none={filter ? 'No container matches.' : 'No containers run here.'} />
                  {containers.map((c) => <Row key={keyOf(c)} c={c} total={total} sparkMax={sparkMax} times={times.get(c.labels.node ?? '') ?? []} manyNodes={nodes.length > 1} />)}
                  <GroupHead label="Processes of the host, by service" rows={host} none={filter ? 'No service matches.' : 'None seen.'} />
                  {host.map((c) => <Row key={keyOf(c)} c={c} total={total} sparkMax={sparkMax} times={times.get(c.labels.node ?? '') ?? []} manyNodes={nodes.length > 1} />)}
                </tbody>
              </table>
            </div>
          )}
    </div>
  );
}

const keyOf = (c: Container): string => `${c.labels.node}/${c.labels['container.id'] ?? ''}/${c.labels['container.name'] ?? ''}/${c.labels.service ?? ''}/${c.isHost}`;

function GroupHead(props: { label: string; rows: Container[]; none: string }): JSX.Element {
  const sum = props.rows.reduce((s, c) => s + c.cores, 0);
  return (
    <tr className="group-head">
      <th colSpan={2} scope="rowgroup">{props.label} <span className="faint">{props.rows.length === 0 ? props.none : props.rows.length}</span></th>
      <td className="group-gap" />
      <td className="num">{props.rows.length > 0 && cores(sum)}</td>
      <td colSpan={3} />
    </tr>
  );
}

// The labels that name a row, as a selector of the given type.
export function selectorOf(labels: Labels, type: string, isHost: boolean, manyNodes: boolean): string {
  const matchers: { name: string; op: '='; value: string }[] = [];
  const add = (name: string): void => void (labels[name] && matchers.push({ name, op: '=', value: labels[name]! }));
  if (manyNodes) add('node');
  if (isHost) {
    matchers.push({ name: 'container.id', op: '=', value: '' });
    matchers.push({ name: 'service', op: '=', value: labels.service ?? '' });
  } else if (labels['container.name']) add('container.name');
  else add('container.id');
  return formatSelector({ type, matchers });
}

const kExtraLabels = ['pod', 'namespace', 'image', 'runtime'] as const;

function Row(props: { c: Container; total: number; sparkMax: number; times: number[]; manyNodes: boolean }): JSX.Element {
  const { c } = props;
  const [, go] = useUrl();
  const name = (c.isHost ? c.labels.service : c.labels['container.name'] || c.labels['container.id']?.slice(0, 12)) || 'host';
  const to = (view: UrlState['view'], type: string): Partial<UrlState> => ({ view, q: selectorOf(c.labels, type, c.isHost, props.manyNodes), zoom: '', row: '', fn: '', search: '' });
  const known = new Map(c.spark.map((p) => [p.t, p.v]));
  const filled = props.times.map((t) => ({ t, v: known.get(t) ?? 0 }));
  const flame = to('flame', 'cpu');
  const open = (e: React.MouseEvent, change: Partial<UrlState>): void => follow(e, () => go(change));
  return (
    <tr className="row-link" onClick={(e) => (e.target as HTMLElement).closest('a,button') || go(flame)}>
      <td className="name-cell">
        <a href={href(flame)} onClick={(e) => open(e, flame)} title={`Flame graph of ${name}`}>{name}</a>
        {props.manyNodes && <small className="faint"> {c.labels.node}</small>}
      </td>
      <td className="labels-cell"><div>
        {kExtraLabels.map((l) => c.labels[l] && c.labels[l] !== name && <span key={l} className="chip" title={`${l}: ${c.labels[l]}`}>{c.labels[l]!.replace(/^docker\.io\/(library\/)?/, '')}</span>)}
        {!c.isHost && c.labels.service && c.labels.service !== name && <span className="chip" title={`service: ${c.labels.service}`}>{c.labels.service}</span>}
      </div></td>
      <td><Spark points={filled} max={props.sparkMax / 4} width={116} label={`CPU of ${name} over the last minutes`} /></td>
      <td className="num strong">{cores(c.cores)}</td>
      <td><Bar part={c.cores} whole={props.total} /></td>
      <td className="num">{c.syscalls > 0 ? <a href={href(to('syscalls', 'syscall_latency'))} onClick={(e) => open(e, to('syscalls', 'syscall_latency'))} title="Latency of its system calls">{short(c.syscalls)}</a> : <span className="faint">–</span>}</td>
      <td className="num">{c.rttP50Ns !== null && c.rttP50Ns !== undefined ? <a href={href(to('network', 'tcp_rtt'))} onClick={(e) => open(e, to('network', 'tcp_rtt'))} title="Its network peers">{duration(c.rttP50Ns)}</a> : <span className="faint">–</span>}</td>
    </tr>
  );
}

function NodeCard(props: { node: NodeInfo; used: number }): JSX.Element {
  const { node: n, used } = props;
  const dropped = Object.entries(n.dropped).filter(([, v]) => v > 0);
  const lost = dropped.reduce((s, [, v]) => s + v, 0);
  const weak = n.probes.filter(isLimited);
  const working = n.probes.filter((p) => p.state === 'ok').length;
  return (
    <div className={`node-card ${n.online ? '' : 'offline'}`}>
      <div className="node-name">
        <b>{n.node}</b>
        <span className="faint">{n.cpus} CPUs · Linux {n.kernel}</span>
      </div>
      <div className="node-use">
        <span><b>{cores(used)}</b> <span className="faint">of {n.cpus} cores</span></span>
        <Bar part={used} whole={n.cpus} />
      </div>
      <div className="node-badges">
        {!n.online && <span className="badge bad">silent</span>}
        <Popover className={`badge as-button ${lost > 0 ? 'warn' : 'ok'}`} wide title="Samples in the last minute"
          label={lost > 0 ? `${percent(lost, n.taken)} of samples dropped` : `${short(n.taken)} samples, none dropped`}>
          <h3>Samples of the last minute</h3>
          <p>{count(n.taken)} taken = {count(n.delivered)} delivered + {count(lost)} dropped.</p>
          {dropped.length > 0 && <ul className="reasons">{dropped.map(([r, v]) => <li key={r}><b>{count(v)}</b><span>{explainReason(r)}</span></li>)}</ul>}
          <p className="faint">Rate: {n.frequencyHz} per second and CPU. The agent itself takes {cores(n.cpuNsPerS / 1e9)} cores and {bytes(n.rssBytes)} of memory.</p>
        </Popover>
        <Popover className={`badge as-button ${weak.length ? 'warn' : 'ok'}`} wide align="right" title="Which measurements work"
          label={weak.length ? `${weak.length} of ${n.probes.length} probes limited` : `${working} probes work`}>
          <h3>Probes</h3>
          <ul className="plain">
            {n.probes.map((p) => <li key={p.name}><span className={`badge ${p.state === 'ok' ? 'ok' : !isLimited(p) ? '' : p.state === 'off' ? 'bad' : 'warn'}`}>{p.state}</span> <b>{p.name}</b>{p.reason && <div className="faint">{p.reason}</div>}</li>)}
          </ul>
        </Popover>
      </div>
    </div>
  );
}
