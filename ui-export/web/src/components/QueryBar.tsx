// Selector, range and time line: the part above every view that asks about a span of time.
import { useMemo, type ReactNode } from 'react';
import { apiPath, useApi, type ApiError, type SeriesReply } from '../lib/api';
import { kPresets, resolveRange, stepFor, type Range } from '../lib/time';
import { tryParse, withType } from '../lib/selector';
import { parsePair, useUrl } from '../lib/url';
import { clock, dateTime } from '../lib/format';
import { SelectorInput } from './SelectorInput';
import { SecondsMap } from './SecondsMap';
import { Timeline } from './Timeline';
import { Help, Segments } from './ui';

export interface Asked {
  query: string; // with type
  from: string; // as the API takes it: the chosen part, or the whole range
  to: string;
  live: boolean;
  whole: { from: string; to: string };
}

// `only`: the view shows this type and no other, whatever the address says.
export function useAsked(defaultType: string, only = false): Asked {
  const [url] = useUrl();
  const sel = parsePair(url.sel);
  const query = url.q === '' ? defaultType : only || tryParse(url.q)?.type === '' ? withType(url.q, defaultType) : url.q;
  return {
    query,
    from: sel ? String(sel[0]) : url.from,
    to: sel ? String(sel[1]) : url.to,
    live: url.live && !sel && url.to === 'now',
    whole: { from: url.from, to: url.to },
  };
}

export const kRefreshMs = 10_000;

export function QueryBar(props: {
  type: string; types: string[]; only?: boolean; storeError?: ApiError; counted: (v: number, stepNs: number) => string; unit: 'cores' | 'rate'; title: string; extra?: ReactNode;
  seconds?: boolean; // samples of this type have a time within their second: that can be shown in place of the time line
}): JSX.Element {
  const [url, go] = useUrl();
  const asked = useAsked(props.type, props.only ?? props.unit === 'rate');
  const roughNow = useMemo(() => Date.now(), [url.from, url.to]);
  const rough = resolveRange(url.from, url.to, roughNow);
  const step = stepFor(rough);
  const series = useApi<SeriesReply>(
    apiPath('series', { query: asked.query, from: url.from, to: url.to, step: `${step}s` }),
    { refreshMs: url.live && url.to === 'now' ? kRefreshMs : 0, scope: `${props.type}/${url.from}/${url.to}/${url.q}` });
  const range: Range = url.to === 'now' && series.loadedMs ? resolveRange(url.from, url.to, Math.max(series.loadedMs, roughNow)) : rough;
  const sel = parsePair(url.sel);
  const preset = url.to === 'now' ? url.from : '';
  const choice = {
    range, selection: sel ? { fromMs: sel[0], toMs: sel[1] } : null,
    onSelect: (s: Range | null) => go({ sel: s ? `${Math.round(s.fromMs)}-${Math.round(s.toMs)}` : '' }),
    onZoom: (s: Range) => go({ from: String(Math.round(s.fromMs)), to: String(Math.round(s.toMs)), sel: '', live: false }),
    toggle: props.seconds ? (
      <Segments
        label="What the time line shows" value={url.seconds ? 'seconds' : 'sums'} onChange={(v) => go({ seconds: v === 'seconds' })}
        options={[
          { value: 'sums', label: 'Sums', title: 'How much, over time' },
          { value: 'seconds', label: 'Within seconds', title: 'When within each second: shows bursts and rhythms that sums hide' },
        ] as const}
      />
    ) : undefined,
  };
  return (
    <div className="query">
      <div className="query-row">
        <SelectorInput
          value={url.q} defaultType={props.type} types={props.types} range={asked.whole} storeError={props.storeError ?? series.error}
          onSubmit={(q) => go({ q, zoom: '', row: '', slow: '' })}
        />
        <Help title="What is a selector?" label="?">
          <p>It says which measurements to show: a kind, and labels that must match.</p>
          <ul>
            <li><code>{props.type}</code> everything</li>
            <li><code>{props.type}{'{container.name="shop"}'}</code> one container</li>
            <li><code>{props.type}{'{node=~"eu-.*",comm!="bash"}'}</code> a pattern, and an exception</li>
          </ul>
          <p>Put the caret between the braces or the quotes and press <kbd>↓</kbd> for what exists. The command line takes the same text.</p>
        </Help>
        <span className="segments" role="group" aria-label="Range">
          {kPresets.map((p) => (
            <button key={p.from} type="button" title={`Show ${p.title}`} aria-pressed={preset === p.from} onClick={() => go({ from: p.from, to: 'now', sel: '' })}>{p.label}</button>
          ))}
        </span>
        <button
          type="button" className={`button live ${asked.live ? 'on' : ''}`} aria-pressed={asked.live}
          title={asked.live ? 'Following: the picture is renewed every 10 s. Press to hold it still.' : 'Held still. Press to follow the newest measurements.'}
          onClick={() => go(asked.live ? { live: false } : { live: true, sel: '', to: 'now', from: url.to === 'now' ? url.from : '-15m' })}
        >
          <i className="dot" /> Live
        </button>
        {props.extra}
      </div>
      {props.seconds && url.seconds
        ? <SecondsMap query={asked.query} from={url.from} to={url.to} refreshMs={url.live && url.to === 'now' ? kRefreshMs : 0} {...choice} />
        : <Timeline
          title={props.title} reply={series.data} loading={series.loading && !series.data} stepMs={step * 1000} unit={props.unit} counted={props.counted} {...choice}
        />}
      <span className="sr-only" aria-live="polite">
        {sel ? `Range ${dateTime(sel[0])} to ${clock(sel[1])}` : `Range ${url.from} to ${url.to}`}
      </span>
    </div>
  );
}
