// A small server with the API of docs/api.md over made-up data, and the built page beside it. Loopback, any free port.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, relative } from 'node:path';
import { cut } from './cut.mjs';
import * as data from './data.mjs';
import { subSecond } from './seconds.mjs';

const kMime = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

// Just enough of the selector language for the tests: label="value" pairs.
function matchersOf(query) {
  return [...query.matchAll(/([\w.]+)="((?:[^"\\]|\\.)*)"/g)].map((m) => [m[1], m[2].replace(/\\(.)/g, '$1')]);
}

function timeOf(text, now, fallback) {
  if (!text) return fallback;
  if (text === 'now') return now;
  const m = /^-(\d+)([smhd])$/.exec(text);
  if (m) return now - Number(m[1]) * { s: 1e3, m: 6e4, h: 36e5, d: 864e5 }[m[2]];
  return Number(text);
}

// Read once: a build that runs meanwhile changes nothing.
function readTree(root, at = root, into = new Map()) {
  for (const name of readdirSync(at)) {
    const path = join(at, name);
    if (statSync(path).isDirectory()) readTree(root, path, into);
    else into.set(`/${relative(root, path)}`, readFileSync(path));
  }
  return into;
}

const kShown = 1500;
let hugeTree;

async function bodyOf(req) {
  let body = '';
  for await (const piece of req) body += piece;
  return body;
}

export async function startMock({ dist, token = '', fresh = false, offline = false } = {}) {
  const files = readTree(dist);
  let big;
  // Made once per process: 40,000 boxes, of which an answer shows kShown.
  const huge = () => (hugeTree ??= data.bigFlame('cpu{service="huge"}', 40_000));
  const state = { fresh, offline, token, calls: [], sessions: [], focus: { delayMs: 0, error: '', answered: [] }, huge, started: Date.now() - (fresh ? 2000 : 3_600_000) };
  const server = createServer((req, res) => {
    const url = new URL(req.url, 'http://localhost');
    const now = Date.now();
    const reply = (code, body) => {
      res.writeHead(code, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' });
      res.end(JSON.stringify(body));
    };
    const fail = (code, message, position) => reply(code, { error: { code: 'invalid_argument', message, ...(position === undefined ? {} : { position }) } });
    if (!url.pathname.startsWith('/api/')) {
      const body = files.get(url.pathname === '/' ? '/index.html' : url.pathname);
      if (!body) {
        res.writeHead(404);
        res.end();
        return;
      }
      res.writeHead(200, { 'Content-Type': kMime[extname(url.pathname)] ?? kMime['.html'], 'Content-Security-Policy': "default-src 'self'; img-src 'self' data:" });
      res.end(body);
      return;
    }
    const call = url.pathname.slice('/api/v1/'.length);
    state.calls.push(`${req.method} ${call}${url.search}`);
    if (state.offline) {
      req.socket.destroy();
      return;
    }
    if (state.token && req.headers.authorization !== `Bearer ${state.token}`) {
      reply(401, { error: { code: 'unauthenticated', message: 'a token is needed' } });
      return;
    }
    const query = url.searchParams.get('query') ?? '';
    if (/\{[^}]*$/.test(query)) {
      fail(400, "this '{' is never closed", query.indexOf('{'));
      return;
    }
    if (/=~"[^"]*\([^)"]*"/.test(query)) {
      fail(400, 'missing ): the regular expression has an open group', query.indexOf('(') );
      return;
    }
    const wanted = matchersOf(query);
    const matches = (labels) => wanted.every(([name, value]) => (labels[name] ?? '') === value || name === 'container.id');
    const from = timeOf(url.searchParams.get('from'), now, now - 900_000), to = timeOf(url.searchParams.get('to'), now, now);
    const step = Number((url.searchParams.get('step') ?? '10s').replace('s', '')) * 1000;
    switch (call) {
      case 'status':
        return reply(200, { version: '0.1.0', startedMs: state.started, nowMs: now, mode: 'store', node: null, authRequired: state.token !== '', nodes: 2,
          store: state.fresh ? { bytes: 0, series: 0, stacks: 0, batches: 0, samples: 0, memoryBytes: 9e6 } : { bytes: 48_211_004, series: 412, stacks: 88_120, batches: 7_200, samples: 17_402_331, memoryBytes: 121_000_000 } });
      case 'nodes': return reply(200, data.nodes(now));
      case 'containers': return reply(200, state.fresh ? { windowNs: 0, containers: [] } : data.containers(now));
      case 'types': return reply(200, { types: [{ name: 'cpu', kind: 'profile', unit: 'nanoseconds', help: 'CPU time' }, { name: 'syscall_latency', kind: 'histogram', unit: 'nanoseconds', help: '' }] });
      case 'labels': return reply(200, { labels: ['node', 'container.name', 'service', 'comm', 'image', 'pod', 'namespace'] });
      case 'label-values': {
        const label = url.searchParams.get('label');
        return reply(200, { values: [...new Set(data.containers(now).containers.map((c) => c.labels[label]).filter(Boolean))] });
      }
      case 'series': {
        if (state.fresh || wanted.some(([, v]) => v === 'nothing')) return reply(200, { unit: 'nanoseconds', stepNs: step * 1e6, series: [] });
        const type = /^\w+/.exec(query)?.[0] ?? '';
        if (/(^|,)cause$/.test(url.searchParams.get('by') ?? '')) return reply(200, data.causeSeries(type, matches, from));
        const points = [], counts = [];
        for (let t = Math.ceil(from / step) * step; t < to - step; t += step) {
          const i = t / step;
          const cores = 3.1 + Math.sin(i / 11) * 0.9 + data.random(i)() * 0.7 + (Math.floor(i / 31) % 5 === 0 ? 2.1 : 0);
          if (Math.floor(i / 17) % 19 === 3 && i % 17 < 3) continue; // a gap: the agent was away
          points.push([t, Math.round(cores * step * 1e6)]);
          counts.push([t, Math.round(cores * step * 3)]);
        }
        return reply(200, { unit: 'nanoseconds', stepNs: step * 1e6, series: [{ labels: {}, points, counts }] });
      }
      case 'flame': {
        if (state.fresh || wanted.some(([, v]) => v === 'nothing')) return reply(200, data.emptyFlame(query));
        if (wanted.some(([n, v]) => n === 'service' && v === 'big')) {
          big ??= JSON.stringify(data.bigFlame(query, 100_000));
          res.writeHead(200, { 'Content-Type': 'application/json' });
          res.end(big);
          return undefined;
        }
        const range = [from, to];
        if (wanted.some(([n, v]) => n === 'service' && v === 'huge')) {
          void (async () => {
            const names = url.searchParams.get('focus');
            const focus = req.method === 'POST' ? JSON.parse(await bodyOf(req)).focus : names ? names.split('\n') : [];
            const { delayMs, error } = state.focus;
            if (focus.length > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
            if (res.destroyed) return; // nobody waits for it any more
            if (focus.length > 0 && error) return fail(504, error);
            if (focus.length > 0) state.focus.answered.push({ focus, range });
            reply(200, { ...cut(huge(), kShown, focus), title: query, range });
          })();
          return undefined;
        }
        if (query.startsWith('off_cpu')) return reply(200, { ...data.waitFlame(query), range });
        return reply(200, { ...data.flame(query, url.searchParams.get('by') ?? ''), range });
      }
      case 'histograms': {
        if (query.startsWith('tcp_rtt')) return reply(200, { unit: 'nanoseconds', histograms: [data.peerHistogram(Object.fromEntries(wanted))] });
        if (query.startsWith('run_queue_latency')) return reply(200, { unit: 'nanoseconds', histograms: data.queueHistograms(matches) });
        if (query.startsWith('syscall_open')) {
          if (url.searchParams.get('latest') !== '1') return fail(400, 'what is open now is no sum over windows');
          return reply(200, { unit: 'nanoseconds', histograms: state.fresh ? [] : data.openCalls(matches) });
        }
        return reply(200, { unit: 'nanoseconds', histograms: state.fresh ? [] : data.histograms(matches) });
      }
      case 'heatmap': {
        const cell = Number((url.searchParams.get('cell') ?? '').replace('ms', ''));
        if (cell > 0) return reply(200, subSecond(from, to, Number(url.searchParams.get('step').replace('ms', '')), cell, query));
        return reply(200, data.heatmap(from, to, step, query.startsWith('tcp_rtt') ? [[0.4e6, 0.3]] : [[30e3, 1], [9e6, 1]]));
      }
      case 'exemplars': return reply(200, data.exemplars(Number(url.searchParams.get('minNs')) || 1, Number(url.searchParams.get('maxNs')) || 1e9, now, url.searchParams.get('kind') === 'drawn'));
      case 'peers': return reply(200, state.fresh ? { peers: [] } : data.peers());
      case 'export':
        res.writeHead(200, { 'Content-Disposition': `attachment; filename="profile.${url.searchParams.get('format')}"` });
        res.end('data');
        return undefined;
      default:
    }
    if (call === 'sessions' && req.method === 'GET') {
      for (const s of state.sessions) {
        if (s.state === 'running' && now >= s.startedMs + s.durationNs / 1e6) s.state = 'done';
        if (s.state === 'running' || s.state === 'done') s.samples = Math.round(Math.min(now - s.startedMs, s.durationNs / 1e6) * 1.9);
      }
      return reply(200, { sessions: state.sessions });
    }
    if (call === 'sessions' && req.method === 'POST') {
      let body = '';
      req.on('data', (d) => (body += d));
      req.on('end', () => {
        const asked = JSON.parse(body);
        const target = asked.target.container ? `container=${asked.target.container}` : asked.target.pid ? `pid=${asked.target.pid}` : '';
        const s = { id: `s${state.sessions.length + 1}a7`, node: asked.node, target, probes: asked.probes, state: 'running', startedMs: Date.now(), durationNs: asked.durationNs, samples: 0, error: '' };
        state.sessions.unshift(s);
        reply(200, s);
      });
      return undefined;
    }
    if (call.startsWith('sessions/') && req.method === 'DELETE') {
      const s = state.sessions.find((x) => x.id === call.slice('sessions/'.length));
      if (s) s.state = 'stopped';
      return s ? reply(200, s) : fail(404, 'no such session');
    }
    return fail(404, `no such call: ${call}`);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`, state,
    close: () => new Promise((resolve) => {
      server.closeAllConnections();
      server.close(resolve);
    }),
  };
}
