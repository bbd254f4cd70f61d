// Shares by cause: a bar with the largest one in words (tables), or with all of them as a legend (details).
import { duration, percent } from '../lib/format';
import { kWaitCauses, ranked, total, type ByCause } from '../lib/causes';

type Info = Readonly<Record<string, { label: string; help: string; colour: string }>>;

function Strip(props: { causes: ByCause; info: Info; without: readonly string[] }): JSX.Element {
  const { causes, info } = props;
  const whole = total(causes, props.without);
  // In the table's fixed order, so that one colour stands at one place from row to row.
  const order = [...Object.keys(info), ...Object.keys(causes).filter((c) => !(c in info))];
  return (
    <span className="cause-strip" aria-hidden="true">
      {order.filter((c) => (causes[c] ?? 0) > 0 && !props.without.includes(c)).map((c) => (
        <i key={c} style={{ width: `${((100 * causes[c]!) / whole).toFixed(2)}%`, background: info[c]?.colour ?? 'var(--line-strong)' }} />
      ))}
    </span>
  );
}

const name = (info: Info, cause: string): string => info[cause]?.label ?? cause;

export function CauseBar(props: { causes: ByCause | undefined; info?: Info; without?: readonly string[]; none?: string }): JSX.Element {
  const { causes = {}, info = kWaitCauses, without = [] } = props;
  const list = ranked(causes, without);
  if (list.length === 0) return <span className="faint">{props.none ?? '–'}</span>;
  const whole = total(causes, without);
  const title = list.map(([c, v]) => `${name(info, c)}: ${duration(v)} (${percent(v, whole)})`).join('\n');
  return (
    <span className="cause-cell" title={title}>
      <Strip causes={causes} info={info} without={without} />
      <span>{name(info, list[0]![0])} <small className="faint">{percent(list[0]![1], whole)}</small></span>
    </span>
  );
}

export function CauseLegend(props: { causes: ByCause; info?: Info; what: string }): JSX.Element | null {
  const { causes, info = kWaitCauses } = props;
  const list = ranked(causes);
  if (list.length === 0) return null;
  const whole = total(causes);
  return (
    <div className="cause-legend" role="group" aria-label={props.what}>
      <span className="faint">{props.what}</span>
      <Strip causes={causes} info={info} without={[]} />
      <ul>
        {list.map(([c, v]) => (
          <li key={c} title={info[c]?.help}><i className="swatch" style={{ background: info[c]?.colour ?? 'var(--line-strong)' }} /> {name(info, c)} <b>{percent(v, whole)}</b> <small className="faint">{duration(v)}</small></li>
        ))}
      </ul>
    </div>
  );
}
