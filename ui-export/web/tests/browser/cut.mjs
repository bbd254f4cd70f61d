// What a store answers for a flame graph with more boxes than are shown (docs/api.md): the largest ones, "(smaller)" for the
// others beside their siblings, and with a focus "(outside the focus)" for what lies beside the way to it.
const kSynthetic = 5;

export function cut(doc, maxNodes, focus = []) {
  const { frame, parent } = doc.nodes, n = frame.length, types = doc.samples.values.length;
  const self = Array.from({ length: types }, () => new Float64Array(n));
  doc.samples.node.forEach((node, s) => self.forEach((column, t) => (column[node] += doc.samples.values[t][s])));
  const total = self.map((column) => Float64Array.from(column));
  for (let i = n - 1; i > 0; i--) total.forEach((column) => (column[parent[i]] += column[i]));
  const size = total[doc.profile.defaultType];
  const name = (i) => doc.strings[doc.frames.name[frame[i]]];

  // How many names of the focus lead to a node; beside the way -1, below its end Infinity.
  const step = new Float64Array(n).fill(-1);
  step[0] = focus.length === 0 ? Infinity : 0;
  for (let i = 1; i < n; i++) {
    const p = step[parent[i]];
    if (p === Infinity) step[i] = Infinity;
    else if (p >= 0 && name(i) === focus[p]) step[i] = p + 1 === focus.length ? Infinity : p + 1;
  }
  const kept = new Uint8Array(n);
  kept[0] = 1;
  const candidates = [];
  for (let i = 1; i < n; i++) {
    if (step[i] >= 0 && step[i] !== Infinity) kept[i] = 1;
    else if (step[i] === Infinity && size[i] > 0) candidates.push(i);
  }
  candidates.sort((a, b) => size[b] - size[a] || a - b);
  for (const i of candidates.slice(0, maxNodes)) kept[i] = 1;

  const out = {
    ...doc, strings: doc.strings.slice(), frames: Object.fromEntries(Object.entries(doc.frames).map(([k, v]) => [k, v.slice()])),
    nodes: { frame: [], parent: [] }, samples: { labels: [], node: [], values: self.map(() => []) },
  };
  const row = (node, values) => {
    if (values.every((v) => v === 0)) return;
    out.samples.labels.push(0);
    out.samples.node.push(node);
    values.forEach((v, t) => out.samples.values[t].push(v));
  };
  const at = new Int32Array(n).fill(-1);
  for (let i = 0; i < n; i++) {
    if (!kept[i]) continue;
    at[i] = out.nodes.frame.length;
    out.nodes.frame.push(frame[i]);
    out.nodes.parent.push(i === 0 ? -1 : at[parent[i]]);
    row(at[i], self.map((column) => column[i]));
  }
  const frameOf = new Map();
  const standIn = (text) => {
    if (!frameOf.has(text)) {
      out.strings.push(text);
      frameOf.set(text, out.frames.name.length);
      for (const column of Object.values(out.frames)) column.push(0);
      out.frames.name[frameOf.get(text)] = out.strings.length - 1;
      out.frames.kind[frameOf.get(text)] = kSynthetic;
    }
    return frameOf.get(text);
  };
  const sums = new Map(); // one box per parent and reason
  for (let i = 1; i < n; i++) {
    if (kept[i] || !kept[parent[i]] || size[i] === 0) continue;
    const text = step[i] === Infinity ? '(smaller)' : '(outside the focus)';
    const key = `${parent[i]} ${text}`;
    if (!sums.has(key)) {
      sums.set(key, { node: out.nodes.frame.length, values: total.map(() => 0) });
      out.nodes.frame.push(standIn(text));
      out.nodes.parent.push(at[parent[i]]);
    }
    sums.get(key).values.forEach((_, t, values) => (values[t] += total[t][i]));
  }
  for (const { node, values } of sums.values()) row(node, values);
  return out;
}
