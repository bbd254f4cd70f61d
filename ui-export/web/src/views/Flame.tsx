// CPU: time line, flame graph and table of the selected measurements.
import { useMemo } from 'react';
import { apiPath, download, token, useApi, type Status } from '../lib/api';
import { parseFlame, type FlameSource } from '../lib/flame';
import { cores, duration } from '../lib/format';
import { tryParse } from '../lib/selector';
import { splitBy, useUrl } from '../lib/url';
import { FlameView } from '../components/FlameView';
import { kRefreshMs, QueryBar, useAsked, type Asked } from '../components/QueryBar';
import { ErrorBox, Popover, Skeleton } from '../components/ui';
import { Waiting } from '../components/Waiting';

export function FlamePage(props: { status: Status | undefined }): JSX.Element {
  const [url, go] = useUrl();
  const asked = useAsked('cpu');
  const types = useApi<{ types: { name: string; kind: string; unit: string }[] }>(apiPath('types'), { scope: 'types' });
  const labels = useApi<{ labels: string[] }>(apiPath('labels', { query: asked.query, ...asked.whole }), { scope: 'labels' });
  // The labels decide what to split by: ask for the graph when they are known.
  const by = splitBy(url.by, labels.data?.labels ?? []);
  const flame = useApi<FlameSource>(
    url.by !== '' || labels.data || labels.error ? apiPath('flame', { query: asked.query, from: asked.from, to: asked.to, by }) : null,
    { refreshMs: asked.live ? kRefreshMs : 0, scope: `flame/${asked.query}`, convert: parseFlame });
  const profileTypes = useMemo(() => (types.data?.types ?? []).filter((t) => t.kind === 'profile').map((t) => t.name), [types.data]);
  const type = tryParse(asked.query)?.type || 'cpu';
  const source = flame.data;
  const empty = source !== undefined && source.sampleNode.length === 0;
  return (
    <>
      <QueryBar
        type="cpu" types={profileTypes.length ? profileTypes : ['cpu']} storeError={flame.error} unit="cores" seconds={type === 'cpu'}
        title={type === 'cpu' ? 'CPU in use (cores)' : `${type} per second`}
        counted={(v, step) => `${cores(v)} cores (${duration(v * step)} of CPU time)`}
        extra={<ExportMenu asked={asked} />}
      />
      {flame.error && flame.error.status !== 400 && flame.error.status !== 401 && <ErrorBox error={flame.error} onRetry={flame.reload} stale={source !== undefined} />}
      {empty ? <div className="panel fill"><Waiting status={props.status} what="samples" filtered={url.q !== ''} onClear={() => go({ q: '' })} /></div>
        : source ? <FlameView source={source} path={flame.answers} labels={labels.data?.labels ?? []} by={by} groupHere={false} what={`CPU time of ${asked.query}`} />
          : <div className="panel fill">{flame.error ? null : <Skeleton rows={12} />}</div>}
    </>
  );
}

const kFormats = [
  { format: 'html', label: 'HTML page', note: 'opens anywhere, offline' },
  { format: 'pprof', label: 'pprof', note: 'go tool pprof' },
  { format: 'speedscope', label: 'speedscope', note: 'speedscope.app' },
  { format: 'folded', label: 'Folded stacks', note: 'plain text' },
  { format: 'svg', label: 'SVG', note: 'a picture' },
  { format: 'json', label: 'JSON', note: 'for scripts' },
];

const kSuffix: Record<string, string> = { pprof: 'pb.gz', speedscope: 'speedscope.json' };

export function ExportMenu(props: { asked: Asked }): JSX.Element {
  const { asked } = props;
  return (
    <Popover label="Export" title="Save what is shown" align="right">
      {(close) => (
        <div className="menu-list">
          {kFormats.map((f) => {
            const path = apiPath('export', { query: asked.query, from: asked.from, to: asked.to, format: f.format });
            return (
              <a key={f.format} href={path} download onClick={(e) => {
                // A link cannot carry the token: fetch and save instead.
                if (token()) {
                  e.preventDefault();
                  download(path, `pyrometer.${kSuffix[f.format] ?? f.format}`).catch((error: unknown) => alert(error instanceof Error ? error.message : String(error)));
                }
                close();
              }}>
                <span>{f.label}</span><small>{f.note}</small>
              </a>
            );
          })}
        </div>
      )}
    </Popover>
  );
}
