// A latency histogram on a logarithmic axis. Drag over a part of it to choose those calls.
//
// The store's buckets are log-linear, so their widths on this axis differ: heights are counts per width (a density),
// which keeps the shape true. The tip tells the plain count.
import { useLayoutEffect, useMemo, useRef, useState } from 'react';
import type { Bucket } from '../lib/api';
import { count, duration, percent, span } from '../lib/format';
import { decadeTicks, logScale, lowestShown } from '../lib/scale';

const kHeight = 190, kBottom = 22, kTop = 22, kLeft = 10, kRight = 14;
const kLabelHalf = 10; // with kRight as much as half of the widest label on the axis: "100 ms"

export function HistogramPlot(props: {
  buckets: Bucket[]; marks: { label: string; at: number }[]; selection: [number, number] | null; onSelect: ((range: [number, number] | null) => void) | null; label: string;
}): JSX.Element {
  const { buckets, selection } = props;
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
  const filled = useMemo(() => buckets.filter((b) => b[2] > 0), [buckets]);
  const low = Math.max(1, lowestShown(filled) / 1.25), high = Math.max(...filled.map((b) => b[1])) * 1.25;
  const plot = Math.max(1, width - kLeft - kRight);
  const scale = logScale(filled.length ? low : 100, filled.length ? high : 1e9, kLeft, plot);
  const total = filled.reduce((s, b) => s + b[2], 0);
  const bars = filled.map(([l, h, n]) => {
    const a = scale.x(Math.max(l, low)), b = Math.max(scale.x(h), a + 0.5);
    return { l, h, n, a, b, density: n / (b - a) };
  });
  const peak = Math.max(1e-9, ...bars.map((b) => b.density));
  const base = kHeight - kBottom;
  const near = hover === null ? undefined : bars.find((b) => hover >= b.a - 1 && hover <= b.b + 1);
  const chosen = drag ? ([Math.min(drag.a, drag.b), Math.max(drag.a, drag.b)] as const)
    : selection ? ([scale.x(Math.max(selection[0], low)), scale.x(Math.min(selection[1], high))] as const) : null;
  const inChosen = selection ? filled.filter((b) => b[1] > selection[0] && b[0] < selection[1]).reduce((s, b) => s + b[2], 0) : 0;
  const local = (e: React.PointerEvent): number => e.clientX - box.current!.getBoundingClientRect().left;
  return (
    <div className="histogram">
      <div
        ref={box} className={`histogram-plot ${props.onSelect ? 'selectable' : ''}`}
        onPointerDown={(e) => {
          if (!props.onSelect || e.button !== 0) return;
          e.currentTarget.setPointerCapture(e.pointerId);
          setDrag({ a: local(e), b: local(e) });
        }}
        onPointerMove={(e) => {
          setHover(local(e));
          if (drag) setDrag({ ...drag, b: Math.min(Math.max(local(e), kLeft), kLeft + plot) });
        }}
        onPointerLeave={() => setHover(null)} onPointerCancel={() => setDrag(null)}
        onPointerUp={() => {
          if (!drag) return;
          const a = Math.min(drag.a, drag.b), b = Math.max(drag.a, drag.b);
          setDrag(null);
          if (b - a >= 4) props.onSelect!([Math.max(0, Math.floor(scale.value(a))), Math.ceil(scale.value(b))]);
          else {
            // A click: that bar and everything slower.
            const bar = bars.find((r) => a >= r.a - 2 && a <= r.b + 2);
            props.onSelect!(bar ? [bar.l, Math.ceil(bars[bars.length - 1]!.h)] : null);
          }
        }}
      >
        {width > 0 && (
          <svg width={width} height={kHeight} role="img" aria-label={props.label}>
            {decadeTicks(low, high).map((t) => (
              <g key={t}>
                <line x1={scale.x(t)} x2={scale.x(t)} y1={kTop} y2={base} className="grid" />
                <text x={Math.min(scale.x(t), kLeft + plot - kLabelHalf)} y={kHeight - 6} className="axis" textAnchor="middle">{span(t)}</text>
              </g>
            ))}
            <line x1={kLeft} x2={kLeft + plot} y1={base} y2={base} className="base" />
            {bars.map((b) => {
              const h = Math.max(1.5, (b.density / peak) * (base - kTop - 4));
              const on = !chosen || (b.b > chosen[0] && b.a < chosen[1]);
              return <rect key={b.l} x={b.a} y={base - h} width={Math.max(0.8, b.b - b.a - (b.b - b.a > 3 ? 0.6 : 0))} height={h} className={on ? 'hbar' : 'hbar off'} />;
            })}
            {chosen && <rect x={chosen[0]} y={kTop} width={Math.max(1, chosen[1] - chosen[0])} height={base - kTop} className="brush" />}
            {placeMarks(props.marks.filter((m) => m.at >= low && m.at <= high).map((m) => ({ ...m, x: scale.x(m.at) }))).map((m) => (
              <g key={m.label}>
                <line x1={m.x} x2={m.x} y1={14} y2={base} className="mark" />
                <text x={m.textX} y={11} className="mark-text" textAnchor={m.anchor}>{m.label}</text>
              </g>
            ))}
          </svg>
        )}
      </div>
      <div className="plot-note">
        {near ? <><b>{duration(near.l)} – {duration(near.h)}</b>: {count(near.n)} ({percent(near.n, total)})</>
          : selection ? <><b>{duration(selection[0])} – {duration(selection[1])}</b>: {count(inChosen)} of {count(total)} ({percent(inChosen, total)})</>
            : props.onSelect ? 'Press a bar to choose it and everything slower, or drag.' : 'Point at a bar for its count.'}
      </div>
    </div>
  );
}

// Labels above the marks must not cover each other: the later one moves to the free side.
function placeMarks(marks: { label: string; at: number; x: number }[]): { label: string; x: number; textX: number; anchor: 'start' | 'middle' | 'end' }[] {
  const sorted = marks.sort((a, b) => a.x - b.x);
  let free = -Infinity;
  return sorted.map((m) => {
    const w = m.label.length * 7;
    const left = Math.max(free, m.x - w / 2);
    free = left + w + 6;
    return { label: m.label, x: m.x, textX: left, anchor: 'start' as const };
  });
}
