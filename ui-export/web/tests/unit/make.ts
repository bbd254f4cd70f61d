// Flame documents for tests.
export function random(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// all > main (1 self) > hot_a 6, hot_b 3; hot_b's samples come from outside of a container.
export function tiny() {
  return {
    version: 1, title: 'cpu{}',
    profile: {
      timeNs: '1764000000000000000', durationNs: '10000000000', period: 10101010,
      types: [{ type: 'samples', unit: 'count' }, { type: 'cpu', unit: 'nanoseconds' }], defaultType: 1,
      accounting: { taken: 10, delivered: 10, dropped: {}, stopReasons: {}, missReasons: {}, expected: 0, means: {}, frames: 0 }, comments: [] as string[],
    },
    strings: ['', 'all', 'main', 'hot_a', 'hot_b', '/bin/shop'],
    frames: { name: [1, 2, 3, 4], kind: [5, 1, 1, 1], module: [0, 5, 5, 5], file: [0, 0, 0, 0], line: [0, 10, 20, 30], inlined: [0, 0, 0, 0] },
    nodes: { frame: [0, 1, 2, 3], parent: [-1, 0, 1, 1] },
    labelSets: [{ 'container.name': 'shop' }, { service: 'cron' }] as Record<string, string>[],
    samples: { labels: [0, 0, 1], node: [1, 2, 3], values: [[1, 6, 3], [10101010, 60606060, 30303030]] },
  };
}

export function randomFlame(seed: number) {
  const rnd = random(seed * 7919);
  const functions = 3 + Math.floor(rnd() * 25), nodes = 1 + Math.floor(rnd() * 300);
  const strings = ['', 'all', 'mod_a', 'mod_b', ...Array.from({ length: functions }, (_, i) => `f${i % Math.max(1, functions - 3)}`)];
  const json = tiny();
  json.strings = strings;
  const pick = (n: number): number => Math.floor(rnd() * n);
  json.frames = { name: [1], kind: [5], module: [0], file: [0], line: [0], inlined: [0] };
  for (let i = 0; i < functions; i++) {
    json.frames.name.push(4 + i);
    json.frames.kind.push(pick(5));
    json.frames.module.push(pick(4));
    json.frames.file.push(pick(4));
    json.frames.line.push(pick(3));
    json.frames.inlined.push(pick(2));
  }
  json.nodes = { frame: [0], parent: [-1] };
  for (let i = 1; i < nodes; i++) {
    json.nodes.frame.push(1 + pick(functions));
    json.nodes.parent.push(Math.floor(rnd() ** 0.5 * i));
  }
  json.labelSets = [{ service: 'a', comm: 'x' }, { service: 'b', comm: 'x' }, { comm: 'y' }, {}];
  const samples = 1 + pick(400);
  json.samples = { labels: [], node: [], values: [[], []] };
  for (let i = 0; i < samples; i++) {
    json.samples.labels.push(pick(4));
    json.samples.node.push(pick(nodes));
    const v = rnd() < 0.1 ? 0 : 1 + pick(50);
    json.samples.values[0]!.push(v);
    json.samples.values[1]!.push(v * 10101010);
  }
  return json;
}
