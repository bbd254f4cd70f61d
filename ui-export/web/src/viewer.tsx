// The self-contained flame graph of an HTML export: reads its data from the page itself and asks nobody.
import { createRoot } from 'react-dom/client';
import { useEffect, useMemo } from 'react';
import './styles/base.css';
import './styles/parts.css';
import './styles/flame.css';
import { parseFlame, type FlameSource } from './lib/flame';
import { dateTime, duration } from './lib/format';
import { keepStateInHash, splitBy, useUrl } from './lib/url';
import { FlameView } from './components/FlameView';
import { Logo, ThemeButton } from './components/ui';
import { applyTheme, rememberTheme, useDark } from './components/theme';

function Viewer(props: { source: FlameSource }): JSX.Element {
  const { source } = props;
  const [url, go] = useUrl();
  const dark = useDark();
  useEffect(() => applyTheme(url.theme), [url.theme]);
  useEffect(() => {
    document.title = `${source.title || 'Flame graph'} · Pyrometer`;
  }, [source]);
  const labels = useMemo(() => {
    // Only labels that split something.
    const values = new Map<string, Set<string>>();
    for (const set of source.labelSets) for (const [k, v] of Object.entries(set)) (values.get(k) ?? values.set(k, new Set()).get(k)!).add(v);
    return [...values].filter(([k, v]) => v.size > 1 || source.labelSets.some((s) => !(k in s))).map(([k]) => k).sort();
  }, [source]);
  const when = [
    source.timeMs > 0 ? dateTime(source.timeMs) : '',
    source.durationNs > 0 ? duration(source.durationNs) : '',
    ...['node', 'service', 'container.name'].map((name) => {
      const all = new Set(source.labelSets.map((s) => s[name]).filter(Boolean));
      return all.size === 1 ? `${name} ${[...all][0]}` : '';
    }),
  ].filter(Boolean).join(' · ');
  return (
    <div className="viewer">
      <header className="viewer-head">
        <Logo />
        <h1>{source.title || 'Flame graph'}</h1>
        <span className="faint">{when}</span>
        <span className="grow" />
        <ThemeButton dark={dark} onChange={(theme) => {
          rememberTheme(theme);
          go({ theme }, 'replace');
        }} />
      </header>
      <FlameView source={source} labels={labels} by={splitBy(url.by, labels)} groupHere what={source.title || 'Flame graph'} />
    </div>
  );
}

keepStateInHash();
const root = createRoot(document.getElementById('root')!);
try {
  const text = document.getElementById('pyrometer-data')!.textContent ?? '';
  const source = parseFlame(JSON.parse(text));
  applyTheme('');
  root.render(<Viewer source={source} />);
} catch (e) {
  applyTheme('');
  root.render(
    <div className="viewer-error" role="alert">
      <h1>This file holds no readable flame graph</h1>
      <p>{e instanceof Error ? e.message : String(e)}</p>
      <p>It may have been cut off while it was copied; export it again.</p>
    </div>,
  );
}
