// One row of a latency table, opened: histogram, heat map, and the stacks of slow calls.
import { useEffect, useMemo, useRef, useState, type ReactNode } from 'react';
import { apiPath, useApi, type Exemplar, type Heatmap, type Histogram, type Waker } from '../lib/api';
import { causeOnTop, kWaitCauses, type ByCause } from '../lib/causes';
import { parseFlame, type FlameSource } from '../lib/flame';
import { clock, count, dateTime, duration, percent, shortName } from '../lib/format';
import { resolveRange, stepFor } from '../lib/time';
import { parsePair, useUrl } from '../lib/url';
import { CauseBar, CauseLegend } from './CauseBar';
import { FlameView } from './FlameView';
import { HistogramPlot } from './Histogram';
import { HeatmapPlot } from './Heatmap';
import { kRefreshMs, type Asked } from './QueryBar';
import { ErrorBox, Help, Segments, Skeleton } from './ui';

interface Exemplars {
  exemplars: Exemplar[];
  flame: FlameSource | null;
}

export function LatencyDetail(props: { title: string; query: string; asked: Asked; stacks: boolean; causes?: ByCause; note?: ReactNode; onClose: () => void }): JSX.Element {
  const { query, asked } = props;
  const [url, go] = useUrl();
  const refreshMs = asked.live ? kRefreshMs : 0;
  const hist = useApi<{ histograms: Histogram[] }>(apiPath('histograms', { query, from: asked.from, to: asked.to }), { refreshMs, scope: `h/${query}` });
  const roughNow = useMemo(() => Date.now(), [url.from, url.to]);
  const whole = resolveRange(asked.whole.from, asked.whole.to, roughNow);
  const heat = useApi<Heatmap>(
    apiPath('heatmap', { query, from: asked.whole.from, to: asked.whole.to, step: `${stepFor(whole, 90)}s` }),
    { refreshMs, scope: `m/${query}/${asked.whole.from}/${asked.whole.to}` });
  const range = asked.whole.to === 'now' && heat.loadedMs ? resolveRange(asked.whole.from, 'now', Math.max(roughNow, heat.loadedMs)) : whole;
  const slow = parsePair(url.slow);
  const sel = parsePair(url.sel);
  const h = hist.data?.histograms[0];
  const root = useRef<HTMLElement>(null);
  // Opened by a choice in the table above: it may lie below the fold.
  useEffect(() => root.current?.scrollIntoView({ block: 'nearest', behavior: 'smooth' }), [query]);
  const failed = hist.error ?? heat.error;
  return (
    <section ref={root} className="panel detail" aria-label={props.title}>
      <header className="detail-head">
        <h2>{props.title}</h2>
        {h && <span className="faint">{count(h.count)} measured · p50 <b>{duration(h.p50)}</b> · p95 <b>{duration(h.p95)}</b> · p99 <b>{duration(h.p99)}</b> · slowest <b>{duration(h.max)}</b></span>}
        <span className="grow" />
        <Help title="What am I looking at?" align="right" label="What is this?">
          <p><b>Left:</b> how long the calls took. The axis is logarithmic: each mark is ten times the one before. High bars are common, bars far to the right are slow.</p>
          <p><b>p50, p95, p99:</b> half, 95 % and 99 % of the calls were at least as fast as this.</p>
          <p><b>Right:</b> the same over time; a dark band is what usually happens.</p>
          {props.stacks && <p>Choose a slow part of either picture to see <b>who asked</b>: the code behind those calls. Only some calls are kept with their stack, as examples: of the slowest ones, and a few drawn among all.</p>}
        </Help>
        <button type="button" className="button small" onClick={props.onClose} aria-label="Close">×</button>
      </header>
      {failed && failed.status !== 401 && <ErrorBox error={failed} stale={h !== undefined} />}
      {props.causes && <CauseLegend causes={props.causes} what="Time spent on:" />}
      {props.note}
      <div className="detail-plots">
        <div className="plot-slot">
          {h ? <HistogramPlot
            buckets={h.buckets} label={`Histogram of ${props.title}: half within ${duration(h.p50)}, 99 % within ${duration(h.p99)}`} selection={slow}
            marks={[{ label: 'p50', at: h.p50 }, { label: 'p95', at: h.p95 }, { label: 'p99', at: h.p99 }]}
            onSelect={props.stacks ? (s) => go({ slow: s ? `${s[0]}-${s[1]}` : '' }) : null}
          /> : hist.loading ? <Skeleton rows={5} /> : <p className="faint pad">Nothing in the chosen range.</p>}
        </div>
        <div className="plot-slot">
          {heat.data ? <HeatmapPlot
            map={heat.data} range={range} selection={props.stacks ? slow : null} time={sel ? { fromMs: sel[0], toMs: sel[1] } : null} label={`${props.title} over time`}
            onSelect={(s) => go(s ? { slow: props.stacks ? `${Math.max(0, s.lowNs)}-${s.highNs}` : '', sel: `${Math.round(s.fromMs)}-${Math.round(s.toMs)}` } : { slow: '' })}
          /> : <Skeleton rows={5} />}
        </div>
      </div>
      {h && Object.keys(h.errors).length > 0 && (
        <p className="errors-line">
          <span className="faint">Errors:</span>
          {Object.entries(h.errors).sort((a, b) => b[1] - a[1]).slice(0, 10).map(([name, n]) => <span key={name} className="chip" title={kErrnoHelp[name]}>{name} {count(n)} <small className="faint">{percent(n, h.count)}</small></span>)}
        </p>
      )}
      {props.stacks && h && !slow && (
        <p className="slow-hint">
          <span className="faint">Who made the slow calls?</span>
          <button type="button" className="button small" onClick={() => go({ slow: `${Math.floor(h.p95)}-${Math.ceil(h.max) + 1}`, typical: false })}>slower than p95</button>
          <button type="button" className="button small" onClick={() => go({ slow: `${Math.floor(h.p99)}-${Math.ceil(h.max) + 1}`, typical: false })}>slower than p99</button>
          <span className="faint">And all of them?</span>
          <button type="button" className="button small" onClick={() => go({ slow: `0-${Math.ceil(h.max) + 1}`, typical: true })}>typical calls</button>
        </p>
      )}
      {props.stacks && slow && <SlowCalls query={query} asked={asked} slow={slow} onClear={() => go({ slow: '' })} />}
    </section>
  );
}

function SlowCalls(props: { query: string; asked: Asked; slow: [number, number]; onClear: () => void }): JSX.Element {
  const { asked, slow } = props;
  const [{ typical }, go] = useUrl();
  const [open, setOpen] = useState(-1);
  const kind = typical ? 'drawn' : 'slow';
  const reply = useApi<Exemplars>(
    apiPath('exemplars', { query: props.query, kind, from: asked.from, to: asked.to, minNs: slow[0], maxNs: slow[1], limit: 100 }),
    {
      refreshMs: asked.live ? kRefreshMs : 0, scope: `x/${kind}/${props.query}/${slow.join('-')}`,
      convert: (json) => {
        const r = json as { exemplars: Exemplar[]; flame?: unknown };
        return { exemplars: r.exemplars, flame: r.flame && r.exemplars.length > 0 ? parseFlame(r.flame) : null };
      },
    });
  const list = reply.data?.exemplars ?? [];
  const show = (next: boolean): void => {
    setOpen(-1);
    go({ typical: next });
  };
  return (
    <div className="slow">
      <h2>
        Examples between {duration(slow[0])} and {duration(slow[1])} <span className="faint">{reply.data && `${list.length} kept`}</span>
        <Segments
          label="Which examples" value={kind} onChange={(value) => show(value === 'drawn')}
          options={[{ value: 'slow', label: 'slowest', title: 'The slowest calls of each window' }, { value: 'drawn', label: 'typical', title: 'Drawn among all calls, each standing for many: what usually happens' }]}
        />
        <button type="button" className="button small" onClick={props.onClear}>Clear</button>
      </h2>
      {reply.error && reply.error.status !== 401 && <ErrorBox error={reply.error} onRetry={reply.reload} />}
      {!reply.data ? (reply.error ? null : <Skeleton rows={6} />) : list.length === 0 ? (
        <p className="faint pad">{typical
          ? 'No call of this part was drawn. About two of each kind are drawn in 10 s, fewer where there are many kinds: choose a longer range.'
          : 'No example was kept in this part. Examples are kept of the slowest calls of each window: choose a slower part, a longer range, or typical calls.'}</p>
      ) : (
        <>
          <div className="exemplar-list table-scroll">
            <table aria-label={typical ? 'Calls drawn among all' : 'Examples of slow calls'}>
              <thead><tr><th>When</th><th className="num">Took</th><th title="What the time went to; with --probes cpu,syscalls,tcp,waits">Spent on</th><th>Thread</th><th title="Descriptors by name, numbers and flags; what pointers point to is never read">Call</th><th>In</th>{typical && <th className="num" title="It was drawn with a chance of one in so many">Stands for</th>}</tr></thead>
              <tbody>
                {list.map((e, i) => [
                  <tr key={i} className="row-link" tabIndex={0} aria-expanded={open === i} onClick={() => setOpen(open === i ? -1 : i)} onKeyDown={(k) => {
                    if (k.key === 'Enter' || k.key === ' ') {
                      k.preventDefault();
                      setOpen(open === i ? -1 : i);
                    }
                  }}>
                    <td title={dateTime(e.timeMs)}>{clock(e.timeMs)}</td>
                    <td className="num strong">{duration(e.durationNs)}</td>
                    <td><Mostly exemplar={e} /></td>
                    <td>{e.comm} <small className="faint">{e.tid}</small></td>
                    <td className="ellipsis call" title={e.call}>{e.call || <span className="faint">–</span>}</td>
                    <td className="ellipsis">{whoAsked(e.frames) || <span className="faint">no stack</span>}</td>
                    {typical && <td className="num">{count(e.weight)}</td>}
                  </tr>,
                  open === i && (
                    <tr key={`${i}s`}><td colSpan={typical ? 7 : 6}>
                      <p className="faint">{whichOne(e)}</p>
                      {e.call && <p className="call">{e.call}</p>}
                      <CauseLegend causes={e.splitNs} what="Time spent on:" />
                      {e.waker && <WokenBy waker={e.waker} />}
                      <ol className="stack" aria-label="Stack, innermost first">{e.frames.map((f, k) => <li key={k}>{f}</li>)}</ol>
                    </td></tr>
                  ),
                ])}
              </tbody>
            </table>
          </div>
          {reply.data.flame && <div className="slow-flame"><FlameView source={reply.data.flame} labels={[]} by="" groupHere what={typical ? 'Time of all calls, estimated from those drawn' : 'Waiting time of the slow calls kept as examples'} /></div>}
        </>
      )}
    </div>
  );
}

function whichOne(e: Exemplar): string {
  const drawn = `drawn among all calls, stands for ${count(e.weight)}`;
  if (!e.slow) return `Typical: ${drawn}`;
  return e.weight > 0 ? `One of the slowest; also ${drawn}` : 'One of the slowest';
}

// Who ended the longest wait, and where that was.
function WokenBy(props: { waker: Waker }): JSX.Element {
  const { waker } = props;
  const cause = kWaitCauses[waker.cause]?.label ?? waker.cause;
  return (
    <details className="woken-by" open>
      <summary>
        {waker.comm ? <>Woken by <b>{waker.comm}</b> <small className="faint">{waker.tid}</small></> : <>Woken by <b>an interrupt</b></>}, after {duration(waker.waitNs)} of waiting: {cause}
      </summary>
      <ol className="stack" aria-label="Stack of who woke it, innermost first">{waker.frames.map((f, k) => <li key={k}>{f}</li>)}</ol>
    </details>
  );
}

function Mostly(props: { exemplar: Exemplar }): JSX.Element {
  const { frames, splitNs } = props.exemplar;
  if (Object.keys(splitNs).length > 0) return <CauseBar causes={splitNs} />;
  const cause = causeOnTop(frames);
  return cause ? <span title={cause.help}><i className="swatch" style={{ background: cause.colour }} /> {cause.label}</span> : <span className="faint">–</span>;
}

// The program's side of a stack, innermost first: what lies above the kernel's entry says little about who asked.
function whoAsked(frames: string[]): string {
  frames = causeOnTop(frames) ? frames.slice(1) : frames;
  const entry = frames.findIndex((f) => /^entry_SYSCALL/.test(f));
  const user = entry >= 0 && entry + 1 < frames.length ? frames.slice(entry + 1) : frames;
  return user.slice(0, 5).map((f) => shortName(f)).join(' ‹ ') + (user.length > 5 ? ' ‹ …' : '');
}

const kErrnoHelp: Record<string, string> = {
  EAGAIN: 'nothing to do right now; usual with non-blocking sockets', ENOENT: 'no such file or directory', EINTR: 'interrupted by a signal',
  EACCES: 'permission denied', EPERM: 'not permitted', ETIMEDOUT: 'timed out', EINPROGRESS: 'connection is being made', ECONNRESET: 'the peer reset the connection',
  EPIPE: 'nobody reads the other end any more', EBADF: 'no such file descriptor', EEXIST: 'exists already', ENOTTY: 'not a terminal; usual when a program asks', EINVAL: 'invalid argument',
  ECONNREFUSED: 'nobody listens there', ENODATA: 'no such attribute', ECHILD: 'no child process', EFAULT: 'bad address', ENOSYS: 'this kernel has no such call',
};
