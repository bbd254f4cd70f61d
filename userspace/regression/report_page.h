// The page of a report: what stands before and after its data. No network, no library; light and dark by what the
// reader's system asks for, the button turns it. Colours: orange slower, blue faster (told apart by all common kinds of
// colour blindness), grey is not certain; the steps are those of the legend.
#pragma once

#include <string_view>

namespace pyrometer::regression {

inline constexpr std::string_view kReportPageHead = R"html(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pyrometer ci</title>
<style>
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2328; --quiet: #59636e; --line: #d1d9e0; --card: #f6f8fa;
  --same: #e4e7ea; --slow1: #f8c9a6; --slow2: #ee8a4b; --slow3: #c84a0c; --fast1: #bcd8f0; --fast2: #6aa9dd;
  --fast3: #1f6fb2; --gone: #e4e7ea; --bad: #b93d04; --good: #1a7f37; --unsure: #8a6100; --on-strong: #ffffff; }
:root[data-theme=dark] { --paper: #14171a; --ink: #e3e7eb; --quiet: #9aa4ae; --line: #353b42; --card: #1c2024;
  --same: #33393f; --slow1: #6b4026; --slow2: #b65a1f; --slow3: #f28b4b; --fast1: #27455f; --fast2: #2f73ad;
  --fast3: #7cbcf2; --gone: #33393f; --bad: #ff9a5c; --good: #5ccf7d; --unsure: #e3b341; --on-strong: #14171a; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 14px/1.45 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 20px 24px 48px; }
h1 { font-size: 22px; margin: 0; } h2 { font-size: 16px; margin: 28px 0 8px; }
.regression h1 { color: var(--bad); } .pass h1 { color: var(--good); } .undecided h1 { color: var(--unsure); }
header { display: flex; gap: 16px; align-items: baseline; flex-wrap: wrap; }
header button { margin-left: auto; }
button, input, select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; padding: 3px 10px; }
button[aria-pressed=true] { border-color: var(--ink); font-weight: 600; }
button:focus-visible, input:focus-visible, .box:focus-visible { outline: 2px solid var(--fast3); outline-offset: 1px; }
.lead { font-size: 15px; margin: 6px 0 0; } .quiet { color: var(--quiet); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--quiet); } td.n, th.n { text-align: right; white-space: nowrap; }
td.name { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; overflow-wrap: anywhere; }
td.name a { color: inherit; text-decoration-color: var(--quiet); cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 16px; margin: 0; } dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
.bar { display: flex; gap: 8px; flex-wrap: wrap; align-items: center; margin: 0 0 8px; }
.legend { display: flex; gap: 12px; flex-wrap: wrap; margin-left: auto; color: var(--quiet); font-size: 12px; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 2px; vertical-align: -2px; margin-right: 4px; }
.flame { position: relative; overflow: hidden; border: 1px solid var(--line); border-radius: 6px; background: var(--card); }
.box { position: absolute; height: 19px; border: 0; border-radius: 2px; padding: 0 4px; overflow: hidden; white-space: nowrap;
  text-align: left; font: 11.5px/19px ui-monospace, "DejaVu Sans Mono", monospace; background: var(--same); color: var(--ink);
  cursor: pointer; }
.box.s1 { background: var(--slow1); } .box.s2 { background: var(--slow2); color: var(--on-strong); }
.box.s3 { background: var(--slow3); color: var(--on-strong); }
.box.f1 { background: var(--fast1); } .box.f2 { background: var(--fast2); color: var(--on-strong); }
.box.f3 { background: var(--fast3); color: var(--on-strong); }
.box.guilty { box-shadow: inset 0 0 0 2px var(--ink); } .box.gone { background: repeating-linear-gradient(135deg, var(--fast1) 0 6px, var(--gone) 6px 9px); }
.box.dim { opacity: .35; } .box.context { opacity: .6; }
.tip { min-height: 46px; margin-top: 6px; overflow-wrap: anywhere; }
</style>
</head>
<body>
<main id="page"><noscript>This page draws its figures with JavaScript; report.json has them as well.</noscript></main>
<script type="application/json" id="data">)html";

inline constexpr std::string_view kReportPageTail = R"html(</script>
<script>
'use strict';
const {report, flames} = JSON.parse(document.getElementById('data').textContent);
const page = document.getElementById('page');

// ---- small helpers ----
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === 'text') node.textContent = value;
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}
const signed = (x, digits) => x === null ? '∞' : (x > 0 ? '+' : x < 0 ? '−' : '') + Math.abs(x).toFixed(digits) + ' %';
const percent = (ratio, digits = 1) => ratio === null ? '∞' : signed(100 * (ratio - 1), digits);
const share = (x, digits = 2) => (100 * x).toFixed(digits) + ' %';
const count = n => n.toLocaleString('en');
const small = p => p === null ? '' : p >= 0.001 ? p.toFixed(p < 0.01 ? 4 : 2) : p.toExponential(0);
const nameOf = f => f === null ? 'the whole program' : f.module ? f.name + ' (' + f.module + ')' : f.name;

// ---- theme ----
const dark = matchMedia('(prefers-color-scheme: dark)');
function setTheme(name) { document.documentElement.dataset.theme = name; }
setTheme(dark.matches ? 'dark' : 'light');
dark.addEventListener('change', () => setTheme(dark.matches ? 'dark' : 'light'));

// ---- verdict and tables ----
// What begins with a name ("scan's part", "base.pyro holds") keeps it.
const sentence = text => text.replace(/^[a-z]+ /, word => word[0].toUpperCase() + word.slice(1)) + '.';
const titles = {pass: 'No regression', regression: 'Performance regression', undecided: 'Could not decide'};
document.title = titles[report.decision] + ' · pyrometer ci';
page.className = report.decision;
page.append(make('header', {}, make('h1', {text: titles[report.decision]}),
  make('button', {type: 'button', text: 'Light / dark', onclick: () =>
    setTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark')})),
  make('p', {class: 'lead', text: sentence(report.reason) + (report.remedy ? ' ' + sentence(report.remedy) : '')}));

let focusFunction = () => {};
function table(title, findings, last, lastOf) {
  if (findings.length === 0) return;
  const body = make('tbody');
  for (const finding of findings) {
    const effect = finding.effect, f = finding.function;
    const name = make('td', {class: 'name'});
    if (finding.benchmark) name.append(finding.benchmark + ': ');
    if (f === null) name.append(nameOf(f));
    else name.append(make('a', {text: nameOf(f), title: 'show in the flame graph', onclick: () => focusFunction(f.name, finding.benchmark || '')}));
    if (finding.counted === 'inclusive') name.append(', with what it calls');
    if (f && f.file) name.append(make('div', {class: 'quiet', text: f.file + (f.line ? ':' + f.line : '')}));
    const odd = effect.new ? 'new' : effect.vanished ? 'gone' : null;
    body.append(make('tr', {}, name, make('td', {class: 'n', text: odd || percent(effect.ratio)}),
      make('td', {class: 'n', text: odd ? '' : percent(effect.ratio_interval[0]) + ' … ' + percent(effect.ratio_interval[1])}),
      make('td', {class: 'n', text: signed(100 * effect.excess_share, 2)}),
      make('td', {class: 'n', text: small(effect.excess_share < 0 ? effect.p_faster : effect.p_slower)}),
      make('td', {class: 'name', text: lastOf(finding)})));
  }
  page.append(make('h2', {text: title}), make('table', {}, make('thead', {}, make('tr', {},
    make('th', {text: 'function'}), make('th', {class: 'n', text: 'change'}), make('th', {class: 'n', text: '95 % interval'}),
    make('th', {class: 'n', text: 'of the total'}), make('th', {class: 'n', text: 'p'}), make('th', {text: last}))), body));
}
const why = finding => finding.callers.map(c => c.function.name).concat(finding.change && finding.change.message ? [finding.change.message] : []).join(', ');
table('Slower', report.findings, 'called by', why);
table('Slower by layout, it seems (no failure)', report.layout || [], 'why', () => report.layout_reason);
table('Moved, not slower', report.moved, 'from', f => f.moved_from.map(m => m.name).join(', '));
table('Faster', report.faster, 'called by', why);

if (report.benchmarks && report.benchmarks.length) {
  const body = make('tbody');
  for (const b of report.benchmarks) {
    body.append(make('tr', {}, make('td', {class: 'name', text: b.name}), make('td', {text: b.decision}),
      make('td', {class: 'n', text: b.total_cpu.tested ? percent(b.total_cpu.ratio) : ''}),
      make('td', {class: 'n', text: b.total_cpu.tested ? percent(b.total_cpu.ratio_interval[0]) + ' … ' + percent(b.total_cpu.ratio_interval[1]) : ''}),
      make('td', {class: 'n', text: b.detectable_share === null ? '' : share(b.detectable_share)})));
  }
  page.append(make('h2', {text: 'Benchmarks'}), make('table', {}, make('thead', {}, make('tr', {}, make('th', {text: 'benchmark'}),
    make('th', {text: 'verdict'}), make('th', {class: 'n', text: 'CPU time per iteration'}), make('th', {class: 'n', text: '95 % interval'}),
    make('th', {class: 'n', text: 'would have been seen'}))), body));
}

// ---- the differential flame graph ----
const ROW = 20, LEAST = 0.4;  // pixels
const LAYERS = {candidate: 'Candidate', baseline: 'Baseline', elided: 'Elided'};
const LAYER_TEXT = {candidate: 'Widths are what the candidate takes.', baseline: 'Widths are what the baseline took.',
  elided: 'Only stacks that the baseline has and the candidate does not.'};
const guilty = new Map();  // graph title -> names
for (const finding of report.findings) {
  if (!finding.function) continue;
  const title = finding.benchmark || '';
  if (!guilty.has(title)) guilty.set(title, new Set());
  guilty.get(title).add(finding.function.name + '\u0000' + finding.function.module);
}
// Steps of certainty: the level of the last look, a tenth of it, a fiftieth (with 10,000 arrangements 2 in 10,000).
function grade(p) { const level = report.level || report.alpha; return p > level ? 0 : p > level / 10 ? 1 : p > level / 50 ? 2 : 3; }

function Graph(flame) {
  const nodes = flame.nodes.map(([parent, f, baseline, candidate], index) =>
    ({index, parent, f, baseline, candidate, children: [], elided: 0}));
  for (let i = 1; i < nodes.length; ++i) nodes[nodes[i].parent].children.push(nodes[i]);
  // What the baseline took below a node in stacks that the candidate never had.
  for (let i = nodes.length; i-- > 0;) {
    const node = nodes[i];
    if (node.candidate === 0) node.elided = node.baseline;
    else node.elided = node.children.reduce((sum, child) => sum + child.elided, 0);
  }
  const own = guilty.get(flame.title) || new Set();
  const box = make('div', {class: 'flame', role: 'group', 'aria-label': 'differential flame graph'});
  const tip = make('p', {class: 'tip quiet', 'aria-live': 'polite'});
  const search = make('input', {type: 'search', placeholder: 'search functions', 'aria-label': 'search functions', oninput: draw});
  let layer = 'candidate', zoomed = nodes[0];
  const buttons = Object.entries(LAYERS).map(([key, text]) => make('button', {type: 'button', text, 'aria-pressed': key === layer,
    onclick: () => { layer = key; zoomed = nodes[0]; draw(); }}));
  const reset = make('button', {type: 'button', text: 'Whole', onclick: () => { zoomed = nodes[0]; draw(); }});

  const nameOfNode = node => node.index === 0 ? 'all' : flame.functions[node.f][0];
  function colour(node) {
    if (node.index === 0) return '';
    if (layer !== 'candidate' && node.candidate === 0) return 'gone';
    if (layer === 'elided') return 'context';
    const [, , slower, faster] = flame.functions[node.f];
    const s = grade(slower), f = grade(faster);
    return s ? 's' + s : f ? 'f' + f : '';
  }
  function describe(node) {
    const f = flame.functions[node.f];
    const change = node.baseline === 0 ? 'new' : node.candidate === 0 ? 'gone' : percent(node.candidate / node.baseline);
    const certain = node.index === 0 ? '' : ' Of the function everywhere, with callees: p = ' + small(Math.min(f[2], f[3])) +
      '; itself: p = ' + small(Math.min(f[4], f[5])) + ', ' + signed(100 * f[6], 2) + ' of the total.';
    return nameOfNode(node) + (node.index && f[1] ? ' (' + f[1] + ')' : '') + ': baseline ' + share(node.baseline) + ', candidate ' +
      share(node.candidate) + ' of the baseline’s total (' + change + ').' + certain;
  }
  function draw() {
    const width = box.clientWidth || 1000, wanted = search.value.trim().toLowerCase();
    buttons.forEach((button, i) => button.setAttribute('aria-pressed', Object.keys(LAYERS)[i] === layer));
    reset.disabled = zoomed.index === 0;
    box.replaceChildren();
    const scale = width / (zoomed[layer] || 1);
    let deepest = 0, drawn = 0;
    const put = (node, left, right, depth, extra) => {
      if (right - left < LEAST) return;
      deepest = Math.max(deepest, depth);
      ++drawn;
      const f = flame.functions[node.f], name = nameOfNode(node);
      const hit = wanted === '' || name.toLowerCase().includes(wanted);
      const mark = own.has(f[0] + '\u0000' + f[1]) && layer !== 'elided' ? ' guilty' : '';
      const item = make('button', {type: 'button', class: 'box ' + colour(node) + mark + (hit ? '' : ' dim') + extra,
        style: `left:${left}px;top:${depth * ROW}px;width:${Math.max(1, right - left - 1)}px`, 'data-node': node.index,
        text: right - left > 24 ? name : '', 'aria-label': describe(node)});
      box.append(item);
    };
    // What lies above a zoomed node stays in sight.
    const above = [];
    for (let node = zoomed; node.index !== 0;) { node = nodes[node.parent]; above.unshift(node); }
    above.forEach((node, depth) => put(node, 0, width, depth, ' context'));
    const stack = [[zoomed, 0, above.length]];
    while (stack.length) {
      const [node, left, depth] = stack.pop();
      put(node, left, left + node[layer] * scale, depth, '');
      if (node[layer] * scale < LEAST) continue;
      let at = left;
      for (const child of [...node.children].sort((a, b) => nameOfNode(a) < nameOfNode(b) ? -1 : 1)) {
        if (child[layer] > 0) stack.push([child, at, depth + 1]);
        at += child[layer] * scale;
      }
    }
    box.style.height = Math.max(3, deepest + 1) * ROW + 1 + 'px';
    const empty = layer === 'elided' && nodes[0].elided === 0;
    tip.textContent = empty ? 'The candidate has every stack of the baseline.' : LAYER_TEXT[layer] +
      (flame.left_out ? ` ${count(flame.left_out)} stacks are too small to be drawn.` : '');
  }
  const at = event => event.target.dataset.node === undefined ? null : nodes[event.target.dataset.node];
  box.addEventListener('click', event => {
    const node = at(event);
    if (!node) return;
    zoomed = node;
    draw();
    box.querySelector(`[data-node="${node.index}"]`)?.focus();
  });
  for (const kind of ['mouseover', 'focusin']) {
    box.addEventListener(kind, event => { const node = at(event); if (node) tip.textContent = describe(node); });
  }
  const bar = make('div', {class: 'bar'}, ...buttons, reset, search);
  const legend = make('span', {class: 'legend'});
  for (const [variable, text] of [['--slow3', 'slower, most certain'], ['--slow2', 'p ≤ α/10'], ['--slow1', 'p ≤ α'], ['--same', 'not certain'],
    ['--fast1', 'faster, p ≤ α'], ['--fast2', 'p ≤ α/10'], ['--fast3', 'most certain']]) {
    legend.append(make('span', {}, make('i', {style: `background:var(${variable})`}), text));
  }
  bar.append(legend);
  page.append(make('h2', {text: flame.title ? 'Differential flame graph: ' + flame.title : 'Differential flame graph'}), bar, box, tip);
  return {draw, title: flame.title, find(name) { layer = 'candidate'; zoomed = nodes[0]; search.value = name; draw(); box.scrollIntoView({behavior: 'smooth'}); }};
}
const graphs = flames.filter(flame => flame.nodes.length > 1).map(Graph);
focusFunction = (name, title) => { const graph = graphs.find(g => g.title === title); if (graph) graph.find(name); };

// ---- the facts ----
const facts = make('dl');
const fact = (name, text) => facts.append(make('dt', {text: name}), make('dd', {text}));
fact('baseline', report.baseline + ' (' + report.runs.baseline + ' runs)');
fact('candidate', report.candidate + ' (' + report.runs.candidate + ' runs)');
if (report.total_cpu.tested) fact('total CPU time', percent(report.total_cpu.ratio) + ' (' + percent(report.total_cpu.ratio_interval[0]) + ' … ' + percent(report.total_cpu.ratio_interval[1]) + ')');
if (!report.benchmarks) fact('instructions', report.instructions ? percent(report.instructions.ratio, 2) : 'not counted: the machine has no counter of them, or not all runs know theirs');
fact('would have been seen', report.detectable_share === null ? 'nothing: too few samples' : 'a slowdown of one function by ' + share(report.detectable_share) + ' of the total');
fact('samples', count(report.samples) + (report.lost_samples ? ', ' + count(report.lost_samples) + ' lost' : '') + (report.how ? ' (' + report.how + ')' : ''));
fact('false alarms', 'at most ' + share(report.alpha, 1) + ' of checks of unchanged code, ' + count(report.columns_tested) + ' figures tested, seed ' + report.seed);
page.append(make('h2', {text: 'The check'}), facts);

const drawAll = () => graphs.forEach(graph => graph.draw());
drawAll();
addEventListener('resize', drawAll);
</script>
</body>
</html>
)html";

}  // namespace pyrometer::regression
