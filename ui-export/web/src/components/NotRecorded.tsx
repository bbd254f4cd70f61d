// A view whose probe is off unless asked for: says how to ask, once anything else has arrived.
import type { Status } from '../lib/api';
import { Empty } from './ui';
import { Waiting } from './Waiting';

export function NotRecorded(props: { status: Status | undefined; what: string; flag: string; filtered: boolean; onClear: () => void }): JSX.Element {
  if (props.filtered || !props.status || props.status.store.samples === 0) {
    return <Waiting status={props.status} what={props.what} filtered={props.filtered} onClear={props.onClear} />;
  }
  return (
    <Empty title={`No ${props.what} in this range`}>
      <p>They cost about a microsecond each time a thread stops running, so they are recorded only when asked for:</p>
      <p><code>pyrometer {props.status.mode === 'up' ? 'up' : 'agent --store HOST:PORT'} {props.flag}</code></p>
    </Empty>
  );
}
