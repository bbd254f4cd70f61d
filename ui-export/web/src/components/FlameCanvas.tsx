// The flame graph itself: a canvas that can be pointed at, clicked and driven by keys.
import { useCallback, useEffect, useLayoutEffect, useRef, useState, type KeyboardEvent, type PointerEvent } from 'react';
import { childrenOf, resolveZoom, zoomPath, type FlameGraph } from '../lib/flame';
import { kDark, kLight } from '../lib/colors';
import { FlameRenderer, kRowHeight } from '../lib/render';
import { percent, value } from '../lib/format';
import { useDark } from './theme';
import { FrameTip } from './FrameTip';

export interface FlameCanvasProps {
  graph: FlameGraph;
  zoom: number;
  onZoom: (node: number) => void;
  onPick?: (node: number) => void; // a frame was chosen (click or Enter)
  matches: Uint8Array | null;
  emphasis: Uint8Array | null;
  up: boolean;
  label: string; // for screen readers
  missReasons?: Record<string, number>;
  explain?: (node: number) => string; // what more there is to say of a frame
  onSearchKey?: () => void;
}

declare global {
  interface Window {
    // Read by the browser test to measure redraws; harmless otherwise.
    __pyrometerFlame?: FlameRenderer;
  }
}

export function FlameCanvas(props: FlameCanvasProps): JSX.Element {
  const { graph, zoom, onZoom, matches, emphasis, up } = props;
  const dark = useDark();
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const renderer = useRef<FlameRenderer | null>(null);
  const tip = useRef<HTMLDivElement>(null);
  const [hover, setHover] = useState(-1);
  const [focus, setFocus] = useState(-1);
  const [content, setContent] = useState(0);
  const frame = useRef(0);
  const animation = useRef(0);
  const pointer = useRef({ x: 0, y: 0 });

  const redraw = useCallback(() => {
    if (frame.current === 0) {
      frame.current = requestAnimationFrame(() => {
        frame.current = 0;
        renderer.current?.draw();
      });
    }
  }, []);

  useLayoutEffect(() => {
    renderer.current = new FlameRenderer(canvas.current!);
    window.__pyrometerFlame = renderer.current;
    const measure = (): void => {
      const r = renderer.current!;
      r.resize(box.current!.clientWidth, box.current!.clientHeight, window.devicePixelRatio || 1);
      setContent(r.contentHeight());
      r.draw();
    };
    const observer = new ResizeObserver(measure);
    observer.observe(box.current!);
    measure();
    return () => {
      observer.disconnect();
      cancelAnimationFrame(frame.current);
      cancelAnimationFrame(animation.current);
      frame.current = 0;
    };
  }, []);

  // A new graph or zoom: place the view, gliding there when only the zoom changed.
  const shown = useRef<FlameGraph | null>(null);
  useLayoutEffect(() => {
    const r = renderer.current!;
    const sameGraph = shown.current === graph;
    // Where the keyboard was: the same frame is found again after a refresh.
    const focusPath = shown.current && focus > 0 ? zoomPath(shown.current, focus) : '';
    const pointed = hover >= 0;
    shown.current = graph;
    r.setGraph(graph);
    r.setZoom(zoom);
    const to0 = graph.start[zoom]!, to1 = to0 + Math.max(graph.total[zoom]!, Number.MIN_VALUE);
    cancelAnimationFrame(animation.current);
    setContent(r.contentHeight());
    setHover(-1);
    if (!sameGraph) {
      const again = focusPath ? resolveZoom(graph, focusPath) : 0;
      setFocus(again > 0 ? again : -1);
    }
    if (!sameGraph || matchMedia('(prefers-reduced-motion: reduce)').matches) {
      r.x0 = to0;
      r.x1 = to1;
      r.draw();
      if (pointed && !sameGraph) {
        const at = canvas.current!.getBoundingClientRect();
        setHover(r.hit(pointer.current.x - at.left, pointer.current.y - at.top));
      }
      return;
    }
    const from0 = r.x0, from1 = r.x1, began = performance.now();
    const step = (now: number): void => {
      const t = Math.min(1, Math.max(0, (now - began) / 160));
      const k = 1 - (1 - t) ** 3;
      r.x0 = from0 + (to0 - from0) * k;
      r.x1 = from1 + (to1 - from1) * k;
      r.draw();
      if (t < 1) animation.current = requestAnimationFrame(step);
    };
    animation.current = requestAnimationFrame(step);
  }, [graph, zoom]);

  useLayoutEffect(() => {
    const r = renderer.current!;
    const flipped = r.up !== up;
    r.up = up;
    r.matches = matches;
    r.emphasis = emphasis;
    r.hover = hover;
    r.focus = focus;
    r.setPalette(dark ? kDark : kLight);
    if (flipped) box.current!.scrollTop = up ? box.current!.scrollHeight : 0;
    r.scrollTop = box.current!.scrollTop;
    redraw();
  }, [up, matches, emphasis, hover, focus, dark, content, redraw]);

  useEffect(() => {
    if (up) box.current!.scrollTop = box.current!.scrollHeight;
  }, [graph, up, content]);

  const place = (x: number, y: number): void => {
    const t = tip.current;
    if (!t) return;
    const w = t.offsetWidth, h = t.offsetHeight;
    const left = x + 16 + w > innerWidth - 8 ? Math.max(8, x - w - 12) : x + 16;
    const top = y + 18 + h > innerHeight - 8 ? Math.max(8, y - h - 12) : y + 18;
    t.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  };
  useLayoutEffect(() => place(pointer.current.x, pointer.current.y), [hover]);

  const at = (e: PointerEvent): number => {
    const r = canvas.current!.getBoundingClientRect();
    return renderer.current!.hit(e.clientX - r.left, e.clientY - r.top);
  };

  const reveal = (node: number): void => {
    const r = renderer.current!, b = box.current!;
    const y = r.rowTop(graph.depth[node]!);
    if (y < kRowHeight) b.scrollTop += y - 2 * kRowHeight;
    else if (y > b.clientHeight - 2 * kRowHeight) b.scrollTop += y - b.clientHeight + 3 * kRowHeight;
  };

  const keys = (e: KeyboardEvent): void => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const current = focus >= 0 ? focus : zoom;
    const move = (node: number): void => {
      e.preventDefault();
      if (node < 0) return;
      setFocus(node);
      reveal(node);
    };
    const sideways = (step: number): number => {
      const d = graph.depth[current]!;
      for (let i = graph.levelStart[d]!; i < graph.levelStart[d + 1]!; i++) {
        if (graph.level[i] !== current) continue;
        const next = i + step;
        return next >= graph.levelStart[d]! && next < graph.levelStart[d + 1]! ? graph.level[next]! : -1;
      }
      return -1;
    };
    const deeper = up ? 'ArrowUp' : 'ArrowDown', shallower = up ? 'ArrowDown' : 'ArrowUp';
    if (e.key === deeper) {
      const kids = focus < 0 ? [zoom] : childrenOf(graph, current);
      move(kids.reduce((best, k) => (best < 0 || graph.total[k]! > graph.total[best]! ? k : best), -1));
    } else if (e.key === shallower) move(graph.parent[current]!);
    else if (e.key === 'ArrowLeft') move(sideways(-1));
    else if (e.key === 'ArrowRight') move(sideways(1));
    else if (e.key === 'Enter' || e.key === ' ') {
      e.preventDefault();
      onZoom(current);
      props.onPick?.(current);
    } else if (e.key === 'Escape') {
      e.preventDefault();
      setFocus(-1);
      onZoom(0);
    } else if (e.key === 'Backspace') {
      e.preventDefault();
      onZoom(Math.max(0, graph.parent[zoom]!));
    }
  };

  const spoken = focus >= 0
    ? `${graph.fns.name[graph.fn[focus]!]}, total ${value(graph.total[focus]!, graph.unit)}, ${percent(graph.total[focus]!, graph.total[0]!)}`
    : '';
  return (
    <div className="flame-wrap">
      <div
        ref={box} className="flame-scroll" tabIndex={0} role="application" aria-label={props.label}
        aria-describedby="flame-keys" onKeyDown={keys}
        onScroll={() => {
          renderer.current!.scrollTop = box.current!.scrollTop;
          setHover(-1);
          redraw();
        }}
      >
        <canvas
          ref={canvas} className="flame-canvas" data-frames={graph.fn.length}
          onPointerMove={(e) => {
            pointer.current = { x: e.clientX, y: e.clientY };
            const node = at(e);
            if (node !== hover) setHover(node);
            else place(e.clientX, e.clientY);
          }}
          onPointerLeave={() => setHover(-1)}
          onClick={(e) => {
            const node = at(e as unknown as PointerEvent);
            if (node < 0) return;
            setFocus(-1);
            onZoom(node === zoom ? Math.max(0, graph.parent[node]!) : node);
            props.onPick?.(node);
          }}
        />
        <div style={{ height: Math.max(0, content - (box.current?.clientHeight ?? 0)) }} />
      </div>
      <span id="flame-keys" className="sr-only">
        Arrow keys move between frames, Enter zooms, Escape resets, slash searches. The table beside the graph lists the same functions.
      </span>
      <span className="sr-only" aria-live="polite">{spoken}</span>
      {hover >= 0 && hover < graph.fn.length && (
        <div ref={tip} className="tip frame-tip">
          <FrameTip graph={graph} node={hover} zoom={zoom} missReasons={props.missReasons} explanation={props.explain?.(hover) ?? ''} />
        </div>
      )}
      {focus >= 0 && focus < graph.fn.length && hover < 0 && (
        <div className="focus-line" aria-hidden="true">
          <b>{graph.fns.name[graph.fn[focus]!]}</b> total {value(graph.total[focus]!, graph.unit)} ({percent(graph.total[focus]!, graph.total[0]!)}),
          self {value(graph.self[focus]!, graph.unit)}
        </div>
      )}
    </div>
  );
}

