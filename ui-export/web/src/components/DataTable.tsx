// A sortable table whose rows can be chosen. Long ones show the first rows and say how many more there are.
import { useMemo, useState, type ReactNode } from 'react';

export interface Column<Row> {
  key: string;
  label: string;
  help?: string;
  numeric?: boolean;
  fold?: boolean; // left out where the table is narrow: the row's details have it too
  value: (row: Row) => number | string; // for sorting
  cell: (row: Row) => ReactNode;
}

const kFirstRows = 200;

const classOf = (c: { numeric?: boolean; fold?: boolean }): string => `${c.numeric ? 'num' : ''}${c.fold ? ' fold' : ''}`;

export function DataTable<Row>(props: {
  columns: Column<Row>[]; rows: Row[]; keyOf: (row: Row) => string; sortBy: string; chosen: string; onChoose: (key: string) => void; label: string;
}): JSX.Element {
  const [sort, setSort] = useState({ by: props.sortBy, down: true });
  const [limit, setLimit] = useState(kFirstRows);
  const rows = useMemo(() => {
    const column = props.columns.find((c) => c.key === sort.by) ?? props.columns[0]!;
    const sign = sort.down ? -1 : 1;
    return props.rows.slice().sort((a, b) => {
      const x = column.value(a), y = column.value(b);
      return sign * (typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y)));
    });
  }, [props.rows, props.columns, sort]);
  return (
    <div className="table-scroll data-table">
      <table aria-label={props.label}>
        <thead>
          <tr>
            {props.columns.map((c) => (
              <th key={c.key} scope="col" className={classOf(c)} aria-sort={sort.by === c.key ? (sort.down ? 'descending' : 'ascending') : 'none'}>
                <button type="button" className="sort" title={c.help ?? `Sort by ${c.label}`} onClick={() => setSort({ by: c.key, down: sort.by === c.key ? !sort.down : Boolean(c.numeric) })}>
                  {c.label}<span aria-hidden="true">{sort.by === c.key ? (sort.down ? ' ↓' : ' ↑') : ''}</span>
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, limit).map((row) => {
            const key = props.keyOf(row);
            return (
              <tr
                key={key} className={`row-link ${key === props.chosen ? 'chosen' : ''}`} tabIndex={0} aria-selected={key === props.chosen}
                onClick={() => props.onChoose(key === props.chosen ? '' : key)}
                onKeyDown={(e) => {
                  if (e.key === 'Enter' || e.key === ' ') {
                    e.preventDefault();
                    props.onChoose(key === props.chosen ? '' : key);
                  } else if (e.key === 'ArrowDown' || e.key === 'ArrowUp') {
                    e.preventDefault();
                    const to = e.key === 'ArrowDown' ? e.currentTarget.nextElementSibling : e.currentTarget.previousElementSibling;
                    (to as HTMLElement | null)?.focus();
                  }
                }}
              >
                {props.columns.map((c) => <td key={c.key} className={classOf(c)}>{c.cell(row)}</td>)}
              </tr>
            );
          })}
        </tbody>
      </table>
      {rows.length > limit && (
        <div className="table-none"><button type="button" className="button small" onClick={() => setLimit(limit * 5)}>Show {Math.min(rows.length - limit, limit * 4)} more of {rows.length}</button></div>
      )}
    </div>
  );
}
