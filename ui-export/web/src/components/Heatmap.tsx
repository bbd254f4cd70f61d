// Latency over time: a column per step, the stronger the colour, the more there were. Drag to choose a part of it.
import { useLayoutEffect, useMemo, useRef, useState } from 'react';
import type { Heatmap } from '../lib/api';
import { clock, count, duration, span as roundDuration } from '../lib/format';
import { decadeTicks, lowestShown } from '../lib/scale';
import { ticks, wholeWindows, type Range } from '../lib/time';
import { useDark } from './theme';

const kHeight = 190, kBottom = 22, kTop = 6, kLeft = 52, kRight = 8;

export interface HeatSelection {
  lowNs: number;
  highNs: number;
  fromMs: number;
  toMs: number;
}

export function HeatmapPlot(props: {
  map: Heatmap; range: Range; selection: [number, number] | null; time: Range | null; onSelect: (s: HeatSelection | null) => void; label: string;
}): JSX.Element {
  const { map, range } = props;
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [drag, setDrag] = useState<{ x0: number; y0: number; x1: number; y1: number } | null>(null);
  const [hover, setHover] = useState<{ x: number; y: number } | null>(null);
  const dark = useDark();
  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => setWidth(box.current!.clientWidth));
    observer.observe(box.current!);
    setWidth(box.current!.clientWidth);
    return () => observer.disconnect();
  }, []);
  const { low, high, peak } = useMemo(() => {
    let h = 0, p = 1;
    for (const c of map.columns) {
      for (const b of c.buckets) {
        if (b[2] <= 0) continue;
        h = Math.max(h, b[1]);
        p = Math.max(p, b[2]);
      }
    }
    return h > 0 ? { low: lowestShown(map.columns.flatMap((c) => c.buckets)) / 1.2, high: h * 1.2, peak: p } : { low: 100, high: 1e9, peak: 1 };
  }, [map]);
  const plotW = Math.max(1, width - kLeft - kRight), plotH = kHeight - kBottom - kTop;
  const logSpan = Math.log(high / low);
  const span = range.toMs - range.fromMs;
  const x = (t: number): number => kLeft + ((t - range.fromMs) / span) * plotW;
  const y = (v: number): number => kTop + plotH * (1 - Math.log(Math.max(v, low) / low) / logSpan);
  const timeOf = (px: number): number => range.fromMs + ((Math.min(Math.max(px, kLeft), kLeft + plotW) - kLeft) / plotW) * span;
  const valueOf = (py: number): number => low * Math.exp((1 - (Math.min(Math.max(py, kTop), kTop + plotH) - kTop) / plotH) * logSpan);
  const stepMs = map.stepNs / 1e6;
  const slack = Math.exp((2 / plotH) * logSpan); // two pixels

  useLayoutEffect(() => {
    const c = canvas.current;
    if (!c || width <= 0) return;
    const dpr = window.devicePixelRatio || 1;
    c.width = Math.round(width * dpr);
    c.height = Math.round(kHeight * dpr);
    const ctx = c.getContext('2d')!;
    ctx.setTransform(dpr, 0, 0, dpr, 0, 0);
    ctx.clearRect(0, 0, width, kHeight);
    ctx.fillStyle = dark ? '#ff9a57' : '#c2410c';
    for (const column of map.columns) {
      const a = Math.max(kLeft, Math.round(x(column.t))), b = Math.min(kLeft + plotW, Math.round(x(column.t + stepMs)));
      if (b <= a) continue;
      for (const [l, h, n] of column.buckets) {
        if (n <= 0) continue;
        const top = Math.floor(y(h)), bottom = Math.ceil(y(l));
        ctx.globalAlpha = 0.16 + 0.84 * (Math.log1p(n) / Math.log1p(peak));
        ctx.fillRect(a, top, Math.max(1, b - a - (b - a > 4 ? 1 : 0)), Math.max(1.5, bottom - top));
      }
    }
    ctx.globalAlpha = 1;
  }, [map, width, dark, range.fromMs, range.toMs, low, high, peak]);

  const at = (e: React.PointerEvent): { x: number; y: number } => {
    const r = box.current!.getBoundingClientRect();
    return { x: e.clientX - r.left, y: e.clientY - r.top };
  };
  const near = hover && !drag ? lookup(map, timeOf(hover.x), valueOf(hover.y), stepMs, slack) : null;
  const brush = drag ? { a: Math.min(drag.x0, drag.x1), b: Math.max(drag.x0, drag.x1), c: Math.min(drag.y0, drag.y1), d: Math.max(drag.y0, drag.y1) }
    : props.selection ? {
      a: Math.max(kLeft, props.time ? x(props.time.fromMs) : kLeft), b: Math.min(kLeft + plotW, props.time ? x(props.time.toMs) : kLeft + plotW),
      c: Math.max(kTop, y(props.selection[1])), d: Math.min(kTop + plotH, y(props.selection[0])),
    } : null;
  return (
    <div className="heatmap">
      <div
        ref={box} className="heatmap-plot selectable"
        onPointerDown={(e) => {
          if (e.button !== 0) return;
          e.currentTarget.setPointerCapture(e.pointerId);
          const p = at(e);
          setDrag({ x0: p.x, y0: p.y, x1: p.x, y1: p.y });
        }}
        onPointerMove={(e) => {
          const p = at(e);
          setHover(p);
          if (drag) setDrag({ ...drag, x1: Math.min(Math.max(p.x, kLeft), kLeft + plotW), y1: Math.min(Math.max(p.y, kTop), kTop + plotH) });
        }}
        onPointerLeave={() => setHover(null)} onPointerCancel={() => setDrag(null)}
        onPointerUp={() => {
          if (!drag) return;
          setDrag(null);
          const small = Math.abs(drag.x1 - drag.x0) < 4 && Math.abs(drag.y1 - drag.y0) < 4;
          if (small) {
            const cell = lookup(map, timeOf(drag.x0), valueOf(drag.y0), stepMs, slack);
            // A click: that cell and everything slower within its column.
            props.onSelect(cell ? { lowNs: cell.low, highNs: Math.ceil(high), fromMs: cell.t, toMs: cell.t + stepMs } : null);
          } else {
            props.onSelect({
              lowNs: Math.floor(valueOf(Math.max(drag.y0, drag.y1))), highNs: Math.ceil(valueOf(Math.min(drag.y0, drag.y1))),
              ...wholeWindows(timeOf(Math.min(drag.x0, drag.x1)), timeOf(Math.max(drag.x0, drag.x1))),
            });
          }
        }}
      >
        <canvas ref={canvas} style={{ width: '100%', height: kHeight }} role="img" aria-label={props.label} />
        {width > 0 && (
          <svg width={width} height={kHeight} aria-hidden="true">
            {decadeTicks(low, high).map((v) => (
              <g key={v}>
                <line x1={kLeft} x2={kLeft + plotW} y1={y(v)} y2={y(v)} className="grid" />
                <text x={kLeft - 6} y={y(v) + 4} className="axis" textAnchor="end">{roundDuration(v)}</text>
              </g>
            ))}
            <line x1={kLeft} x2={kLeft + plotW} y1={kTop + plotH} y2={kTop + plotH} className="base" />
            {ticks(range, Math.max(3, Math.floor(plotW / 90))).filter((t) => x(t) > kLeft + 18 && x(t) < kLeft + plotW - 18).map((t) => <text key={t} x={x(t)} y={kHeight - 6} className="axis" textAnchor="middle">{clock(t, span < 600_000)}</text>)}
            {brush && <rect className="brush" x={brush.a} y={brush.c} width={Math.max(2, brush.b - brush.a)} height={Math.max(2, brush.d - brush.c)} />}
          </svg>
        )}
      </div>
      <div className="plot-note">
        {near ? <><b>{clock(near.t)}, {duration(near.low)} – {duration(near.high)}</b>: {count(near.n)}</> : 'Each column is a moment; the stronger the colour, the more there were. Press or drag to choose.'}
      </div>
    </div>
  );
}

// The cell at a place, or the nearest one within `slack` (a factor): cells are drawn a little larger than they are.
function lookup(map: Heatmap, t: number, v: number, stepMs: number, slack: number): { t: number; low: number; high: number; n: number } | null {
  const column = map.columns.find((c) => t >= c.t && t < c.t + stepMs);
  if (!column) return null;
  let best: { t: number; low: number; high: number; n: number } | null = null, least = slack;
  for (const [low, high, n] of column.buckets) {
    const away = v < low ? low / v : v > high ? v / high : 1;
    if (n <= 0 || away > least) continue;
    best = { t: column.t, low, high, n };
    least = away;
  }
  return best;
}
