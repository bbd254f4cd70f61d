// The same functions as the graph, as a table: sortable, windowed (only visible rows exist), and linked with the graph.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'react';
import type { FlameGraph, TopRow } from '../lib/flame';
import { fillsOf, kDark, kLight } from '../lib/colors';
import { baseName, percent, shortName, value } from '../lib/format';
import { useDark } from './theme';
import { Term } from './ui';

const kRow = 38;
type Column = 'name' | 'self' | 'total';

export function FunctionTable(props: {
  graph: FlameGraph; rows: TopRow[]; whole: number; matches: Uint8Array | null; chosen: number; picked: { fn: number; count: number };
  onChoose: (fn: number) => void; onCallers: (fn: number) => void;
}): JSX.Element {
  const { graph, matches, whole } = props;
  const [sort, setSort] = useState<{ by: Column; down: boolean }>({ by: 'self', down: true });
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(400);
  const box = useRef<HTMLDivElement>(null);
  const palette = useDark() ? kDark : kLight;
  const fills = useMemo(() => fillsOf(graph.fns), [graph]);

  const rows = useMemo(() => {
    const shown = matches ? props.rows.filter((r) => matches[r.fn] === 1) : props.rows.slice();
    const sign = sort.down ? -1 : 1;
    const name = (r: TopRow): string => graph.fns.name[r.fn]!;
    shown.sort((a, b) => {
      const d = sort.by === 'name' ? (name(a) < name(b) ? -1 : name(a) > name(b) ? 1 : 0) : a[sort.by] - b[sort.by];
      return d !== 0 ? sign * d : b.total - a.total || a.fn - b.fn;
    });
    return shown;
  }, [props.rows, matches, sort, graph]);

  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => setHeight(box.current!.clientHeight));
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);

  // Chosen in the graph: bring the row into view.
  useEffect(() => {
    if (props.picked.fn < 0) return;
    const i = rows.findIndex((r) => r.fn === props.picked.fn);
    if (i < 0) return;
    const y = i * kRow, b = box.current!;
    if (y < b.scrollTop || y > b.scrollTop + b.clientHeight - 3 * kRow) b.scrollTop = Math.max(0, y - b.clientHeight / 3);
  }, [props.picked, rows]);

  const first = Math.max(0, Math.floor(top / kRow) - 8);
  const last = Math.min(rows.length, first + Math.ceil(height / kRow) + 16);
  const head = (by: Column, label: string, help: string): JSX.Element => (
    <th scope="col" className={by === 'name' ? '' : 'num'} aria-sort={sort.by === by ? (sort.down ? 'descending' : 'ascending') : 'none'}>
      <button type="button" className="sort" title={help} onClick={() => setSort({ by, down: sort.by === by ? !sort.down : by !== 'name' })}>
        {label}<span aria-hidden="true">{sort.by === by ? (sort.down ? ' ↓' : ' ↑') : ''}</span>
      </button>
    </th>
  );
  return (
    <div className="table-scroll fn-table" ref={box} onScroll={(e) => setTop(e.currentTarget.scrollTop)} tabIndex={-1}>
      <table aria-rowcount={rows.length + 1} aria-label="Functions with self and total values">
        <colgroup><col /><col className="col-num" /><col className="col-num" /></colgroup>
        <thead>
          <tr>
            {head('name', 'Function', 'Sort by name')}
            {head('self', 'Self', 'Spent in the function itself, not in what it calls. Click to sort.')}
            {head('total', 'Total', 'Spent in the function and in everything it calls. Click to sort.')}
          </tr>
        </thead>
        <tbody>
          {first > 0 && <tr aria-hidden="true" style={{ height: first * kRow }} />}
          {rows.slice(first, last).map((r, i) => {
            const name = graph.fns.name[r.fn]!, module = graph.fns.module[r.fn]!;
            return (
              <tr
                key={r.fn} aria-rowindex={first + i + 2} style={{ height: kRow }}
                className={`${r.fn === props.chosen ? 'chosen' : ''} ${r.fn === props.picked.fn ? 'picked' : ''}`}
              >
                <td><div className="fn-cell">
                  <i className="swatch" style={{ background: palette.fills[fills[r.fn]!] }} />
                  <button type="button" className="fn-name" title={`${name}${module ? `\n${module}` : ''}`} aria-pressed={r.fn === props.chosen} onClick={() => props.onChoose(r.fn)}>
                    <span>{shortName(name)}</span>
                    <small>{module ? baseName(module) : '\u00a0'}</small>
                  </button>
                  <button type="button" className="fn-callers" title="Who calls it, and what it calls" aria-label={`Callers of ${name}`} onClick={() => props.onCallers(r.fn)}>callers</button>
                </div></td>
                <Cell v={r.self} unit={graph.unit} whole={whole} />
                <Cell v={r.total} unit={graph.unit} whole={whole} />
              </tr>
            );
          })}
          {last < rows.length && <tr aria-hidden="true" style={{ height: (rows.length - last) * kRow }} />}
        </tbody>
      </table>
      {rows.length === 0 && <div className="table-none">No function matches. <Term help="Plain text finds any part of a name; /…/ is a regular expression.">How to search</Term></div>}
    </div>
  );
}

function Cell(props: { v: number; unit: string; whole: number }): JSX.Element {
  const share = props.whole > 0 ? Math.min(100, (100 * props.v) / props.whole) : 0;
  return (
    <td className="num meter" style={{ '--share': `${share.toFixed(2)}%` } as React.CSSProperties}>
      <span>{percent(props.v, props.whole)}</span>
      <small>{value(props.v, props.unit)}</small>
    </td>
  );
}
