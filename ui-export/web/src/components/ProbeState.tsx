import type { Probe } from '../lib/api';

const kKinds: Record<Probe['state'], string> = { ok: 'ok', degraded: 'warn', off: 'bad', unused: '' };

export function ProbeBadge(props: { probe: Probe }): JSX.Element {
  const { state } = props.probe;
  return <span className={`badge ${kKinds[state]}`}>{state}</span>;
}

// Why a probe is in its state and what to do; "works" where there is nothing to say.
export function probeNote(probe: Probe): string {
  if (probe.state === 'unused') return 'nobody asked for it: start the agent with --probes to have it';
  return probe.reason || 'works';
}
