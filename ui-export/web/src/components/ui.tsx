// Small parts used everywhere: help bubbles, popovers, segmented buttons, empty and error states, spark lines.
import { useEffect, useId, useRef, useState, type ReactNode } from 'react';
import type { ApiError } from '../lib/api';

// A button with a bubble. Closes on Escape, on a click elsewhere and when focus leaves.
export function Popover(props: {
  label: ReactNode; title?: string; className?: string; align?: 'left' | 'right'; wide?: boolean; up?: boolean;
  children: ReactNode | ((close: () => void) => ReactNode);
}): JSX.Element {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLSpanElement>(null);
  const id = useId();
  useEffect(() => {
    if (!open) return undefined;
    const away = (e: MouseEvent): void => {
      if (!root.current?.contains(e.target as Node)) setOpen(false);
    };
    const key = (e: globalThis.KeyboardEvent): void => {
      if (e.key !== 'Escape') return;
      e.stopPropagation();
      setOpen(false);
      root.current?.querySelector('button')?.focus();
    };
    document.addEventListener('mousedown', away);
    document.addEventListener('keydown', key, true);
    return () => {
      document.removeEventListener('mousedown', away);
      document.removeEventListener('keydown', key, true);
    };
  }, [open]);
  return (
    <span className="popover" ref={root}>
      <button
        type="button" className={props.className ?? 'button'} aria-expanded={open} aria-controls={id} title={open ? undefined : props.title}
        onClick={() => setOpen(!open)}
      >
        {props.label}
      </button>
      {open && (
        <div id={id} className={`bubble ${props.align === 'right' ? 'bubble-right' : ''} ${props.wide ? 'bubble-wide' : ''} ${props.up ? 'bubble-up' : ''}`}>
          {typeof props.children === 'function' ? props.children(() => setOpen(false)) : props.children}
        </div>
      )}
    </span>
  );
}

export function Help(props: { title: string; children: ReactNode; align?: 'left' | 'right'; label?: string }): JSX.Element {
  return (
    <Popover className="help-button" label={props.label ?? '?'} title={props.title} align={props.align} wide>
      <h3>{props.title}</h3>
      {props.children}
    </Popover>
  );
}

// A word with an explanation on hover and on keyboard focus.
export function Term(props: { help: string; children: ReactNode }): JSX.Element {
  return (
    <span className="term" title={props.help} tabIndex={0} aria-label={`${typeof props.children === 'string' ? props.children : ''}: ${props.help}`}>
      {props.children}
    </span>
  );
}

export function Segments<T extends string>(props: {
  value: T; options: readonly { value: T; label: ReactNode; title?: string }[]; onChange: (value: T) => void; label: string;
}): JSX.Element {
  return (
    <span className="segments" role="group" aria-label={props.label}>
      {props.options.map((o) => (
        <button
          key={o.value} type="button" title={o.title} aria-pressed={o.value === props.value}
          onClick={() => props.onChange(o.value)}
        >
          {o.label}
        </button>
      ))}
    </span>
  );
}

export function Empty(props: { title: string; children?: ReactNode }): JSX.Element {
  return (
    <div className="empty">
      <div className="empty-bars" aria-hidden="true"><i /><i /><i /></div>
      <h2>{props.title}</h2>
      <div>{props.children}</div>
    </div>
  );
}

export function ErrorBox(props: { error: ApiError; onRetry?: () => void; stale?: boolean }): JSX.Element {
  return (
    <div className="error-box" role="alert">
      <b>{props.error.message}</b>
      {props.stale && <span> Showing the last answer.</span>}
      {props.onRetry && <button type="button" className="button" onClick={props.onRetry}>Try again</button>}
    </div>
  );
}

// Placeholder lines of the final height, so that nothing moves when the answer comes.
export function Skeleton(props: { rows: number }): JSX.Element {
  return (
    <div className="skeleton" aria-label="Loading" role="status">
      {Array.from({ length: props.rows }, (_, i) => <i key={i} style={{ width: `${92 - ((i * 37) % 45)}%` }} />)}
    </div>
  );
}

export function Spark(props: { points: { t: number; v: number }[]; width?: number; height?: number; max?: number; label: string }): JSX.Element {
  const { points, width = 120, height = 26 } = props;
  if (points.length < 2) return <svg className="spark" width={width} height={height} role="img" aria-label={`${props.label}: too few values yet`} />;
  const t0 = points[0]!.t, t1 = points[points.length - 1]!.t;
  const max = Math.max(props.max ?? 0, 1e-9, ...points.map((p) => p.v));
  const xy = points.map((p) => `${(((p.t - t0) / (t1 - t0 || 1)) * width).toFixed(1)},${(height - 1.5 - (p.v / max) * (height - 3)).toFixed(1)}`);
  return (
    <svg className="spark" width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={props.label}>
      <polygon points={`0,${height} ${xy.join(' ')} ${width},${height}`} />
      <polyline points={xy.join(' ')} />
    </svg>
  );
}

export function Bar(props: { part: number; whole: number }): JSX.Element {
  const share = props.whole > 0 ? Math.min(1, Math.max(0, props.part / props.whole)) : 0;
  return <span className="bar" aria-hidden="true"><i style={{ width: `${(share * 100).toFixed(2)}%` }} /></span>;
}

export function useNow(everyMs: number): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const t = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(t);
  }, [everyMs]);
  return now;
}

export function Logo(): JSX.Element {
  return (
    <svg className="logo" width="20" height="20" viewBox="0 0 32 32" aria-hidden="true">
      <rect x="3" y="4" width="26" height="7" rx="1.5" fill="#d2521c" />
      <rect x="3" y="13" width="18" height="7" rx="1.5" fill="#e8843a" />
      <rect x="3" y="22" width="9" height="7" rx="1.5" fill="#f3b765" />
    </svg>
  );
}

export function ThemeButton(props: { dark: boolean; onChange: (theme: 'light' | 'dark') => void }): JSX.Element {
  return (
    <button
      type="button" className="icon-button" title={props.dark ? 'Light colours' : 'Dark colours'} aria-label={props.dark ? 'Light colours' : 'Dark colours'}
      onClick={() => props.onChange(props.dark ? 'light' : 'dark')}
    >
      <svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
        {props.dark
          ? <g fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinecap="round"><circle cx="8" cy="8" r="3" /><path d="M8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1" /></g>
          : <path d="M13.5 9.8A6 6 0 0 1 6.2 2.5a6 6 0 1 0 7.3 7.3z" fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinejoin="round" />}
      </svg>
    </button>
  );
}
