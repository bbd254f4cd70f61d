// Data as a store would give it, made up but deterministic: a shop of services on two nodes.

export function random(seed) {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const kKernel = 2, kNative = 1, kJit = 3, kUnknown = 0, kSynthetic = 5;
const kProgram = '/usr/local/bin/checkout', kLibc = '/usr/lib/x86_64-linux-gnu/libc.so.6', kSsl = '/usr/lib/x86_64-linux-gnu/libssl.so.3',
  kCrypto = '/usr/lib/x86_64-linux-gnu/libcrypto.so.3', kCpp = '/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30', kZ = '/usr/lib/x86_64-linux-gnu/libz.so.1.2.13';

// [name, kind, module, file, line]
const F = (name, kind, module, file = '', line = 0) => ({ name, kind, module, file, line });
const k = (name) => F(name, kKernel, '[kernel]');
const p = (name, file, line) => F(name, kNative, kProgram, file, line);

const kSyscall = [k('entry_SYSCALL_64_after_hwframe'), k('do_syscall_64')];
const kTree = [
  [[F('_start', kNative, kProgram), F('__libc_start_main', kNative, kLibc), p('main', 'src/main.cc', 41), p('shop::Server::Run(shop::Options const&)', 'src/server.cc', 118)], [
    [[p('shop::Server::HandleRequest(shop::Request const&, shop::Response*)', 'src/server.cc', 203)], [
      [[p('shop::Cart::Price(std::vector<shop::Item, std::allocator<shop::Item> > const&) const', 'src/cart.cc', 77)], [
        [[p('shop::tax::Rate(std::basic_string_view<char, std::char_traits<char> >)', 'src/tax.cc', 12)], 900],
        [[F('std::_Rb_tree<int, std::pair<int const, shop::Rule>, std::_Select1st<std::pair<int const, shop::Rule> >, std::less<int>, std::allocator<std::pair<int const, shop::Rule> > >::find(int const&)', kNative, kProgram, '/usr/include/c++/12/bits/stl_tree.h', 2480)], 620],
        [[F('malloc', kNative, kLibc), F('_int_malloc', kNative, kLibc)], 410],
      ], 820],
      [[p('shop::json::Parse(char const*, unsigned long)', 'src/json.cc', 310)], [
        [[p('shop::json::Parser::Object()', 'src/json.cc', 188)], [
          [[p('shop::json::Parser::String()', 'src/json.cc', 96)], 1350],
          [[p('shop::json::Parser::Number()', 'src/json.cc', 141)], 390],
          [[F('operator new(unsigned long)', kNative, kCpp), F('malloc', kNative, kLibc)], 330],
        ], 260],
      ], 60],
      [[p('shop::Compress(std::string const&)', 'src/gzip.cc', 22), F('deflate', kNative, kZ)], [
        [[F('libz.so.1.2.13+0x5b20', kNative, kZ)], 780],
        [[F('crc32_z', kNative, kZ)], 260],
      ], 420],
      [[F('SSL_write', kNative, kSsl), F('ssl3_write_bytes', kNative, kSsl)], [
        [[F('aesni_gcm_encrypt', kNative, kCrypto)], 690],
        [[F('__libc_write', kNative, kLibc), ...kSyscall, k('ksys_write'), k('vfs_write'), k('sock_write_iter'), k('tcp_sendmsg')], [
          [[k('tcp_push'), k('__tcp_transmit_skb'), k('ip_queue_xmit'), k('__dev_queue_xmit'), k('loopback_xmit')], 380],
          [[k('copy_from_iter')], 190],
        ], 60],
      ], 90],
      [[p('shop::Log::Write(char const*, ...)', 'src/log.cc', 55), F('vfprintf', kNative, kLibc)], 240],
    ], 110],
    [[F('epoll_wait', kNative, kLibc), ...kSyscall, k('do_epoll_wait')], [
      [[k('schedule_hrtimeout_range'), k('schedule'), k('__schedule'), k('finish_task_switch')], 210],
    ], 60],
    [[F('[unknown]', kUnknown, '')], 150],
    [[F('read', kNative, kLibc), ...kSyscall, k('ksys_read'), k('vfs_read'), k('ext4_file_read_iter'), k('filemap_read'), k('copy_page_to_iter')], 300],
  ], 30],
  [[F('start_thread', kNative, kLibc), F('[jit]', kUnknown, '')], [
    [[F('Lcom/shop/Recommender;::score', kJit, '/tmp/perf-812.map')], [
      [[F('Ljava/util/HashMap;::get', kJit, '/tmp/perf-812.map')], 410],
    ], 520],
  ], 30],
  [[F('asm_sysvec_apic_timer_interrupt', kKernel, '[kernel]'), k('__sysvec_apic_timer_interrupt'), k('hrtimer_interrupt')], 45],
  [[F('[truncated]', kSynthetic, ''), p('shop::tree::Walk(shop::tree::Node*)', 'src/tree.cc', 31), p('shop::tree::Walk(shop::tree::Node*)', 'src/tree.cc', 31), p('shop::tree::Visit(shop::tree::Node*)', 'src/tree.cc', 52)], 130],
];

class FlameMaker {
  strings = ['', 'all'];
  stringIds = new Map([['', 0], ['all', 1]]);
  frames = { name: [1], kind: [kSynthetic], module: [0], file: [0], line: [0], inlined: [0] };
  frameIds = new Map();
  nodes = { frame: [0], parent: [-1] };
  children = new Map();
  labelSets = [];
  samples = { labels: [], node: [], values: [[], []] };
  string(s) {
    if (!this.stringIds.has(s)) {
      this.stringIds.set(s, this.strings.length);
      this.strings.push(s);
    }
    return this.stringIds.get(s);
  }
  frame(f) {
    const key = `${f.name}|${f.kind}|${f.module}|${f.line}`;
    if (!this.frameIds.has(key)) {
      this.frameIds.set(key, this.frames.name.length);
      this.frames.name.push(this.string(f.name));
      this.frames.kind.push(f.kind);
      this.frames.module.push(this.string(f.module));
      this.frames.file.push(this.string(f.file));
      this.frames.line.push(f.line);
      this.frames.inlined.push(0);
    }
    return this.frameIds.get(key);
  }
  child(parent, f) {
    const frame = this.frame(f);
    const key = parent * 1e6 + frame;
    if (!this.children.has(key)) {
      this.children.set(key, this.nodes.frame.length);
      this.nodes.frame.push(frame);
      this.nodes.parent.push(parent);
    }
    return this.children.get(key);
  }
  sample(labels, node, count, periodNs = 10101010) {
    this.samples.labels.push(labels);
    this.samples.node.push(node);
    this.samples.values[0].push(count);
    this.samples.values[1].push(count * periodNs);
  }
  finish(title, types) {
    const taken = this.samples.values[0].reduce((a, b) => a + b, 0);
    return {
      version: 1, title,
      profile: {
        timeNs: String((Date.now() - 900_000) * 1e6).replace(/\..*/, ''), durationNs: '900000000000', period: 10101010, types, defaultType: 1,
        accounting: {
          taken: taken + 7, delivered: taken, dropped: { 'ring full': 7 }, stopReasons: { end: Math.round(taken * 0.94), bad_frame: Math.round(taken * 0.04), truncated: Math.round(taken * 0.02) },
          missReasons: { 'outside symbols': 780, 'no perf map': 150 },
        },
        comments: [],
      },
      strings: this.strings, frames: this.frames, nodes: this.nodes, labelSets: this.labelSets, samples: this.samples,
    };
  }
}

const kCpuTypes = [{ type: 'samples', unit: 'count' }, { type: 'cpu', unit: 'nanoseconds' }];

function walk(maker, parent, branch, labels, scale, rnd) {
  const [frames, second, self = 0] = branch;
  let at = parent;
  for (const f of frames) at = maker.child(at, f);
  const jitter = 0.8 + 0.4 * rnd();
  const own = Math.round((typeof second === 'number' ? second : self) * scale * jitter);
  if (own > 0) maker.sample(labels, at, own);
  if (Array.isArray(second)) for (const b of second) walk(maker, at, b, labels, scale, rnd);
}

export function flame(query, by = '') {
  const rnd = random(42);
  const maker = new FlameMaker();
  maker.labelSets = [
    { node: 'eu-1', 'container.name': 'checkout', service: 'checkout', comm: 'checkout' },
    { node: 'eu-2', 'container.name': 'checkout', service: 'checkout', comm: 'checkout' },
    { node: 'eu-1', 'container.name': 'recommender', service: 'recommender', comm: 'java' },
  ];
  const tops = by ? maker.labelSets.map((set) => maker.child(0, F(set[by.split(',')[0]] ?? `(no ${by})`, kSynthetic, ''))) : [0, 0, 0];
  kTree.forEach((branch) => {
    walk(maker, tops[0], branch, 0, 1, rnd);
    walk(maker, tops[1], branch, 1, 0.6, rnd);
    if (branch[0][0].name === 'start_thread') walk(maker, tops[2], branch, 2, 0.9, rnd);
  });
  return maker.finish(query, kCpuTypes);
}

export function emptyFlame(query) {
  const maker = new FlameMaker();
  return maker.finish(query, kCpuTypes);
}

// `count` nodes: many functions, deep and wide, with a Zipf-like weight.
export function bigFlame(query, count) {
  const rnd = random(7);
  const maker = new FlameMaker();
  maker.labelSets = [{ node: 'eu-1', service: 'big' }];
  const modules = [kProgram, kLibc, kSsl, kCrypto, kCpp, '[kernel]', '/usr/lib/libv8.so.11', '/opt/app/libengine.so'];
  const functions = Array.from({ length: 8000 }, (_, i) => {
    const module = modules[Math.floor(rnd() ** 2 * modules.length)];
    return F(`ns${i % 97}::Class${i % 331}<std::vector<int> >::method_${i}(int, char const*)`, module === '[kernel]' ? kKernel : kNative, module, `src/f${i % 200}.cc`, 1 + (i % 900));
  });
  const depth = [0];
  while (maker.nodes.frame.length < count) {
    const n = maker.nodes.frame.length;
    let parent = Math.floor(rnd() ** 1.5 * n);
    // Mostly grow a chain downwards from a random place: stacks are deeper than random trees.
    for (let i = 0, steps = 1 + Math.floor(rnd() * 12); i < steps && maker.nodes.frame.length < count && depth[parent] < 90; i++) {
      const before = maker.nodes.frame.length;
      const node = maker.child(parent, functions[Math.floor(rnd() * functions.length)]);
      if (node === before) depth.push(depth[parent] + 1);
      parent = node;
    }
    maker.sample(0, parent, 1 + Math.floor(40 / (1 + 200 * rnd())));
  }
  for (let i = 0; i < maker.nodes.frame.length; i++) maker.sample(0, i, 1);
  return maker.finish(query, kCpuTypes);
}

// ---- containers, nodes, histograms ----
export const kContainers = [
  ['eu-1', 'checkout', 'docker.io/acme/checkout:2.14.0', 'checkout-7d9f4b5c6-x2x8k', 'shop', 1.84, 412_300, 410e3],
  ['eu-2', 'checkout', 'docker.io/acme/checkout:2.14.0', 'checkout-7d9f4b5c6-9p4lq', 'shop', 1.12, 260_800, 455e3],
  ['eu-1', 'recommender', 'docker.io/acme/recommender:0.9.3', 'recommender-6c5d8f7b-l2k9z', 'shop', 0.71, 88_100, 1.2e6],
  ['eu-2', 'postgres', 'docker.io/library/postgres:15.4', 'postgres-0', 'shop', 0.46, 190_400, 180e3],
  ['eu-1', 'redis', 'docker.io/library/redis:7.2', 'redis-0', 'shop', 0.12, 96_000, 95e3],
  ['eu-2', 'fluent-bit', 'cr.fluentbit.io/fluent/fluent-bit:2.1', 'fluent-bit-8xk2p', 'logging', 0.03, 9_100, 31e6],
];
const kServices = [['eu-1', 'kubelet.service', 0.21, 51_000, 310e3], ['eu-2', 'kubelet.service', 0.19, 48_000, 330e3], ['eu-1', 'containerd.service', 0.09, 22_000, null],
  ['eu-1', 'sshd.service', 0.004, 210, 24e6], ['eu-2', 'systemd-journald.service', 0.011, 3_000, null], ['eu-1', 'kernel', 0.06, 0, null]];

export function containers(now) {
  const spark = (base, seed) => {
    const rnd = random(seed);
    let v = base;
    return Array.from({ length: 30 }, (_, i) => {
      v = Math.max(0, v + (rnd() - 0.5) * base * 0.35 + (base - v) * 0.2);
      return { t: Math.floor(now / 10000) * 10000 - (30 - i) * 10000, v };
    });
  };
  const rows = [
    ...kContainers.map(([node, name, image, pod, namespace, c, syscalls, rtt], i) => ({
      labels: { node, 'container.name': name, 'container.id': `${i}f3a9c81d2e4`.padEnd(64, 'b'), image, pod, namespace, service: name, runtime: 'containerd' },
      isHost: false, cores: c, samples: Math.round(c * 990), spark: spark(c, 11 + i), syscalls, rttP50Ns: rtt,
    })),
    ...kServices.map(([node, service, c, syscalls, rtt], i) => ({
      labels: { node, service }, isHost: true, cores: c, samples: Math.round(c * 990), spark: spark(c, 91 + i), syscalls, rttP50Ns: rtt,
    })),
  ];
  return { windowNs: 60e9, containers: rows.sort((a, b) => b.cores - a.cores) };
}

export function nodes(now) {
  const probes = [{ name: 'cpu_sampler', state: 'ok', reason: '' }, { name: 'syscall_latency', state: 'ok', reason: '' }, { name: 'tcp_latency', state: 'ok', reason: '' }, { name: 'process_events', state: 'ok', reason: '' }, { name: 'off_cpu', state: 'unused', reason: '' }];
  return {
    nodes: [
      { node: 'eu-1', agentId: '5f0e3a1b9c', version: '0.1.0', lastSeenMs: now - 1200, online: true, cpus: 8, kernel: '6.1.0-18-amd64', frequencyHz: 99, probes, cpuNsPerS: 6.1e6, rssBytes: 48e6, taken: 31200, delivered: 31200, dropped: {} },
      { node: 'eu-2', agentId: '8812fa99d0', version: '0.1.0', lastSeenMs: now - 900, online: true, cpus: 4, kernel: '5.15.0-91-generic', frequencyHz: 99, cpuNsPerS: 4.2e6, rssBytes: 41e6, taken: 17822, delivered: 17815, dropped: { 'ring full': 7 },
        probes: probes.map((x) => (x.name === 'tcp_latency' ? { ...x, state: 'degraded', reason: 'this kernel has no tcp_probe tracepoint: RTT is read when connections close; upgrade to Linux 5.16 or later' } : x)) },
    ],
  };
}

// Log-linear buckets (16 per octave) around some modes.
export function histogram(seed, modes, total) {
  const rnd = random(seed);
  const counts = new Map();
  for (let i = 0; i < 4000; i++) {
    const [at, spread] = modes[Math.floor(rnd() ** 1.6 * modes.length)];
    const v = at * Math.exp((rnd() + rnd() + rnd() - 1.5) * spread);
    const e = Math.floor(Math.log2(v)), sub = Math.floor((v / 2 ** e - 1) * 16);
    const low = 2 ** e * (1 + sub / 16);
    counts.set(low, (counts.get(low) ?? 0) + 1);
  }
  const scale = total / 4000;
  const buckets = [...counts].sort((a, b) => a[0] - b[0]).map(([low, n]) => [Math.round(low), Math.round(low + 2 ** Math.floor(Math.log2(low)) / 16), Math.max(1, Math.round(n * scale))]);
  const count = buckets.reduce((s, b) => s + b[2], 0), sum = buckets.reduce((s, b) => s + b[2] * (b[0] + b[1]) / 2, 0);
  const quantile = (q) => {
    let left = q * count;
    for (const b of buckets) if ((left -= b[2]) <= 0) return b[1];
    return buckets.at(-1)[1];
  };
  return { count, sum: Math.round(sum), max: buckets.at(-1)[1], p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99), mean: sum / count, buckets };
}

const kCalls = [
  ['checkout', 'epoll_wait', [[4e6, 1.1], [90e6, 0.4]], 41_000, {}], ['checkout', 'futex', [[30e3, 1.4], [9e6, 1.2]], 22_400, { EAGAIN: 3100, ETIMEDOUT: 240 }],
  ['checkout', 'read', [[2.1e3, 0.8], [5.2e6, 0.5]], 88_000, { EAGAIN: 5120 }], ['checkout', 'write', [[4.4e3, 0.7], [40e3, 0.8]], 64_200, {}], ['checkout', 'openat', [[7e3, 0.6], [60e3, 1]], 5_100, { ENOENT: 1890 }],
  ['postgres', 'fsync', [[1.8e6, 0.5], [38e6, 0.5]], 2_900, {}], ['postgres', 'pread64', [[3e3, 0.5], [190e3, 0.8]], 45_000, {}], ['postgres', 'recvfrom', [[2e3, 0.7], [11e6, 1]], 31_000, { EAGAIN: 12_000 }],
  ['recommender', 'mmap', [[6e3, 0.5], [25e3, 0.4]], 900, {}], ['recommender', 'futex', [[50e3, 1.3], [20e6, 1.1]], 61_000, { EAGAIN: 900, ETIMEDOUT: 1500 }], ['redis', 'epoll_wait', [[1e6, 1.2], [80e6, 0.5]], 35_000, {}],
  ['redis', 'write', [[6e3, 0.5], [30e3, 0.5]], 30_100, {}], ['fluent-bit', 'nanosleep', [[20.1e6, 0.02], [20.3e6, 0.03]], 3_000, {}],
];

// What the time of a call, or of a container's threads, went to: fractions of `whole` ns.
const kSplits = {
  futex: { lock: 0.93, runnable: 0.05, running: 0.02 }, epoll_wait: { poll: 0.97, runnable: 0.02, running: 0.01 }, read: { network: 0.71, page_fault: 0.05, running: 0.24 },
  fsync: { block_io: 0.96, runnable: 0.03, running: 0.01 }, pread64: { block_io: 0.74, page_fault: 0.04, running: 0.22 }, recvfrom: { network: 0.94, running: 0.06 }, nanosleep: { timer: 0.998, runnable: 0.002 },
};
const kContainerSplits = {
  checkout: { lock: 0.31, network: 0.12, runnable: 0.06, throttled: 0.08, poll: 0.43 }, postgres: { block_io: 0.34, network: 0.1, lock: 0.05, runnable: 0.01, poll: 0.5 },
  recommender: { lock: 0.58, runnable: 0.09, page_fault: 0.03, poll: 0.3 }, redis: { runnable: 0.02, poll: 0.98 }, 'fluent-bit': { timer: 0.995, network: 0.005 },
};

export function causeSeries(type, filter, t) {
  const out = [];
  const add = (labels, split, whole) => Object.entries(split).forEach(([cause, share]) => {
    const set = { ...labels, cause };
    if (filter(set)) out.push({ labels: set, points: [[t, Math.round(share * whole)]] });
  });
  if (type === 'syscall_time') histograms(() => true).forEach((h) => add(h.labels, kSplits[h.labels.syscall] ?? { running: 0.97, runnable: 0.03 }, h.sum));
  else kContainers.forEach(([node, name], i) => add({ node, 'container.name': name, service: name }, kContainerSplits[name], type === 'waits' ? 40_000 + i * 1000 : (9 - i) * 310e9));
  return { unit: type === 'waits' ? 'count' : 'nanoseconds', stepNs: 31536e15, series: out };
}

export function queueHistograms(filter) {
  return kContainers.map(([node, name], i) => ({
    labels: { node, 'container.name': name, service: name }, ...histogram(500 + i, [[9e3, 0.9], [4e6 / (i + 1), 0.7]], 40_000), errors: {}, exemplars: 0,
  })).filter((h) => filter(h.labels));
}

// Stacks of waits, outermost first; [name] is a cause, what stands above it the stack of who ended the wait.
const kWaitStacks = [
  [['main', 'shop::Server::Run(shop::Options const&)', 'shop::Cache::Get(int)', 'pthread_mutex_lock', 'do_futex', 'futex_wait', '[lock]'], ['[woken by checkout]', 'do_futex', 'pthread_mutex_unlock', 'shop::Cache::Refresh()', 'start_thread'], 420e9],
  [['main', 'shop::Server::Run(shop::Options const&)', 'shop::Cache::Put(int, shop::Item)', 'pthread_mutex_lock', 'do_futex', 'futex_wait', '[lock]'], ['[woken by checkout]', 'do_futex', 'pthread_mutex_unlock', 'shop::Cache::Get(int)', 'main'], 160e9],
  [['main', 'shop::Server::Run(shop::Options const&)', 'shop::Db::Query(std::string const&)', 'recv', 'tcp_recvmsg', '[network]'], ['[woken by an interrupt]', 'tcp_data_ready', 'net_rx_action'], 150e9],
  [['main', 'shop::Server::Run(shop::Options const&)', 'shop::json::Parse(char const*, unsigned long)', '[throttled]'], [], 96e9],
  [['main', 'shop::Server::Run(shop::Options const&)', 'shop::json::Parse(char const*, unsigned long)', '[runnable]'], [], 71e9],
  [['start_thread', 'shop::Log::Flush()', 'fsync', 'ext4_sync_file', '[block_io]'], ['[woken by an interrupt]', 'bio_endio', 'blk_done_softirq'], 52e9],
  [['main', 'shop::Server::Run(shop::Options const&)', 'epoll_wait', 'do_epoll_wait', '[poll]'], ['[woken by an interrupt]', 'ep_poll_callback', 'net_rx_action'], 900e9],
];

export function waitFlame(query) {
  const maker = new FlameMaker();
  maker.labelSets = [{ 'container.name': 'checkout' }];
  const wakers = query.startsWith('off_cpu_wakers'), busy = /cause!~/.test(query);
  for (const [stack, waker, ns] of kWaitStacks) {
    if (busy && stack.at(-1) === '[poll]') continue;
    let at = 0;
    for (const name of wakers ? [...stack, ...waker] : stack) {
      const kernel = /^(do_|futex_|tcp_|ext4_|ep_|net_rx|bio_|blk_)/.test(name);
      at = maker.child(at, name.startsWith('[') ? F(name, kSynthetic, '') : F(name, kernel ? kKernel : kNative, kernel ? '[kernel]' : /^(pthread|recv|fsync|epoll_wait|start_thread)/.test(name) ? kLibc : kProgram));
    }
    maker.sample(0, at, Math.round(ns / 1e9), 1e9);
  }
  return maker.finish(query, [{ type: 'waits', unit: 'count' }, { type: 'off_cpu', unit: 'nanoseconds' }]);
}

export function histograms(filter) {
  return kCalls.map(([name, syscall, modes, total, errors], i) => ({
    labels: { node: kContainers.find((c) => c[1] === name)[0], 'container.name': name, service: name, syscall }, ...histogram(100 + i, modes, total), errors, exemplars: 40,
  })).filter((h) => filter(h.labels)).sort((a, b) => b.sum - a.sum);
}

// Calls that have not returned: one of them of a kind of which none has.
export function openCalls(filter) {
  return [['checkout', 'futex', [[2e9, 0.4]], 2, 'lock'], ['checkout', 'futex', [[2e9, 0.4]], 1, 'runnable'], ['fluent-bit', 'flock', [[754e9, 0.01]], 1, 'lock']].map(([name, syscall, modes, count, cause], i) => {
    const { max, buckets } = histogram(700 + i, modes, 4000);
    return { labels: { node: kContainers.find((c) => c[1] === name)[0], 'container.name': name, service: name, syscall, cause }, count, sum: max * count, max, p50: max, p95: max, p99: max, mean: max, buckets: [[buckets.at(-1)[0], buckets.at(-1)[1], count]], errors: {}, exemplars: 0 };
  }).filter((h) => filter(h.labels));
}

const kPeers = [
  ['checkout', '10.42.1.17:5432', 'out', 0.38e6, 0, 1.9e9, 2.2e8], ['checkout', '10.42.1.9:6379', 'out', 0.11e6, 0, 8.1e7, 9.3e7], ['checkout', '203.0.113.80:443', 'out', 24.6e6, 142, 6.4e6, 3.1e7],
  ['checkout', '10.42.0.2', 'in', 0.41e6, 3, 7.7e8, 1.2e8], ['recommender', '10.42.1.9:6379', 'out', 0.42e6, 0, 5e6, 4.4e7], ['fluent-bit', '198.51.100.7:24224', 'out', 31.8e6, 18, 9.1e7, 1.1e5], ['postgres', '10.42.0.31', 'in', 0.36e6, 0, 2.2e8, 1.9e9],
  ['recommender', '[2001:db8:85a3:8d3:1319:8a2e:370:7348]:50443', 'out', 2.4e6, 1204, 9.31e11, 8.88e11],
];

export function peers() {
  return {
    peers: kPeers.map(([name, peer, direction, rtt, retransmits, sent, received], i) => {
      const h = histogram(300 + i, [[rtt, 0.25], [rtt * 1.8, 0.6]], 12_000 + i * 900);
      return {
        labels: { 'container.name': name, peer, direction }, rttP50Ns: h.p50, rttP95Ns: h.p95, rttP99Ns: h.p99, minRttNs: Math.round(rtt * 0.7), connectP50Ns: direction === 'out' ? Math.round(rtt * 1.1) : null,
        samples: h.count, retransmits, rttVariationP50Ns: Math.round(rtt * 0.1), retransmitsByCause: retransmits > 100 ? { fast: retransmits - 30, rto: 22, tlp: 8 } : retransmits ? { tlp: retransmits } : {},
        resets: i === 2 ? { received: 6 } : {}, zeroWindows: i === 3 ? { received: 41 } : {}, limitedNs: i === 3 ? { receiver: 210e9, network: 31e9, application: 650e9 } : { network: 12e9 + rtt * 1e3, application: 840e9, ...(i === 0 ? { 'send buffer': 4e9 } : {}) },
        connectionsFound: 2, connectionsClosed: 30, connectFailures: i === 2 ? 3 : 0, bytesSent: sent, bytesReceived: received, connections: 40 + i * 13,
      };
    }),
  };
}

export function peerHistogram(labels) {
  const i = Math.max(0, kPeers.findIndex((x) => x[1] === labels.peer));
  return { labels, ...histogram(300 + i, [[kPeers[i][3], 0.25], [kPeers[i][3] * 1.8, 0.6]], 12_000), errors: {}, exemplars: 0 };
}

export function heatmap(from, to, stepMs, modes) {
  const columns = [];
  for (let t = Math.floor(from / stepMs) * stepMs; t < to; t += stepMs) {
    const i = Math.round(t / stepMs);
    const wave = 1 + 0.5 * Math.sin(i / 9);
    columns.push({ t, buckets: histogram(i, modes.map(([at, spread], m) => [at * (m === modes.length - 1 ? wave : 1), spread * 0.8]), 300).buckets });
  }
  return { stepNs: stepMs * 1e6, columns };
}

export function exemplars(minNs, maxNs, now, drawn) {
  const rnd = random(minNs & 0xffff);
  const stacks = [
    ['[poll]', 'do_epoll_wait', 'do_syscall_64', 'entry_SYSCALL_64_after_hwframe', 'epoll_wait', 'shop::Server::Run(shop::Options const&)', 'main'],
    ['[lock]', 'futex_wait', 'do_futex', 'do_syscall_64', 'entry_SYSCALL_64_after_hwframe', '__lll_lock_wait', 'pthread_mutex_lock', 'shop::Cache::Get(int)', 'shop::Server::HandleRequest(shop::Request const&, shop::Response*)', 'main'],
    ['[block_io]', 'vfs_read', 'ksys_read', 'do_syscall_64', 'entry_SYSCALL_64_after_hwframe', 'read', 'shop::tax::Load(char const*)', 'shop::Server::HandleRequest(shop::Request const&, shop::Response*)', 'main'],
  ];
  const maker = new FlameMaker();
  maker.labelSets = [{ 'container.name': 'checkout' }];
  const list = Array.from({ length: 24 }, (_, i) => {
    const frames = stacks[Math.floor(rnd() * stacks.length)];
    const durationNs = Math.round(minNs * (maxNs / minNs) ** (rnd() ** 2));
    let at = 0;
    for (const name of frames.slice().reverse()) {
      const kernel = /^(do_|futex_wait|vfs_|ksys_|entry_)/.test(name);
      at = maker.child(at, name.startsWith('[') ? F(name, kSynthetic, '') : F(name, kernel ? kKernel : kNative, kernel ? '[kernel]' : /^(read|epoll_wait|pthread|__lll)/.test(name) ? kLibc : kProgram));
    }
    maker.samples.labels.push(0);
    maker.samples.node.push(at);
    const weight = drawn ? 1 << (4 + i % 9) : i % 6 === 0 ? 2048 : 0;
    maker.samples.values[0].push(drawn ? weight : 1);
    maker.samples.values[1].push(drawn ? weight * durationNs : durationNs);
    const call = { '[poll]': 'epoll_wait(4 → anon_inode:[eventpoll], …, 512, -1) = 1', '[lock]': '', '[block_io]': 'read(31 → /var/lib/checkout/tax/rates-2024-q3-with-a-long-name.bin, …, 65536) = 65536' }[frames[0]];
    const cause = frames[0].slice(1, -1);
    const splitNs = { [cause]: Math.round(durationNs * 0.93), runnable: Math.round(durationNs * 0.04), running: Math.round(durationNs * 0.03) };
    const waker = cause !== 'lock' ? null : { comm: 'compactor', tid: 4311, cause, waitNs: Math.round(durationNs * 0.9), frames: ['try_to_wake_up', 'wake_up_q', 'futex_wake', 'do_futex', 'do_syscall_64', '__lll_lock_wake', 'shop::CompactIndex(shop::Index*)', 'shop::Compactor::Run()', 'start_thread'] };
    return { timeMs: now - i * 17_000, durationNs, comm: 'checkout', tid: 4200 + (i % 5), call, weight, slow: !drawn || i % 8 === 0, splitNs, waker, labels: { 'container.name': 'checkout' }, frames };
  }).sort((a, b) => b.durationNs - a.durationNs);
  return { exemplars: list, flame: maker.finish('slow calls', [{ type: 'samples', unit: 'count' }, { type: 'duration', unit: 'nanoseconds' }]) };
}
