// CPU within seconds: a column per second, 20 ms of it per cell, the stronger the colour the more was running then. Shows
// what sums hide, as a job that runs for a moment every second. Drag to choose a part of it.
import { useLayoutEffect, useMemo, useRef, useState } from 'react';
import { apiPath, useApi, type SubSecond } from '../lib/api';
import { clock, count, span as roundDuration } from '../lib/format';
import { cellAt, cellsFor, strongest, whatIsMissing } from '../lib/seconds';
import { ticks, wholeWindows, type Range } from '../lib/time';
import { RangeNote } from './Timeline';
import { useDark } from './theme';
import { ErrorBox } from './ui';

const kPlot = 150, kAxis = 18, kTop = 4, kLeft = 46, kRight = 8;

export function SecondsMap(props: {
  query: string; from: string; to: string; range: Range; refreshMs: number; selection: Range | null;
  onSelect: (range: Range | null) => void; onZoom: (range: Range) => void; toggle?: JSX.Element;
}): JSX.Element {
  const { range, selection } = props;
  const { stepMs, cellMs } = cellsFor(range);
  const reply = useApi<SubSecond>(
    apiPath('heatmap', { query: props.query, from: props.from, to: props.to, step: `${stepMs}ms`, cell: `${cellMs}ms` }),
    { refreshMs: props.refreshMs, scope: `seconds/${props.query}/${props.from}/${props.to}` });
  const map = reply.data;
  const dark = useDark();
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [drag, setDrag] = useState<{ a: number; b: number } | null>(null);
  const [hover, setHover] = useState<{ x: number; y: number } | null>(null);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => setWidth(box.current!.clientWidth));
    observer.observe(box.current!);
    setWidth(box.current!.clientWidth);
    return () => observer.disconnect();
  }, []);
  const plot = Math.max(1, width - kLeft - kRight), span = range.toMs - range.fromMs;
  const x = (t: number): number => kLeft + ((t - range.fromMs) / span) * plot;
  const timeOf = (px: number): number => range.fromMs + ((Math.min(Math.max(px, kLeft), kLeft + plot) - kLeft) / plot) * span;
  const offsetOf = (py: number): number => ((kTop + kPlot - py) / kPlot) * (map ? map.stepNs / 1e6 : stepMs);
  const peak = useMemo(() => (map ? strongest(map) : 1), [map]);

  useLayoutEffect(() => {
    const c = canvas.current;
    if (!c || width <= 0) return;
    const dpr = window.devicePixelRatio || 1;
    c.width = Math.round(width * dpr);
    c.height = Math.round((kTop + kPlot) * dpr);
    const ctx = c.getContext('2d')!;
    ctx.setTransform(dpr, 0, 0, dpr, 0, 0);
    if (!map) return;
    ctx.fillStyle = dark ? '#ff9a57' : '#c2410c';
    const step = map.stepNs / 1e6;
    for (const column of map.columns) {
      const a = Math.max(kLeft, x(column.t)), b = Math.min(kLeft + plot, x(column.t + step));
      if (b <= a) continue;
      const h = kPlot / column.cells.length;
      column.cells.forEach((n, row) => {
        if (n <= 0) return;
        ctx.globalAlpha = 0.1 + 0.9 * Math.min(1, n / peak);
        ctx.fillRect(a, kTop + kPlot - (row + 1) * h, b - a, h);
      });
    }
    ctx.globalAlpha = 1;
  }, [map, width, dark, range.fromMs, range.toMs, peak]);

  const at = (e: React.PointerEvent): { x: number; y: number } => {
    const r = box.current!.getBoundingClientRect();
    return { x: e.clientX - r.left, y: e.clientY - r.top };
  };
  const near = map && hover && !drag ? cellAt(map, timeOf(hover.x), offsetOf(hover.y)) : null;
  const mark = drag ? { a: Math.min(drag.a, drag.b), b: Math.max(drag.a, drag.b) } : selection ? { a: x(selection.fromMs), b: x(selection.toMs) } : null;
  const missing = map ? whatIsMissing(map) : '';
  const every = map ? map.stepNs / 1e6 : stepMs;
  return (
    <div className="timeline">
      {reply.error && reply.error.status !== 400 && reply.error.status !== 401 && <ErrorBox error={reply.error} onRetry={reply.reload} stale={map !== undefined} />}
      <div
        ref={box} className="timeline-plot seconds-plot"
        onPointerDown={(e) => {
          if (e.button !== 0) return;
          e.currentTarget.setPointerCapture(e.pointerId);
          setDrag({ a: at(e).x, b: at(e).x });
        }}
        onPointerMove={(e) => {
          setHover(at(e));
          if (drag) setDrag({ a: drag.a, b: Math.min(Math.max(at(e).x, kLeft), kLeft + plot) });
        }}
        onPointerUp={() => {
          if (!drag) return;
          setDrag(null);
          const a = Math.min(drag.a, drag.b), b = Math.max(drag.a, drag.b);
          props.onSelect(b - a < 4 ? null : wholeWindows(timeOf(a), timeOf(b)));
        }}
        onPointerLeave={() => setHover(null)} onPointerCancel={() => setDrag(null)}
        onDoubleClick={() => selection && props.onZoom(selection)}
      >
        <canvas
          ref={canvas} style={{ width: '100%', height: kTop + kPlot }} role="img"
          aria-label={`CPU within each ${roundDuration(every * 1e6)}: ${map ? `${count(map.timed)} samples, ${count(map.columns.length)} columns` : 'loading'}`}
        />
        {width > 0 && (
          <svg width={width} height={kTop + kPlot + kAxis} aria-hidden="true">
            {[0, 0.5, 1].map((part) => (
              <text key={part} x={kLeft - 6} y={kTop + kPlot * (1 - part) + (part === 1 ? 9 : part === 0 ? 0 : 4)} className="axis" textAnchor="end">{part === 0 ? '0' : roundDuration(part * every * 1e6)}</text>
            ))}
            <line x1={kLeft} x2={kLeft + plot} y1={kTop + kPlot} y2={kTop + kPlot} className="base" />
            {ticks(range, Math.max(3, Math.floor(plot / 90))).filter((t) => x(t) > kLeft + 20 && x(t) < kLeft + plot - 20).map((t) => (
              <g key={t}>
                <line x1={x(t)} x2={x(t)} y1={kTop + kPlot} y2={kTop + kPlot + 4} className="base" />
                <text x={x(t)} y={kTop + kPlot + kAxis - 3} className="axis" textAnchor="middle">{clock(t, span < 10 * 60_000)}</text>
              </g>
            ))}
            {mark && (
              <g>
                <rect className="veil" x={kLeft} y={0} width={Math.max(0, mark.a - kLeft)} height={kTop + kPlot} />
                <rect className="veil" x={mark.b} y={0} width={Math.max(0, kLeft + plot - mark.b)} height={kTop + kPlot} />
                <line className="edge" x1={mark.a} x2={mark.a} y1={0} y2={kTop + kPlot} />
                <line className="edge" x1={mark.b} x2={mark.b} y1={0} y2={kTop + kPlot} />
              </g>
            )}
          </svg>
        )}
        {map && map.timed === 0 && <div className="timeline-none">{missing || 'Nothing was measured in this range'}</div>}
      </div>
      <RangeNote
        title={`CPU within each ${every === 1000 ? 'second' : roundDuration(every * 1e6)}`} selection={selection} onSelect={props.onSelect} onZoom={props.onZoom} toggle={props.toggle}
        text={near ? `${clock(near.t)} + ${Math.round(near.low)} … ${Math.round(near.high)} ms: ${count(near.n)} ${near.n === 1 ? 'sample' : 'samples'}` : ''}
      />
      {missing && map!.timed > 0 && <p className="seconds-missing" role="status">{missing}</p>}
    </div>
  );
}
