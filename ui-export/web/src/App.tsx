// The page: navigation, range and selector above, one of the views below.
import { useCallback, useEffect, useState, useSyncExternalStore } from 'react';
import { apiPath, isLimited, setToken, tokenStore, useApi, type NodeInfo, type Status } from './lib/api';
import { href, useUrl, type View } from './lib/url';
import { withType } from './lib/selector';
import { applyTheme, rememberTheme, useDark } from './components/theme';
import { Logo, Popover, ThemeButton } from './components/ui';
import { Overview } from './views/Overview';
import { FlamePage } from './views/Flame';
import { Syscalls } from './views/Syscalls';
import { Waits } from './views/Waits';
import { Network } from './views/Network';
import { Sessions } from './views/Sessions';
import { StatusPage } from './views/Status';

const kTabs: { view: View; label: string; title: string }[] = [
  { view: 'overview', label: 'Overview', title: 'What runs where, and how much CPU it takes now' },
  { view: 'flame', label: 'CPU', title: 'Flame graph: which functions take the CPU time' },
  { view: 'syscalls', label: 'System calls', title: 'How long calls into the kernel take' },
  { view: 'waits', label: 'Waits', title: 'Why threads do not run: locks, disks, the network, busy CPUs' },
  { view: 'network', label: 'Network', title: 'Round-trip times to peers, and what slows them down' },
  { view: 'sessions', label: 'Sessions', title: 'Measure one thing more closely for a while' },
  { view: 'status', label: 'Status', title: 'Store, nodes and probes' },
];

// Which type a view asks for; the labels of the selector are kept when changing between views.
const kTypeOf: Partial<Record<View, string>> = { flame: 'cpu', syscalls: 'syscall_latency', waits: 'off_cpu', network: 'tcp_rtt' };

export function App(): JSX.Element {
  const [url, go] = useUrl();
  const dark = useDark();
  useEffect(() => applyTheme(url.theme), [url.theme]);
  const status = useApi<Status>(apiPath('status'), { refreshMs: 10_000, scope: 'status' });
  const nodes = useApi<{ nodes: NodeInfo[] }>(apiPath('nodes'), { refreshMs: 10_000, scope: 'nodes' });
  useEffect(() => {
    const tab = kTabs.find((t) => t.view === url.view)!;
    document.title = `${tab.label}${status.data?.node ? ` · ${status.data.node}` : ''} · Pyrometer`;
  }, [url.view, status.data?.node]);

  // Another question is another place: keep the labels, drop what belongs to the old view.
  const target = useCallback((view: View): Parameters<typeof go>[0] => {
    const type = kTypeOf[view];
    return { view, q: url.q && type ? withType(url.q, type) : url.q, zoom: '', fn: '', row: '', slow: '', search: '', type: '', by: '' };
  }, [url.q]);

  return (
    <div className="page">
      <a className="skip" href="#main">Skip to content</a>
      <header className="head">
        <a className="brand" href={href({ ...target('overview'), q: '' })} onClick={(e) => follow(e, () => go({ ...target('overview'), q: '' }))}>
          <Logo /> Pyrometer
        </a>
        <nav className="tabs" aria-label="Views">
          {kTabs.map((t) => (
            <a
              key={t.view} href={href(target(t.view))} title={t.title} aria-current={url.view === t.view ? 'page' : undefined}
              onClick={(e) => follow(e, () => go(target(t.view)))}
            >
              {t.label}
            </a>
          ))}
        </nav>
        <span className="grow" />
        <NodesBadge nodes={nodes.data?.nodes} unreachable={status.error?.status === 0} store={status.data?.mode === 'store'} />
        <ThemeButton dark={dark} onChange={(theme) => {
          rememberTheme(theme);
          go({ theme }, 'replace');
        }} />
      </header>
      <main id="main" className={`main view-${url.view}`}>
        {url.view === 'overview' && <Overview status={status.data} nodes={nodes} />}
        {url.view === 'flame' && <FlamePage status={status.data} />}
        {url.view === 'syscalls' && <Syscalls status={status.data} />}
        {url.view === 'waits' && <Waits status={status.data} />}
        {url.view === 'network' && <Network status={status.data} />}
        {url.view === 'sessions' && <Sessions nodes={nodes.data?.nodes ?? []} />}
        {url.view === 'status' && <StatusPage status={status} nodes={nodes} />}
      </main>
      <TokenDialog />
    </div>
  );
}

// Plain click: stay in this page. With a modifier the browser opens the link as it always does.
export function follow(e: React.MouseEvent, act: () => void): void {
  if (e.ctrlKey || e.metaKey || e.shiftKey || e.button !== 0) return;
  e.preventDefault();
  act();
}

function NodesBadge(props: { nodes: NodeInfo[] | undefined; unreachable: boolean; store: boolean }): JSX.Element | null {
  const [, go] = useUrl();
  if (props.unreachable) return <span className="badge bad" role="status"><i className="dot" /> Pyrometer does not answer</span>;
  if (!props.nodes) return null;
  const off = props.nodes.filter((n) => !n.online);
  const weak = props.nodes.filter((n) => n.online && n.probes.some(isLimited));
  const dropped = props.nodes.reduce((s, n) => s + Object.values(n.dropped).reduce((a, b) => a + b, 0), 0);
  const kind = off.length || dropped > 0 || weak.length ? 'warn' : 'ok';
  const text = off.length ? `${off.length} of ${props.nodes.length} nodes silent` : weak.length ? 'Some probes degraded' : dropped > 0 ? 'Some samples dropped'
    : props.nodes.length === 0 ? 'No nodes yet' : props.nodes.length === 1 ? 'All probes work' : `${props.nodes.length} nodes, all well`;
  return (
    <Popover className={`badge as-button ${kind}`} label={<><i className="dot" /> {text}</>} align="right" title="State of the measurement" wide>
      {(close) => (
        <>
          <h3>State of the measurement</h3>
          <ul className="plain">
            {props.nodes!.map((n) => (
              <li key={n.agentId || n.node}>
                <b>{n.node}</b> {n.online ? '' : <span className="badge bad">silent</span>}
                {n.probes.filter(isLimited).map((p) => <div key={p.name} className="faint">{p.name}: {p.state}{p.reason && `, ${p.reason}`}</div>)}
              </li>
            ))}
          </ul>
          <button type="button" className="button small" onClick={() => {
            close();
            go({ view: 'status' });
          }}>Details</button>
        </>
      )}
    </Popover>
  );
}

// The store asks for a token (401): ask the person, keep it for this browser tab only.
function TokenDialog(): JSX.Element | null {
  const needed = useSyncExternalStore(tokenStore.subscribe, tokenStore.needed);
  const [text, setText] = useState('');
  if (!needed) return null;
  return (
    <div className="modal" role="dialog" aria-modal="true" aria-labelledby="token-title">
      <form onSubmit={(e) => {
        e.preventDefault();
        setToken(text.trim());
        setText('');
      }}>
        <h2 id="token-title">This store asks for a token</h2>
        <p>Whoever started it chose one with <code>--token-file</code>. It is kept in this browser tab only and sent with each question.</p>
        <label className="field wide"><span>Token</span><input type="password" autoFocus value={text} onChange={(e) => setText(e.target.value)} autoComplete="off" /></label>
        <button type="submit" className="button primary" disabled={!text.trim()}>Continue</button>
      </form>
    </div>
  );
}
