// Flame graph, table, search, legend and accounting: the whole working place, used by the page and by the viewer.
import { useDeferredValue, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState, type ReactNode } from 'react';
import {
  buildGraph, calleesOf, callersOf, Kind, pathTo, resolveZoom, topFunctions, zoomPath, type FlameGraph, type FlameSource, type TopRow,
} from '../lib/flame';
import { categoryOf, fillsOf, kCategories, kCategoryInfo, kDark, kLight, type Category } from '../lib/colors';
import { askFocus, Finer, isSmaller } from '../lib/finer';
import { makeSearch, matchedShare, matchFunctions } from '../lib/search';
import { baseName, count, duration, percent, shortName, value } from '../lib/format';
import { explainReason, isComplete } from '../lib/reasons';
import { useUrl, type Display } from '../lib/url';
import { FlameCanvas } from './FlameCanvas';
import { FunctionTable } from './FunctionTable';
import { useDark } from './theme';
import { Help, Popover, Segments } from './ui';

const kDisplays: { value: Display; label: string; title: string }[] = [
  { value: 'both', label: 'Both', title: 'Graph and table side by side' },
  { value: 'graph', label: 'Graph', title: 'Flame graph only' },
  { value: 'table', label: 'Table', title: 'Table only' },
  { value: 'sandwich', label: 'Callers', title: 'One function: who calls it (above) and what it calls (below)' },
];

export function FlameView(props: {
  source: FlameSource;
  labels: readonly string[]; // that can be grouped by
  by: string; // grouped by now, comma separated
  path?: string | null; // the question of the API that `source` answers: what is zoomed in to is asked again, finer
  groupHere: boolean; // true: group by label in this page (viewer); false: the store did it
  what: string; // said to screen readers
  extra?: ReactNode; // at the right end of the tool bar
}): JSX.Element {
  const [url, go] = useUrl();
  const finer = useFiner(props.source, props.path ?? '', url.zoom);
  const source = finer.shown;
  const by = useMemo(() => (props.by ? props.by.split(',') : []), [props.by]);
  const groupHere = props.groupHere;
  const wantedType = source.types.findIndex((t) => t.type === url.type);
  const type = wantedType >= 0 ? wantedType : source.defaultType;
  const graph = useMemo(() => buildGraph(source, { type, by: groupHere ? by : [], order: url.order }), [source, type, by, groupHere, url.order]);
  const zoom = useMemo(() => resolveZoom(graph, url.zoom), [graph, url.zoom]);

  const searchBox = useRef<HTMLInputElement>(null);
  const deferred = useDeferredValue(url.search);
  const search = useMemo(() => makeSearch(deferred), [deferred]);
  const matches = useMemo(() => matchFunctions(graph.fns, search), [graph, search]);
  const matched = useMemo(() => (matches ? matchedShare(graph, matches) : null), [graph, matches]);

  const chosen = useMemo(() => findFunction(graph, url.fn), [graph, url.fn]);
  const [legend, setLegend] = useState<{ category: Category; module: string } | null>(null);
  const emphasis = useMemo(() => {
    if (chosen < 0 && !legend) return null;
    const out = new Uint8Array(graph.fns.name.length);
    for (let f = 0; f < out.length; f++) {
      out[f] = chosen >= 0 ? Number(f === chosen || f === graph.fn[0])
        : Number(categoryOf(graph.fns.kind[f]!, graph.fns.module[f]!) === legend!.category && (!legend!.module || graph.fns.module[f] === legend!.module));
    }
    return out;
  }, [graph, chosen, legend]);

  const [picked, setPicked] = useState({ fn: -1, count: 0 });
  useEffect(() => setPicked({ fn: -1, count: 0 }), [graph]);

  useEffect(() => {
    const key = (e: KeyboardEvent): void => {
      const t = e.target as HTMLElement;
      const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(t.tagName);
      if (e.key === '/' && !typing && !e.ctrlKey && !e.metaKey) {
        e.preventDefault();
        searchBox.current?.focus();
        searchBox.current?.select();
      } else if (e.key === 'Escape' && !typing && !t.closest('.flame-scroll')) {
        if (url.zoom || url.fn) go({ zoom: '', fn: url.display === 'sandwich' ? url.fn : '' });
      }
    };
    document.addEventListener('keydown', key);
    return () => document.removeEventListener('keydown', key);
  }, [url.zoom, url.fn, url.display, go]);

  const rows = useMemo(() => {
    // Label values below the root are no functions, whoever put them there.
    const labels = new Set<number>([graph.fn[0]!]);
    for (let i = 0; i < graph.levelStart[Math.min(graph.levels, 1 + by.length)]!; i++) labels.add(graph.fn[graph.level[i]!]!);
    return topFunctions(graph, zoom).filter((r) => graph.fns.kind[r.fn] !== Kind.Label && !labels.has(r.fn));
  }, [graph, zoom, by]);
  const shares = useMemo(() => legendShares(graph, zoom), [graph, zoom]);
  const dark = useDark();

  const display = url.display;
  // What stands for others is no place of its own: its caller is, and shows them when they have come.
  const setZoom = (node: number): void => go({ zoom: zoomPath(graph, standsForSmaller(graph, node) ? graph.parent[node]! : node) });
  const explain = (node: number): string => {
    if (!standsForSmaller(graph, node)) return '';
    const caller = pathTo(graph, graph.parent[node]!).slice(1).map((at) => graph.fns.name[graph.fn[at]!]!);
    if (!source.range || !props.path) return 'Boxes too small to be shown, in one sum.';
    return finer.isFinest(caller) ? 'Boxes too small to be shown, in one sum. Narrow the selector or the range to see them.'
      : 'Boxes too small to be shown at this size, in one sum. Click to see them.';
  };
  const table = (
    <FunctionTable
      graph={graph} rows={rows} whole={graph.total[zoom]!} matches={matches} chosen={chosen} picked={picked}
      onChoose={(fn) => go({ fn: fn === chosen ? '' : functionKey(graph, fn) })}
      onCallers={(fn) => go({ fn: functionKey(graph, fn), display: 'sandwich', zoom: '' })}
    />
  );
  return (
    <section className="flame-view" aria-label={props.what}>
      <div className="toolbar">
        <label className="search">
          <svg width="14" height="14" viewBox="0 0 16 16" aria-hidden="true"><circle cx="7" cy="7" r="4.5" fill="none" stroke="currentColor" strokeWidth="1.6" /><path d="M10.5 10.5 14 14" stroke="currentColor" strokeWidth="1.6" strokeLinecap="round" /></svg>
          <input
            ref={searchBox} type="search" value={url.search} placeholder="Find a function or library   /" aria-label="Find a function or library"
            aria-invalid={Boolean(search?.error)} spellCheck={false}
            title="Any part of a name; /…/ for a regular expression"
            onChange={(e) => go({ search: e.target.value }, 'replace')}
            onKeyDown={(e) => {
              if (e.key === 'Escape') {
                go({ search: '' }, 'replace');
                e.currentTarget.blur();
              }
            }}
          />
          <output className={search?.error ? 'bad' : ''} aria-live="polite">
            {search?.error ? search.error : matched ? `${percent(matched.value, graph.total[0]!)} matched` : ''}
          </output>
        </label>
        {(props.labels.length > 0 || props.by) && <label className="field">
          <span>Split by</span>
          <select value={props.by || '-'} onChange={(e) => go({ by: e.target.value, zoom: '' })} title="Puts the values of a label below the root, so that each gets its own part of the graph">
            <option value="-">nothing</option>
            {[...new Set([...props.labels, ...(props.by ? [props.by] : [])])].map((l) => <option key={l} value={l}>{l === 'comm' ? 'program (comm)' : l}</option>)}
          </select>
        </label>}
        {source.types.length > 1 && (
          <Segments
            label="Value" value={source.types[type]!.type} onChange={(t) => go({ type: t === source.types[source.defaultType]!.type ? '' : t })}
            options={source.types.map((t) => ({ value: t.type, label: typeName(t.type), title: `Widths show ${t.type} (${t.unit})` }))}
          />
        )}
        <Segments label="Show" value={display} options={kDisplays} onChange={(d) => go({ display: d })} />
        <Popover label="Layout" title="Direction and order of the graph" align="right">
          {() => (
            <div className="menu-fields">
              <span>Direction</span>
              <Segments label="Direction" value={url.up ? 'up' : 'down'} onChange={(v) => go({ up: v === 'up' })}
                options={[{ value: 'down', label: 'Down (icicle)' }, { value: 'up', label: 'Up (flame)' }]} />
              <span>Order</span>
              <Segments label="Order" value={url.order} onChange={(v) => go({ order: v })}
                options={[{ value: 'value', label: 'Widest first' }, { value: 'name', label: 'By name' }]} />
            </div>
          )}
        </Popover>
        <Help title="How to read a flame graph" align="right" label="How to read this">
          <HowToRead />
        </Help>
        {props.extra}
      </div>

      {display === 'sandwich' && chosen >= 0
        ? <ChosenLine graph={graph} row={rows.find((r) => r.fn === chosen)} onBack={() => go({ display: 'both' })} />
        : <Crumbs graph={graph} zoom={zoom} chosen={chosen} onZoom={setZoom} onUnchoose={() => go({ fn: '' })} sandwich={display === 'sandwich'} loading={finer.loading} />}

      {source.notices.length > 0 && <div className="notice" role="status">{source.notices.join(' ')}</div>}
      {finer.error && (
        <div className="notice with-button" role="alert">
          <span>The smaller boxes below {shortName(graph.fns.name[graph.fn[zoom]!]!)} did not come: {finer.error.message}</span>
          <button type="button" className="button small" onClick={() => finer.retry()}>Try again</button>
        </div>
      )}
      <div className={`flame-body show-${display}`}>
        {(display === 'both' || display === 'graph') && (
          <FlameCanvas
            graph={graph} zoom={zoom} onZoom={setZoom} matches={matches} emphasis={emphasis} up={url.up}
            label={`${props.what}: flame graph`} missReasons={source.accounting.missReasons} explain={explain}
            onPick={(node) => setPicked((p) => ({ fn: graph.fn[node]!, count: p.count + 1 }))}
          />
        )}
        {display === 'sandwich' && (
          <Sandwich graph={graph} fn={chosen} matches={matches} missReasons={source.accounting.missReasons} onFn={(fn) => go({ fn: functionKey(graph, fn) })} />
        )}
        {display !== 'graph' && table}
      </div>

      <div className="foot">
        <div className="legend" role="group" aria-label="Colours; press one to let it stand out">
          {shares.map((s) => {
            const on = legend !== null && legend.category === s.category && legend.module === s.module;
            return (
              <button
                key={`${s.category}/${s.module}`} type="button" aria-pressed={on} onClick={() => setLegend(on ? null : { category: s.category, module: s.module })}
                title={s.module || `${kCategoryInfo[s.category].help}`}
              >
                <i className="swatch" style={{ background: (dark ? kDark : kLight).fills[s.fill] }} />
                {s.label} <small>{percent(s.self, graph.total[zoom]!)}</small>
              </button>
            );
          })}
        </div>
        <Trust source={source} />
      </div>
    </section>
  );
}

function standsForSmaller(graph: FlameGraph, node: number): boolean {
  return isSmaller(graph.fns.name[graph.fn[node]!]!, graph.fns.kind[graph.fn[node]!]!);
}

// `main`, as fine as it has come where the reader zoomed in to. Without a path (a file, a sum of examples) that is all.
function useFiner(main: FlameSource, path: string, zoom: string): Pick<Finer, 'loading' | 'error' | 'isFinest' | 'retry'> & { shown: FlameSource } {
  const [, redraw] = useReducer((n: number) => n + 1, 0);
  const finer = useRef<Finer | null>(null);
  finer.current ??= new Finer(askFocus, redraw);
  const f = finer.current;
  useLayoutEffect(() => f.set(main, path, zoom), [f, main, path, zoom]);
  useEffect(() => () => f.stop(), [f]);
  return { shown: f.shown ?? main, loading: f.loading, error: f.error, isFinest: (focus) => f.isFinest(focus), retry: () => f.retry() };
}

// A function in the address: its name, and its module where another function has the same name.
function functionKey(graph: FlameGraph, fn: number): string {
  const name = graph.fns.name[fn]!;
  return graph.fns.name.indexOf(name) === fn ? name : `${name}@@${graph.fns.module[fn]}`;
}

function findFunction(graph: FlameGraph, key: string): number {
  if (!key) return -1;
  const at = key.lastIndexOf('@@');
  if (at > 0) {
    const name = key.slice(0, at), module = key.slice(at + 2);
    for (let f = 0; f < graph.fns.name.length; f++) if (graph.fns.name[f] === name && graph.fns.module[f] === module) return f;
  }
  return graph.fns.name.indexOf(key);
}

export function typeName(type: string): string {
  return ({ cpu: 'CPU time', samples: 'Samples', off_cpu: 'Waiting', off_cpu_wakers: 'Waiting', duration: 'Duration', calls: 'Calls', latency: 'Time' } as Record<string, string>)[type] ?? type;
}

interface Share {
  category: Category;
  module: string;
  label: string;
  fill: number;
  self: number;
}

// Self time by kind of code, libraries by name: the legend is also an answer.
function legendShares(graph: FlameGraph, zoom: number): Share[] {
  const { fns } = graph;
  const self = new Float64Array(fns.name.length);
  const inside = new Uint8Array(graph.fn.length);
  for (let i = zoom; i < graph.fn.length; i++) {
    if (i !== zoom && !(graph.parent[i]! >= 0 && inside[graph.parent[i]!])) continue;
    inside[i] = 1;
    self[graph.fn[i]!]! += graph.self[i]!;
  }
  const fills = fillsOf(fns);
  const groups = new Map<string, Share>();
  const seen = new Uint8Array(fns.name.length);
  for (let i = 0; i < graph.fn.length; i++) if (inside[i]) seen[graph.fn[i]!] = 1;
  for (let f = 0; f < self.length; f++) {
    if (!seen[f]) continue;
    const category = categoryOf(fns.kind[f]!, fns.module[f]!);
    if (category === 'other') continue;
    const module = category === 'library' ? fns.module[f]! : '';
    const key = `${category}/${module}`;
    const g = groups.get(key) ?? {
      category, module, self: 0, fill: fills[f]!,
      label: module ? baseName(module).replace(/\.so.*$/, '') : kCategoryInfo[category].label,
    };
    g.self += self[f]!;
    groups.set(key, g);
  }
  const all = [...groups.values()];
  const libraries = all.filter((g) => g.module && g.self > 0.0005 * graph.total[zoom]!).sort((a, b) => b.self - a.self);
  const kept = new Set(libraries.slice(0, 5));
  return all.filter((g) => (g.module ? kept.has(g) : g.self > 0)).sort((a, b) =>
    kCategories.indexOf(a.category) - kCategories.indexOf(b.category) || b.self - a.self);
}

function Crumbs(props: {
  graph: FlameGraph; zoom: number; chosen: number; sandwich: boolean; loading: boolean; onZoom: (node: number) => void; onUnchoose: () => void;
}): JSX.Element {
  const { graph, zoom, chosen } = props;
  const path = pathTo(graph, zoom);
  const shown = path.length > 7 ? [path[0]!, -1, ...path.slice(-5)] : path;
  return (
    <div className="crumbs">
      <nav aria-label="Zoom">
        {shown.map((node, i) => node < 0 ? <span key="gap" className="faint">…</span> : (
          <span key={node}>
            {i > 0 && <span className="faint" aria-hidden="true"> › </span>}
            <button type="button" className={node === zoom ? 'here' : ''} aria-current={node === zoom} onClick={() => props.onZoom(node)} title={graph.fns.name[graph.fn[node]!]}>
              {node === 0 ? 'All' : shortName(graph.fns.name[graph.fn[node]!]!)}
            </button>
          </span>
        ))}
        <span className="crumb-value">
          {value(graph.total[zoom]!, graph.unit)}{zoom > 0 && ` · ${percent(graph.total[zoom]!, graph.total[0]!)} of all`}
        </span>
        {zoom > 0 && <button type="button" className="button small" onClick={() => props.onZoom(0)}>Reset zoom <kbd>Esc</kbd></button>}
      </nav>
      <span className="crumb-wait" role="status">{props.loading && <><i className="dot" /> Asking for smaller boxes…</>}</span>
      {chosen >= 0 && !props.sandwich && (
        <span className="chosen-note">
          Standing out: <b title={graph.fns.name[chosen]}>{shortName(graph.fns.name[chosen]!)}</b>
          <button type="button" className="button small" onClick={props.onUnchoose} aria-label="Show all functions alike">×</button>
        </span>
      )}
    </div>
  );
}

function ChosenLine(props: { graph: FlameGraph; row: TopRow | undefined; onBack: () => void }): JSX.Element {
  const { graph, row } = props;
  return (
    <div className="crumbs">
      <nav aria-label="Chosen function">
        <button type="button" className="button small" onClick={props.onBack}>‹ Whole graph</button>
        {row && <>
          <b className="chosen-name" title={graph.fns.name[row.fn]}>{shortName(graph.fns.name[row.fn]!)}</b>
          <span className="crumb-value">total {value(row.total, graph.unit)} ({percent(row.total, graph.total[0]!)}), self {value(row.self, graph.unit)} ({percent(row.self, graph.total[0]!)})</span>
        </>}
      </nav>
    </div>
  );
}

function Sandwich(props: {
  graph: FlameGraph; fn: number; matches: Uint8Array | null; missReasons: Record<string, number>; onFn: (fn: number) => void;
}): JSX.Element {
  const { graph, fn } = props;
  const trees = useMemo(() => (fn >= 0 ? { callers: callersOf(graph, fn), callees: calleesOf(graph, fn) } : null), [graph, fn]);
  if (!trees) {
    return <div className="sandwich-empty"><p>Choose a function in the table: above it you will see everyone who calls it, below it what it calls, summed over the whole profile.</p></div>;
  }
  const pick = (tree: FlameGraph) => (node: number): void => {
    if (node > 0) props.onFn(tree.fn[node]!);
  };
  return (
    <div className="sandwich">
      <div className="sandwich-head">Called by</div>
      <FlameCanvas graph={trees.callers} zoom={0} onZoom={() => undefined} onPick={pick(trees.callers)} matches={props.matches} emphasis={null} up label="Callers" missReasons={props.missReasons} />
      <div className="sandwich-head">Calls</div>
      <FlameCanvas graph={trees.callees} zoom={0} onZoom={() => undefined} onPick={pick(trees.callees)} matches={props.matches} emphasis={null} up={false} label="Callees" missReasons={props.missReasons} />
    </div>
  );
}

// Can this picture be trusted? Taken = delivered + dropped, and how many stacks are whole.
function Trust(props: { source: FlameSource }): JSX.Element | null {
  const a = props.source.accounting;
  const dropped = Object.values(a.dropped).reduce((s, n) => s + n, 0);
  const stops = Object.entries(a.stopReasons).filter(([, n]) => n > 0).sort((x, y) => y[1] - x[1]);
  const cut = stops.filter(([r]) => !isComplete(r)).reduce((s, [, n]) => s + n, 0);
  const walked = stops.reduce((s, [, n]) => s + n, 0);
  const misses = Object.entries(a.missReasons).filter(([, n]) => n > 0).sort((x, y) => y[1] - x[1]);
  if (a.taken === 0 && a.delivered === 0) return null;
  return (
    <Popover
      className={`trust ${dropped > 0 ? 'warn' : ''}`} align="right" up wide title="How complete is this picture?"
      label={<>
        {count(a.taken)} samples · {dropped > 0 ? `${count(dropped)} dropped` : 'none dropped'}
        {walked > 0 && cut > 0 && <> · {percent(cut, walked)} cut short</>}
      </>}
    >
      <h3>Can this picture be trusted?</h3>
      <p>Every sample taken is either in the graph or counted here: {count(a.taken)} taken = {count(a.delivered)} delivered + {count(dropped)} dropped.
        {a.expected > 0 && <> By the kernel's own account of CPU time, {count(a.expected)} were to be expected: {percent(a.taken, a.expected)} were taken.</>}</p>
      <ReasonList title="Dropped" rows={Object.entries(a.dropped).filter(([, n]) => n > 0)} none="Nothing was dropped." />
      <ReasonList title="Where stacks end" rows={stops} none="Not reported." />
      <ReasonList title="How stacks were unwound" rows={Object.entries(a.means).filter(([, n]) => n > 0).sort((x, y) => y[1] - x[1])} none="Not reported." />
      <ReasonList title={`Frames without a name${a.frames > 0 ? ` (${percent(misses.reduce((s, [, n]) => s + n, 0), a.frames)} of ${count(a.frames)})` : ''}`} rows={misses} none="Every frame has a name." />
      {props.source.durationNs > 0 && <p className="faint">Measured over {duration(props.source.durationNs)}{props.source.period > 0 && `, one sample per ${duration(props.source.period)} and CPU`}.</p>}
      {props.source.comments.map((c) => <p key={c} className="faint">{c}</p>)}
    </Popover>
  );
}

function ReasonList(props: { title: string; rows: [string, number][]; none: string }): JSX.Element {
  return (
    <>
      <h4>{props.title}</h4>
      {props.rows.length === 0 ? <p className="faint">{props.none}</p> : (
        <ul className="reasons">
          {props.rows.map(([reason, n]) => <li key={reason}><b>{count(n)}</b> <span>{explainReason(reason)}</span></li>)}
        </ul>
      )}
    </>
  );
}

export function HowToRead(): JSX.Element {
  return (
    <>
      <svg viewBox="0 0 320 87" className="howto" aria-hidden="true">
        <rect x="0" y="0" width="320" height="20" className="h-other" /><text x="8" y="14">all = 100 %</text>
        <rect x="0" y="22" width="320" height="20" className="h-program" /><text x="8" y="36">main</text>
        <rect x="0" y="44" width="198" height="20" className="h-program" /><text x="8" y="58">parse_request 62 %</text>
        <rect x="200" y="44" width="120" height="20" className="h-library" /><text x="208" y="58">gzip 38 %</text>
        <rect x="0" y="66" width="120" height="20" className="h-kernel" /><text x="8" y="80">read (kernel)</text>
      </svg>
      <ul className="howto-list">
        <li><b>Each box is a function.</b> What it calls hangs below it.</li>
        <li><b>Width is time.</b> A box half as wide as the graph took half of the CPU time. Left to right is <i>not</i> time: equal calls are merged, widest first.</li>
        <li><b>Look for wide boxes with little below them:</b> there the time is spent (the table calls it <i>self</i>).</li>
        <li><b>Colours</b> say whose code it is: your program, a library, the kernel.</li>
        <li><b>Click</b> a box to zoom in, the row above to zoom out. <kbd>/</kbd> searches, arrows move, <kbd>Enter</kbd> zooms, <kbd>Esc</kbd> resets.</li>
      </ul>
      <p className="faint">It is made from samples: about a hundred times per second and CPU, Pyrometer notes what is running. Small boxes are therefore less certain than wide ones.</p>
    </>
  );
}
