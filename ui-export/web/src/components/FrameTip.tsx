// What is known about one frame, beside the pointer.
import { Kind, type FlameGraph } from '../lib/flame';
import { categoryOf, kCategoryInfo } from '../lib/colors';
import { baseName, percent, short, value } from '../lib/format';
import { explainReason, isNameless } from '../lib/reasons';

export function FrameTip(props: { graph: FlameGraph; node: number; zoom: number; missReasons?: Record<string, number>; explanation: string }): JSX.Element {
  const { graph, node, zoom } = props;
  const f = graph.fn[node]!;
  const { fns } = graph;
  const category = categoryOf(fns.kind[f]!, fns.module[f]!);
  const total = graph.total[node]!, self = graph.self[node]!, all = graph.total[0]!;
  const where = fns.file[f] ? `${fns.file[f]}${fns.line[f]! > 0 ? `:${fns.line[f]}` : ''}` : '';
  const reasons = Object.entries(props.missReasons ?? {}).sort((a, b) => b[1] - a[1]);
  const isLabel = fns.kind[f] === Kind.Label;
  return (
    <>
      <div className="tip-name">{fns.name[f] || '(no name)'}</div>
      <div className="tip-sub">
        <span className={`chip cat-${category}`}>{props.explanation ? 'in one sum' : isLabel ? fns.module[f] : node === 0 ? 'everything measured' : kCategoryInfo[category].label}</span>
        {!isLabel && fns.module[f] && <span title={fns.module[f]}>{baseName(fns.module[f]!)}</span>}
        {fns.inlined[f] === 1 && <span>inlined</span>}
      </div>
      <table className="tip-numbers">
        <tbody>
          <tr>
            <th>Total</th>
            <td>{value(total, graph.unit)}</td>
            <td>{percent(total, all)}</td>
            {zoom > 0 && <td className="faint">{percent(total, graph.total[zoom]!)} of zoom</td>}
          </tr>
          <tr>
            <th>Self</th>
            <td>{value(self, graph.unit)}</td>
            <td>{percent(self, all)}</td>
            {zoom > 0 && <td />}
          </tr>
        </tbody>
      </table>
      {where && <div className="tip-file">{where}</div>}
      {props.explanation && <div className="tip-why">{props.explanation}</div>}
      {(category === 'unknown' || (category !== 'other' && isNameless(fns.name[f]!))) && (
        <div className="tip-why">
          No function name was found for this address.{reasons.length > 0 && ' In this profile names are missing because:'}
          {reasons.length > 0 && (
            <ul>
              {reasons.slice(0, 3).map(([reason, n]) => (
                <li key={reason}>
                  <b>{short(n)}×</b> {explainReason(reason)}
                </li>
              ))}
            </ul>
          )}
        </div>
      )}
    </>
  );
}
