// Values over time as an area; drag to choose a part of it.
import { useLayoutEffect, useMemo, useRef, useState } from 'react';
import type { SeriesReply } from '../lib/api';
import { clock, cores, dateTime, short, span as roundDuration } from '../lib/format';
import { ticks, wholeWindows, type Range } from '../lib/time';

const kHeight = 84, kAxis = 18, kTop = 8, kLeft = 46;

export function Timeline(props: {
  title: string; range: Range; reply: SeriesReply | undefined; loading: boolean; stepMs: number; selection: Range | null; unit: 'cores' | 'rate';
  counted: (v: number, stepNs: number) => string; onSelect: (range: Range | null) => void; onZoom: (range: Range) => void; toggle?: JSX.Element;
}): JSX.Element {
  const { range, reply, selection, stepMs } = props;
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  const [drag, setDrag] = useState<{ a: number; b: number } | null>(null);
  const [hover, setHover] = useState<number | null>(null);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => setWidth(box.current!.clientWidth));
    observer.observe(box.current!);
    setWidth(box.current!.clientWidth);
    return () => observer.disconnect();
  }, []);

  // Profiles: nanoseconds of CPU per step, so cores. Histograms: number of events per step, so a rate.
  const points = useMemo(() => {
    const sum = new Map<number, number>();
    for (const s of reply?.series ?? []) {
      for (const [t, v] of props.unit === 'rate' ? s.counts ?? s.points : s.points) sum.set(t, (sum.get(t) ?? 0) + v);
    }
    const scale = props.unit === 'cores' ? 1 / (reply?.stepNs || stepMs * 1e6) : 1e9 / (reply?.stepNs || stepMs * 1e6);
    return [...sum].map(([t, v]) => ({ t, v: v * scale })).sort((a, b) => a.t - b.t);
  }, [reply, props.unit, stepMs]);

  const span = range.toMs - range.fromMs;
  const plot = Math.max(1, width - kLeft - 8);
  const x = (t: number): number => kLeft + ((t - range.fromMs) / span) * plot;
  const time = (px: number): number => range.fromMs + (Math.min(Math.max(px - kLeft, 0), plot) / plot) * span;
  const max = niceMax(Math.max(0, ...points.map((p) => p.v)));
  const y = (v: number): number => kTop + (kHeight - kTop - kAxis) * (1 - v / max);
  const bottom = kHeight - kAxis;
  const step = reply ? reply.stepNs / 1e6 : stepMs;
  // Runs of present steps: a gap in the data is a gap in the picture.
  const runs = useMemo(() => {
    const out: { t: number; v: number }[][] = [];
    for (const p of points) {
      const last = out[out.length - 1];
      if (last && p.t - last[last.length - 1]!.t <= step * 1.5) last.push(p);
      else out.push([p]);
    }
    return out;
  }, [points, step]);
  const label = props.unit === 'cores' ? (v: number): string => cores(v) : (v: number): string => short(v);

  const local = (e: React.PointerEvent): number => e.clientX - box.current!.getBoundingClientRect().left;
  const finish = (): void => {
    if (!drag) return;
    const a = Math.min(drag.a, drag.b), b = Math.max(drag.a, drag.b);
    setDrag(null);
    if (b - a < 4) {
      props.onSelect(null);
      return;
    }
    props.onSelect(wholeWindows(time(a), time(b)));
  };
  const near = hover === null ? undefined : points.reduce<{ t: number; v: number } | undefined>(
    (best, p) => (Math.abs(p.t + step / 2 - time(hover)) < Math.abs((best ? best.t : -1e15) + step / 2 - time(hover)) ? p : best), undefined);
  const mark = drag ? { a: Math.min(drag.a, drag.b), b: Math.max(drag.a, drag.b) } : selection ? { a: x(selection.fromMs), b: x(selection.toMs) } : null;
  const keyMove = (e: React.KeyboardEvent): void => {
    if (e.key === 'Escape') props.onSelect(null);
    if (e.key !== 'ArrowLeft' && e.key !== 'ArrowRight') return;
    e.preventDefault();
    const s = selection ?? { fromMs: range.toMs - Math.max(step, span / 10), toMs: range.toMs };
    const d = Math.max(10_000, Math.round(span / 60 / 10_000) * 10_000) * (e.key === 'ArrowLeft' ? -1 : 1);
    props.onSelect(e.shiftKey ? { fromMs: s.fromMs, toMs: Math.max(s.fromMs + 10_000, s.toMs + d) } : { fromMs: s.fromMs + d, toMs: s.toMs + d });
  };
  return (
    <div className="timeline">
      <div
        ref={box} className="timeline-plot" tabIndex={0} role="slider" aria-label={`${props.title}. Drag, or use the arrow keys, to choose a range`}
        aria-valuemin={range.fromMs} aria-valuemax={range.toMs} aria-valuenow={Math.round(selection ? selection.toMs : range.toMs)}
        aria-valuetext={selection ? `${dateTime(selection.fromMs)} to ${clock(selection.toMs)}` : 'whole range'}
        onKeyDown={keyMove}
        onPointerDown={(e) => {
          if (e.button !== 0) return;
          e.currentTarget.setPointerCapture(e.pointerId);
          const px = local(e);
          setDrag({ a: px, b: px });
        }}
        onPointerMove={(e) => {
          const px = local(e);
          setHover(px);
          if (drag) setDrag({ a: drag.a, b: Math.min(Math.max(px, kLeft), kLeft + plot) });
        }}
        onPointerUp={finish} onPointerLeave={() => setHover(null)} onPointerCancel={() => setDrag(null)}
        onDoubleClick={() => selection && props.onZoom(selection)}
      >
        {width > 0 && (
          <svg width={width} height={kHeight} aria-hidden="true">
            {[max, max / 2].map((v) => (
              <g key={v}>
                <line x1={kLeft} x2={kLeft + plot} y1={y(v)} y2={y(v)} className="grid" />
                <text x={kLeft - 6} y={y(v) + 4} className="axis" textAnchor="end">{label(v)}</text>
              </g>
            ))}
            <line x1={kLeft} x2={kLeft + plot} y1={bottom} y2={bottom} className="base" />
            {ticks(range, Math.max(3, Math.floor(plot / 90))).filter((t) => x(t) > kLeft + 20 && x(t) < kLeft + plot - 20).map((t) => (
              <g key={t}>
                <line x1={x(t)} x2={x(t)} y1={bottom} y2={bottom + 4} className="base" />
                <text x={x(t)} y={kHeight - 3} className="axis" textAnchor="middle">{clock(t, span < 10 * 60_000)}</text>
              </g>
            ))}
            {runs.map((run) => {
              const line = run.map((p) => `${x(p.t).toFixed(1)},${y(p.v).toFixed(1)} ${Math.min(x(p.t + step), kLeft + plot).toFixed(1)},${y(p.v).toFixed(1)}`).join(' ');
              const end = Math.min(x(run[run.length - 1]!.t + step), kLeft + plot).toFixed(1);
              return (
                <g key={run[0]!.t}>
                  <polygon className="area" points={`${x(run[0]!.t).toFixed(1)},${bottom} ${line} ${end},${bottom}`} />
                  <polyline className="line" points={line} />
                </g>
              );
            })}
            {mark && (
              <g>
                <rect className="veil" x={kLeft} y={0} width={Math.max(0, mark.a - kLeft)} height={bottom} />
                <rect className="veil" x={mark.b} y={0} width={Math.max(0, kLeft + plot - mark.b)} height={bottom} />
                <line className="edge" x1={mark.a} x2={mark.a} y1={0} y2={bottom} />
                <line className="edge" x1={mark.b} x2={mark.b} y1={0} y2={bottom} />
              </g>
            )}
            {near && !drag && <circle cx={x(near.t + step / 2)} cy={y(near.v)} r="3" className="knob" />}
          </svg>
        )}
        {points.length === 0 && <div className="timeline-none">{props.loading ? '' : 'Nothing was measured in this range'}</div>}
      </div>
      <RangeNote
        title={props.title} selection={selection} onSelect={props.onSelect} onZoom={props.onZoom} toggle={props.toggle}
        text={near ? `${clock(near.t)}: ${props.counted(near.v, step * 1e6)}` : ''}
      />
    </div>
  );
}

// Below a picture of a range: what the pointer is at, else what is chosen.
export function RangeNote(props: {
  title: string; text: string; selection: Range | null; onSelect: (range: Range | null) => void; onZoom: (range: Range) => void; toggle?: JSX.Element;
}): JSX.Element {
  const { selection } = props;
  return (
    <div className={`timeline-note ${props.toggle ? 'with-toggle' : ''}`}>
      {props.toggle}
      <b>{props.title}</b>
      <span>
        {props.text || (selection ? `${dateTime(selection.fromMs)} – ${clock(selection.toMs)} (${roundDuration((selection.toMs - selection.fromMs) * 1e6)})`
          : 'drag to choose a part')}
      </span>
      {selection && (
        <span className="timeline-actions">
          <button type="button" className="button small" onClick={() => props.onZoom(selection)} title="Make this part the whole time line">Enlarge</button>
          <button type="button" className="button small" onClick={() => props.onSelect(null)}>Whole range</button>
        </span>
      )}
    </div>
  );
}

export function niceMax(v: number): number {
  if (!(v > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(v));
  for (const m of [1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10]) if (v <= m * power * 1.0001) return m * power;
  return 10 * power;
}
