// Sessions: measure one thing more closely for a while, on any node.
import { useMemo, useState } from 'react';
import { follow } from '../App';
import { api, apiPath, useApi, type Container, type NodeInfo, type Session } from '../lib/api';
import { clock, dateTime, duration, short, span } from '../lib/format';
import { formatSelector } from '../lib/selector';
import { href, useUrl, type UrlState } from '../lib/url';
import { Bar, ErrorBox, Help, Skeleton, useNow } from '../components/ui';
import { ApiError } from '../lib/api';

function targetText(target: string): string {
  if (target === '' || target === 'all') return 'everything';
  return target.replace(/^container=/, 'container ').replace(/^pid=/, 'process ').replace(/^cgroup=/, 'cgroup ');
}

export function Sessions(props: { nodes: NodeInfo[] }): JSX.Element {
  const [, go] = useUrl();
  const list = useApi<{ sessions: Session[] }>(apiPath('sessions'), { refreshMs: 2000, scope: 'sessions' });
  const containers = useApi<{ containers: Container[] }>(apiPath('containers'), { scope: 'containers' });
  const now = useNow(1000);
  const online = props.nodes.filter((n) => n.online);
  const [node, setNode] = useState('');
  const [target, setTarget] = useState('all');
  const [pid, setPid] = useState('');
  const [what, setWhat] = useState<'cpu' | 'waits' | 'both'>('cpu');
  const [seconds, setSeconds] = useState('30');
  const [rate, setRate] = useState('999');
  const [problem, setProblem] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const chosenNode = node || online[0]?.node || '';
  const names = useMemo(() => [...new Set((containers.data?.containers ?? [])
    .filter((c) => !c.isHost && c.labels['container.name'] && (!c.labels.node || c.labels.node === chosenNode)).map((c) => c.labels['container.name']!))].sort(), [containers.data, chosenNode]);
  const duration_s = Number(seconds), hz = Number(rate);
  const bad = !chosenNode ? 'No node sends at the moment.'
    : !(duration_s >= 1 && duration_s <= 86400) ? 'Choose between 1 and 86400 seconds.'
      : !(hz >= 1 && hz <= 10000) ? 'Choose between 1 and 10000 samples per second.'
        : target === 'pid' && !(Number.isInteger(Number(pid)) && Number(pid) > 0) ? 'Enter the process id (a number).' : '';
  const start = async (): Promise<void> => {
    setBusy(true);
    setProblem(null);
    try {
      await api(apiPath('sessions'), {
        method: 'POST', headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({
          node: chosenNode, durationNs: Math.round(duration_s * 1e9), frequencyHz: hz, probes: what === 'both' ? ['cpu', 'waits'] : [what],
          target: target === 'all' ? {} : target === 'pid' ? { pid: Number(pid) } : { container: target.slice(2) },
        }),
      });
    } catch (e) {
      setProblem(e instanceof ApiError ? e : new ApiError(String(e), 0, 'client', null));
    }
    setBusy(false);
    list.reload();
  };
  const stop = async (id: string): Promise<void> => {
    try {
      await api(apiPath(`sessions/${encodeURIComponent(id)}`), { method: 'DELETE' });
    } catch (e) {
      setProblem(e instanceof ApiError ? e : new ApiError(String(e), 0, 'client', null));
    }
    list.reload();
  };
  const result = (s: Session, type: 'cpu' | 'off_cpu'): Partial<UrlState> => ({
    view: 'flame', q: formatSelector({ type, matchers: [{ name: 'session', op: '=', value: s.id }] }),
    from: String(Math.floor(s.startedMs / 10_000) * 10_000 - 10_000), to: String(Math.ceil((s.startedMs + s.durationNs / 1e6) / 10_000) * 10_000 + 20_000),
    sel: '', live: s.state === 'running', zoom: '', fn: '', search: '', by: '', row: '',
  });
  const sessions = list.data?.sessions;
  return (
    <>
      <section className="panel pad">
        <div className="row-head">
          <h1>Measure more closely</h1>
          <Help title="What is a session?" label="What is this?" align="right">
            <p>The always-on measurement looks about a hundred times per second at each CPU. A session looks more often, at one container or process, for a while. Its samples are kept apart, so nothing is counted twice.</p>
            <p>The same from a terminal: <code>pyrometer session start</code></p>
          </Help>
        </div>
        <form className="session-form" onSubmit={(e) => {
          e.preventDefault();
          if (!bad) void start();
        }}>
          <label className="field"><span>Node</span>
            <select value={chosenNode} onChange={(e) => {
              setNode(e.target.value);
              setTarget('all');
            }}>{online.length === 0 && <option value="">none</option>}{online.map((n) => <option key={n.agentId || n.node} value={n.node}>{n.node}</option>)}</select>
          </label>
          <label className="field"><span>What</span>
            <select value={target} onChange={(e) => setTarget(e.target.value)}>
              <option value="all">everything on the node</option>
              <option value="pid">one process…</option>
              {names.length > 0 && <optgroup label="Container">{names.map((n) => <option key={n} value={`c:${n}`}>{n}</option>)}</optgroup>}
            </select>
          </label>
          {target === 'pid' && <label className="field"><span>Process id</span><input inputMode="numeric" size={8} value={pid} onChange={(e) => setPid(e.target.value)} /></label>}
          <label className="field"><span>Measure</span>
            <select value={what} onChange={(e) => setWhat(e.target.value as typeof what)}>
              <option value="cpu">CPU time</option>
              <option value="waits">waits</option>
              <option value="both">CPU time and waits</option>
            </select>
          </label>
          <label className="field"><span>For</span><input inputMode="numeric" size={5} value={seconds} onChange={(e) => setSeconds(e.target.value)} /><span>seconds</span></label>
          {what !== 'waits' && <label className="field"><span>At</span><input inputMode="numeric" size={5} value={rate} onChange={(e) => setRate(e.target.value)} /><span>samples per second and CPU</span></label>}
          <button type="submit" className="button primary" disabled={Boolean(bad) || busy}>Start</button>
          <span className="faint" role="status">{bad}</span>
        </form>
        {problem && <ErrorBox error={problem} />}
      </section>
      <section className="panel">
        {list.error && list.error.status !== 401 && <ErrorBox error={list.error} onRetry={list.reload} stale={sessions !== undefined} />}
        {!sessions ? (list.error ? null : <Skeleton rows={4} />) : sessions.length === 0 ? (
          <p className="faint pad center">No session yet. Start one above; its flame graph opens from this list.</p>
        ) : (
          <div className="table-scroll data-table">
            <table aria-label="Sessions">
              <thead><tr><th>Started</th><th>Node</th><th>What</th><th>State</th><th className="w-progress">Progress</th><th className="num">Samples</th><th /></tr></thead>
              <tbody>
                {sessions.map((s) => {
                  const ran = s.startedMs > 0 ? Math.min(s.durationNs, Math.max(0, (now - s.startedMs) * 1e6)) : 0;
                  // One that failed in the middle keeps what it had taken.
                  const open = s.state === 'done' || s.state === 'stopped' || s.state === 'running' || (s.state === 'failed' && s.samples > 0);
                  return (
                    <tr key={s.id}>
                      <td title={s.startedMs > 0 ? dateTime(s.startedMs) : ''}>{s.startedMs > 0 ? clock(s.startedMs) : '–'} <small className="faint">{s.id}</small></td>
                      <td>{s.node}</td>
                      <td>{targetText(s.target)}</td>
                      <td><span className={`badge ${s.state === 'done' ? 'ok' : s.state === 'failed' ? 'bad' : s.state === 'stopped' ? '' : 'warn'}`}>{s.state}</span>{s.error && <div className="faint">{s.error}</div>}</td>
                      <td>{s.state === 'running' ? <><Bar part={ran} whole={s.durationNs} /><small className="faint">{duration(Math.max(0, s.durationNs - ran))} to go</small></> : <span className="faint">{span(s.durationNs)}</span>}</td>
                      <td className="num">{short(s.samples)}</td>
                      <td className="num">
                        {open && s.probes.map((p) => {
                          const to = result(s, p === 'cpu' ? 'cpu' : 'off_cpu');
                          return <span key={p}><a className="button small as-link" href={href(to)} onClick={(e) => follow(e, () => go(to))}>{p === 'cpu' ? 'Flame graph' : 'Waits'}</a>{' '}</span>;
                        })}
                        {(s.state === 'running' || s.state === 'pending') && <button type="button" className="button small" onClick={() => void stop(s.id)}>Stop</button>}
                      </td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </div>
        )}
      </section>
    </>
  );
}
