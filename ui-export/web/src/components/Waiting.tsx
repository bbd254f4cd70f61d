// No data: say why and what to do. Right after the start that is simply a matter of seconds.
import type { Status } from '../lib/api';
import { span } from '../lib/format';
import { Empty, useNow } from './ui';

export const kWindowMs = 10_000;

export function Waiting(props: { status: Status | undefined; what: string; filtered: boolean; onClear?: () => void }): JSX.Element {
  const now = useNow(1000);
  const s = props.status;
  // The clock of the store and ours may differ; its age when it answered does not.
  const age = s ? s.nowMs - s.startedMs : 0;
  const fresh = s !== undefined && age < 3 * kWindowMs && s.store.samples === 0;
  if (fresh) {
    const left = Math.max(0, Math.ceil((s.startedMs + kWindowMs + 2000 - now) / 1000));
    return (
      <Empty title="No samples yet">
        {left > 0 && left <= 12
          ? <p>The first window arrives 10 s after the start: <b>{left} s</b> to go.</p>
          : <p>The first window arrives any moment now.</p>}
        <p className="faint">Pyrometer looks a hundred times per second at what each CPU is doing, and sends a sum every 10 s.</p>
      </Empty>
    );
  }
  if (s?.mode === 'store' && s.nodes === 0) {
    return (
      <Empty title="No node sends to this store yet">
        <p>On each machine that you want to see, run as root:</p>
        <p><code>pyrometer agent --store HOST:PORT</code></p>
      </Empty>
    );
  }
  if (s !== undefined && s.store.samples === 0) {
    return (
      <Empty title="Nothing has arrived yet">
        <p>Pyrometer runs since {span(Math.round(age / 1000) * 1e9)} and {s.nodes === 1 ? 'one node is' : `${s.nodes} nodes are`} known, but no measurement came in.</p>
        <p className="faint">The <b>Status</b> tab shows which probes work; the terminal or log where Pyrometer runs says what went wrong.</p>
      </Empty>
    );
  }
  return (
    <Empty title={`No ${props.what} here`}>
      {props.filtered
        ? <><p>Nothing in this range matches the selector. Choose a longer range, or</p><p><button type="button" className="button" onClick={props.onClear}>show everything</button></p></>
        : <p>Nothing was measured in this range. Choose a longer one above, or switch on <b>Live</b>.</p>}
    </Empty>
  );
}
