// Drives the built page and viewer in Debian's Chromium against a mock store, and measures redraws.
//
//   npm run build && npm run build:viewer && npm run test:browser
//   PYROMETER_SHOTS=/tmp/shots npm run test:browser      keeps the screenshots there
//
// Uses loopback and free ports only. Exit code 1 when any check fails, when the page logs an error, or when it asks
// for anything outside of its own server.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';
import { bigFlame, flame } from './data.mjs';
import { startMock } from './mock.mjs';
import { secondsChecks } from './seconds.mjs';
import { zoomChecks } from './zoom.mjs';

const web = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const dist = process.env.PYROMETER_DIST ?? join(web, 'dist');
const viewerFile = join(process.env.PYROMETER_DIST_VIEWER ?? join(web, 'dist-viewer'), 'viewer.html');
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const kMedianBudgetMs = 16; // one frame at 60 Hz
const kFirstPaintBudgetMs = 10_000; // 100,000 frames over the wire, parsed, built and drawn, on a busy machine

for (const [path, remedy] of [[dist, 'npm run build'], [viewerFile, 'npm run build:viewer'], [executablePath, 'apt-get install chromium']]) {
  if (!existsSync(path)) {
    console.error(`${path} is missing; run: ${remedy}`);
    process.exit(1);
  }
}
const viewerHtml = readFileSync(viewerFile, 'utf8');
const temp = mkdtempSync(join(tmpdir(), 'pyrometer-browser-'));
const shots = process.env.PYROMETER_SHOTS ?? join(temp, 'shots');
mkdirSync(shots, { recursive: true });

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
let failed = 0, passed = 0;

async function open(path, { mock, width = 1280, height = 800, scheme = 'light', allowErrors = false } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, timezoneId: 'UTC', locale: 'en-GB' });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000); // others may keep the machine busy
  page.problems = [];
  page.on('pageerror', (e) => page.problems.push(`page error: ${e.message}`));
  page.on('console', (m) => {
    if (m.type() === 'error' && !allowErrors) page.problems.push(`console: ${m.text()}`);
  });
  const base = mock ? mock.url : '';
  page.on('request', (r) => {
    if (!r.url().startsWith(base || 'file:') && !r.url().startsWith('data:') && !r.url().startsWith('blob:')) page.problems.push(`asked ${r.url()}`);
  });
  await page.goto(base + path);
  return page;
}

async function check(name, act) {
  const began = Date.now();
  try {
    await act();
    passed++;
    console.log(`ok   ${name} (${Date.now() - began} ms)`);
  } catch (e) {
    failed++;
    console.log(`FAIL ${name}\n     ${String(e instanceof Error ? e.stack : e).split('\n').slice(0, 8).join('\n     ')}`);
  }
}

async function done(page) {
  const problems = page.problems;
  await page.context().close();
  assert.deepEqual(problems, [], 'the page must stay quiet');
}

// The address as the page itself has it now (page.url() lags behind), once `when` holds for it.
async function address(page, when = () => true) {
  for (const end = Date.now() + 20_000; ;) {
    const now = new URL(await page.evaluate(() => location.href)).searchParams;
    if (when(now)) return now;
    if (Date.now() > end) throw new Error(`the address stayed ${now} (expected ${when})`);
    await page.waitForTimeout(40);
  }
}
const param = async (page, name) => (await address(page)).get(name);
const paramIs = (page, name, value) => address(page, (p) => p.get(name) === value);
// Text and number of elements, awaited: under load the page may need a moment.
async function textIs(locator, pattern) {
  let text = '';
  for (const end = Date.now() + 20_000; Date.now() < end;) {
    text = await locator.innerText();
    if (pattern.test(text)) return;
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
  assert.match(text, pattern);
}

async function countIs(locator, wanted) {
  let n = -1;
  for (const end = Date.now() + 20_000; Date.now() < end;) {
    n = await locator.count();
    if (n === wanted) return;
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
  assert.equal(n, wanted);
}

const shot = (page, name) => page.screenshot({ path: join(shots, `${name}.png`) });
// Like page.waitForFunction, which needs eval and so would not work under the page's content security policy.
async function until(page, predicate, timeout = 20_000) {
  for (const end = Date.now() + timeout; ;) {
    if (await page.evaluate(predicate).catch(() => false)) return; // false also while the page is being replaced
    if (Date.now() > end) throw new Error(`never came true: ${predicate}`);
    await page.waitForTimeout(40);
  }
}

// The box of an element that has stopped moving: what loads above it pushes it down.
async function settled(locator) {
  let box = null, before = null;
  for (const end = Date.now() + 20_000; Date.now() < end;) {
    // A click below the window's edge goes nowhere.
    await locator.scrollIntoViewIfNeeded();
    [before, box] = [box, await locator.boundingBox()];
    if (box && before && box.x === before.x && box.y === before.y && box.width === before.width) return box;
    await new Promise((resolve) => setTimeout(resolve, 400));
  }
  throw new Error('it never stood still');
}

// Where a cell of the heat map is, right of its middle: which ones there are goes with the clock. Clicks beside them choose nothing.
const drawnCell = (page) => page.evaluate(() => {
  const canvas = document.querySelector('.heatmap-plot canvas');
  const scale = canvas.width / canvas.clientWidth;
  for (let x = Math.round(canvas.width / 2); x < canvas.width; ++x) {
    const pixels = canvas.getContext('2d').getImageData(x, 0, 1, canvas.height).data;
    for (let y = 2; y < canvas.height - 2; ++y) {
      if ([-2, 0, 2].every((dy) => pixels[(y + dy) * 4 + 3] > 0)) return { x: (x + 1) / scale, y: y / scale };
    }
  }
  throw new Error('the heat map is empty');
});

const graphReady = (page) => until(page, () => window.__pyrometerFlame && window.__pyrometerFlame.stats.rects > 0);

// How many differently coloured pixels the canvas has: 1 means nothing was drawn.
const colours = (page) => page.evaluate(() => {
  const c = document.querySelector('.flame-canvas');
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  const seen = new Set();
  for (let i = 0; i < d.length; i += 4 * 7) seen.add((d[i] << 16) | (d[i + 1] << 8) | d[i + 2]);
  return seen.size;
});

// Where a frame of a name is on the screen.
const frameAt = (page, name) => page.evaluate((wanted) => {
  const r = window.__pyrometerFlame;
  const box = document.querySelector('.flame-canvas').getBoundingClientRect();
  for (let y = 5; y < box.height; y += 10) {
    for (let x = 2; x < box.width; x += 4) {
      const node = r.hit(x, y);
      if (node >= 0 && r.graph.fns.name[r.graph.fn[node]].includes(wanted)) return { x: box.left + x + 3, y: box.top + y };
    }
  }
  return null;
}, name);

async function clickFrame(page, name) {
  const at = await frameAt(page, name);
  assert.ok(at, `no frame ${name} on the canvas`);
  await page.mouse.click(at.x, at.y);
}

const mock = await startMock({ dist });

await check('overview lists containers and services, a row leads to its flame graph, back returns', async () => {
  const page = await open('', { mock });
  await page.waitForSelector('.name-cell a');
  await countIs(page.locator('tr.row-link'), 12);
  await textIs(page.locator('.overview-head p'), /4\.84 of 12 cores busy/);
  await textIs(page.locator('.node-badges').nth(0), /4 probes work/); // the fifth, nobody asked for
  await textIs(page.locator('.node-badges').nth(1), /dropped[\s\S]*1 of 5 probes limited/);
  await page.click('.node-badges >> nth=1 >> text=probes limited');
  await textIs(page.locator('.bubble'), /tcp_probe tracepoint/);
  await page.keyboard.press('Escape');
  await shot(page, 'overview-light-1280');
  await page.fill('input[placeholder^="Filter"]', 'postgres');
  await countIs(page.locator('tr.row-link'), 1);
  await page.click('.name-cell a');
  await graphReady(page);
  await paramIs(page, 'view', 'flame');
  assert.match(await param(page, 'q'), /^cpu\{node="eu-2",container.name="postgres"\}$/);
  assert.ok(mock.state.calls.some((c) => c.startsWith('GET flame') && c.includes('postgres')));
  await page.goBack();
  await page.waitForSelector('.overview');
  await done(page);
});

await check('overview renews itself without flicker', async () => {
  const page = await open('', { mock });
  await page.waitForSelector('.overview-table');
  const before = mock.state.calls.filter((c) => c === 'GET containers').length;
  await page.evaluate(() => {
    window.removed = 0;
    new MutationObserver((list) => list.forEach((m) => m.removedNodes.forEach((n) => n.nodeName === 'TR' && window.removed++))).observe(document.querySelector('.overview-table'), { childList: true, subtree: true });
  });
  for (const end = Date.now() + 30_000; mock.state.calls.filter((c) => c === 'GET containers').length <= before;) {
    assert.ok(Date.now() < end, 'asked again');
    await page.waitForTimeout(100);
  }
  await page.waitForTimeout(500);
  assert.equal(await page.evaluate(() => window.removed), 0, 'no row was thrown away');
  await done(page);
});

await check('flame graph: draws, points, zooms by click, breadcrumb, back', async () => {
  const page = await open('?view=flame', { mock });
  await graphReady(page);
  assert.ok((await colours(page)) > 6, 'frames in several colours');
  await shot(page, 'flame-light-1280');
  const at = await frameAt(page, 'shop::json::Parse(');
  await page.mouse.move(at.x, at.y);
  await page.waitForSelector('.frame-tip');
  const tip = await page.locator('.frame-tip').innerText();
  assert.match(tip, /shop::json::Parse\(char const\*, unsigned long\)/);
  assert.match(tip, /Program[\s\S]*Total[\s\S]*%[\s\S]*Self[\s\S]*src\/json\.cc:310/);
  await shot(page, 'flame-tip');
  await page.mouse.click(at.x, at.y);
  await page.waitForSelector('text=of all');
  const zoom = await param(page, 'zoom');
  assert.ok(zoom.split('.').length >= 6);
  await textIs(page.locator('.crumbs .here'), /shop::json::Parse/);
  await page.waitForTimeout(300);
  await shot(page, 'flame-zoomed');
  const linked = await open(`?view=flame&zoom=${zoom}`, { mock });
  await graphReady(linked);
  await textIs(linked.locator('.crumbs .here'), /shop::json::Parse/);
  await done(linked);
  await page.goBack();
  await textIs(page.locator('.crumbs .here'), /^All$/);
  await done(page);
});

await check('flame graph: an unnamed frame says why', async () => {
  const page = await open('?view=flame&display=graph', { mock });
  await graphReady(page);
  const at = await frameAt(page, '[unknown]');
  await page.mouse.move(at.x, at.y);
  await page.waitForSelector('.tip-why');
  await textIs(page.locator('.tip-why'), /No function name[\s\S]*debug package/);
  await shot(page, 'flame-unnamed');
  await done(page);
});

await check('flame graph: keyboard', async () => {
  const page = await open('?view=flame', { mock });
  await graphReady(page);
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-label')), 'Find a function or library');
  await page.keyboard.type('malloc');
  await page.waitForSelector('text=/%\\s+matched/');
  await textIs(page.locator('.search output'), /6\.\d+ % matched/);
  await countIs(page.locator('.fn-table tbody tr[aria-rowindex]'), 2);
  await paramIs(page, 'search', 'malloc');
  await page.keyboard.press('Escape');
  await paramIs(page, 'search', null);
  await page.focus('.flame-scroll');
  for (const key of ['ArrowDown', 'ArrowDown', 'ArrowDown', 'ArrowRight']) await page.keyboard.press(key);
  await textIs(page.locator('.flame-wrap [aria-live]'), /total .*%/);
  await page.keyboard.press('Enter');
  await address(page, (p) => p.has('zoom'));
  await page.keyboard.press('Escape');
  await paramIs(page, 'zoom', null);
  await done(page);
});

await check('search: regular expression and its errors', async () => {
  const page = await open(`?view=flame&search=${encodeURIComponent('/^(aesni|crc32)/')}`, { mock });
  await graphReady(page);
  await countIs(page.locator('.fn-table tbody tr[aria-rowindex]'), 2);
  await page.fill('.search input', '/(/');
  await textIs(page.locator('.search output.bad'), /Not a regular expression/);
  await done(page);
});

await check('table and graph are linked, both ways; callers view', async () => {
  const page = await open('?view=flame', { mock });
  await graphReady(page);
  await page.click('.fn-name >> text=deflate');
  await paramIs(page, 'fn', 'deflate');
  await textIs(page.locator('.chosen-note'), /deflate/);
  // The function and the root stand out.
  await until(page, () => window.__pyrometerFlame.emphasis?.reduce((a, b) => a + b, 0) === 2);
  await clickFrame(page, 'ssl3_write_bytes');
  await page.waitForSelector('tr.picked');
  await textIs(page.locator('tr.picked'), /ssl3_write_bytes/);
  await page.goto(`${mock.url}?view=flame`);
  await graphReady(page);
  await page.click('th >> text=Total');
  await page.hover('.fn-name >> text=shop::Compress');
  await page.click('tr:hover .fn-callers');
  await page.waitForSelector('.sandwich');
  await textIs(page.locator('.crumbs'), /shop::Compress[\s\S]*total/);
  await page.waitForTimeout(200);
  await shot(page, 'flame-callers');
  await done(page);
});

await check('legend, grouping, direction, value type, trust line, export', async () => {
  const page = await open('?view=flame', { mock });
  await graphReady(page);
  await page.click('.legend button >> text=Kernel');
  await countIs(page.locator('.legend button[aria-pressed=true]'), 1);
  await page.click('.legend button >> text=Kernel');
  await page.selectOption('.toolbar select', 'container.name');
  await until(page, () => window.__pyrometerFlame.graph.fns.name.includes('recommender'));
  assert.ok(mock.state.calls.some((c) => c.startsWith('GET flame') && c.includes('by=container.name')));
  await page.click('text=Layout');
  await page.click('text=Up (flame)');
  await until(page, () => window.__pyrometerFlame.up);
  await paramIs(page, 'up', '1');
  await page.keyboard.press('Escape');
  await shot(page, 'flame-up-grouped');
  await page.click('.segments >> text=Samples');
  await textIs(page.locator('.crumb-value'), /^17.\d+|^1[67]\D?\d+/);
  await page.click('.trust');
  const trust = await page.locator('.bubble').innerText();
  assert.match(trust, /taken = .* delivered \+ 7 dropped/);
  assert.match(trust, /kernel buffer was full/);
  assert.match(trust, /frame pointers/);
  await shot(page, 'flame-trust');
  await page.keyboard.press('Escape');
  await page.click('text=Export');
  const links = await page.locator('.menu-list a').evaluateAll((list) => list.map((a) => a.getAttribute('href')));
  assert.deepEqual(links.map((l) => /format=(\w+)/.exec(l)[1]), ['html', 'pprof', 'speedscope', 'folded', 'svg', 'json']);
  assert.ok(links.every((l) => l.startsWith('api/v1/export?query=cpu&from=-15m&to=now')));
  await page.keyboard.press('Escape');
  await page.click('text=How to read this');
  await page.waitForSelector('text=Width is time.');
  await shot(page, 'flame-help');
  await done(page);
});

await check('time line: dragging chooses a range, the address keeps it, back undoes', async () => {
  const page = await open('?view=flame', { mock });
  await graphReady(page);
  const box = await page.locator('.timeline-plot').boundingBox();
  await page.mouse.move(box.x + box.width * 0.4, box.y + 30);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.6, box.y + 40, { steps: 5 });
  await page.mouse.up();
  const [from, to] = (await address(page, (p) => p.has('sel'))).get('sel').split('-').map(Number);
  assert.ok(from % 10_000 === 0 && to > from && to - from <= 220_000, `${from} ${to}`);
  await until(page, () => performance.getEntriesByType('resource').some((r) => /flame.*from=\d{13}&to=\d{13}/.test(r.name)));
  await page.waitForSelector('text=Whole range');
  await shot(page, 'flame-range');
  await page.goBack();
  await paramIs(page, 'sel', null);
  await page.click('button >> text=1h');
  await paramIs(page, 'from', '-1h');
  await page.click('.live');
  await paramIs(page, 'live', '0');
  await done(page);
});

await check('selector: completion, marked errors, empty result', async () => {
  const page = await open('?view=flame', { mock, allowErrors: true });
  await graphReady(page);
  const input = page.locator('.selector input');
  await input.click();
  await input.pressSequentially('cpu{cont');
  await page.waitForSelector('.options li >> text=container.name');
  await shot(page, 'selector-names');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.options li >> text=postgres');
  await shot(page, 'selector-values');
  await page.keyboard.type('pos');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  assert.equal(await input.inputValue(), 'cpu{container.name="postgres"}');
  await page.keyboard.press('Enter');
  await paramIs(page, 'q', 'cpu{container.name="postgres"}');
  await input.fill('cpu{container.name postgres}');
  await page.waitForSelector('.squiggle');
  await textIs(page.locator('.selector-error'), /expected '=', .* \(at character 20\)/);
  await shot(page, 'selector-error');
  await input.fill('cpu{service=~"("}');
  await page.keyboard.press('Enter');
  await page.waitForSelector('text=the regular expression has an open group');
  await input.fill('cpu{service="nothing"}');
  await page.keyboard.press('Enter');
  await page.waitForSelector('text=Nothing in this range matches the selector');
  await shot(page, 'flame-empty');
  await page.click('text=show everything');
  await graphReady(page);
  await done(page);
});

await zoomChecks({ check, open, done, graphReady, address, textIs, countIs, shot, until, dist });
await secondsChecks({ check, open, done, graphReady, address, textIs, shot, until, settled, mock });

await check('system calls: what has not returned', async () => {
  const page = await open('?view=syscalls', { mock, width: 1400, height: 900 });
  await textIs(page.locator('.data-table tr:has-text("flock")'), /fluent-bit eu-2\s+flock\s+0\s+0\s+–\s+–\s+–\s+–\s+–\s+1 1[23]\.\d min/);
  await textIs(page.locator('.data-table tr:has-text("futex"):has-text("checkout")'), /\b3 3\.62 s/);
  await page.click('th >> text=In flight');
  await textIs(page.locator('.data-table tbody tr').first(), /flock/);
  assert.ok(await page.evaluate(() => document.querySelector('.data-table').scrollWidth <= document.querySelector('.data-table').clientWidth), 'the table fits');
  await page.click('.data-table tr:has-text("flock")');
  await textIs(page.locator('.open-calls'), /1 call had not returned when the newest window ended, the oldest after 1[23]\.\d min\. So far: +lock 1\./);
  await page.waitForTimeout(500);
  await page.screenshot({ path: join(shots, 'syscalls-open.png'), fullPage: true });
  await done(page);
});

await check('system calls: table, histogram, slow bucket, exemplar stacks', async () => {
  const page = await open('?view=syscalls', { mock, width: 1600, height: 1000 });
  await page.waitForSelector('.data-table tbody tr');
  await countIs(page.locator('.data-table tbody tr'), 14); // 13 that returned, and one that has not yet
  await page.click('th >> text=p99');
  const p99 = await page.locator('.data-table tbody tr td:nth-child(7)').allInnerTexts();
  assert.match(p99[0], /ms$/);
  assert.match(p99.at(-2), /µs$/);
  assert.equal(p99.at(-1), '–');
  await textIs(page.locator('.data-table tr:has-text("fsync") td').last(), /^disk\s+96\.0 %$/);
  await page.click('.data-table tr:has-text("fsync")');
  await page.waitForSelector('.hbar');
  assert.equal(JSON.parse(await param(page, 'row')).syscall, 'fsync');
  await textIs(page.locator('.detail .cause-legend'), /disk\s+96\.0 %[\s\S]*waiting for a CPU\s+3\.00 %[\s\S]*running\s+1\.00 %/);
  await page.waitForTimeout(700);
  const box = await page.locator('.histogram-plot').boundingBox();
  await page.mouse.move(box.x + box.width * 0.6, box.y + 80);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.98, box.y + 80, { steps: 4 });
  await page.mouse.up();
  await page.waitForSelector('.exemplar-list tbody tr');
  const [low, high] = (await address(page, (p) => p.has('slow'))).get('slow').split('-').map(Number);
  const call = mock.state.calls.filter((c) => c.startsWith('GET exemplars')).at(-1);
  assert.ok(call.includes(`minNs=${low}&maxNs=${high}`), call);
  assert.match(decodeURIComponent(call).replace(/\+/g, ' '), /syscall_latency\{node="eu-2",container.name="postgres",service="postgres",syscall="fsync"\}/);
  await page.click('.exemplar-list tbody tr >> nth=0');
  await page.waitForSelector('.stack li');
  await textIs(page.locator('.exemplar-list tbody'), /\b(poll|lock|disk)\b/);
  await textIs(page.locator('.exemplar-list .cause-legend'), /93\.0 %[\s\S]*waiting for a CPU\s+4\.00 %[\s\S]*running\s+3\.00 %/);
  await textIs(page.locator('.exemplar-list tbody'), /One of the slowest/);
  await page.click('.exemplar-list tbody tr.row-link[aria-expanded="false"]:has-text("lock") >> nth=0');
  await textIs(page.locator('.exemplar-list .woken-by'), /Woken by compactor 4311, after .* of waiting: lock\s+try_to_wake_up[\s\S]*shop::CompactIndex/);
  await textIs(page.locator('.exemplar-list tbody'), /read\(31 → \/var\/lib\/checkout\/tax\/rates-2024-q3-with-a-long-name\.bin, …, 65536\) = 65536/);
  await graphReady(page);
  await page.waitForTimeout(500);
  await page.screenshot({ path: join(shots, 'syscalls-slow.png'), fullPage: true });
  // Those drawn among all calls say how many they stand for.
  await page.click('.slow .segments >> text=typical');
  await page.waitForSelector('.exemplar-list th:has-text("Stands for")');
  assert.match(mock.state.calls.filter((c) => c.startsWith('GET exemplars')).at(-1), /kind=drawn/);
  await page.click('.exemplar-list tbody tr >> nth=1');
  await textIs(page.locator('.exemplar-list tbody'), /Typical: drawn among all calls, stands for [\d,]+/);
  await graphReady(page);
  await page.screenshot({ path: join(shots, 'syscalls-typical.png'), fullPage: true });
  await page.click('.slow .segments >> text=slowest');
  await paramIs(page, 'typical', null);
  const heat = await settled(page.locator('.heatmap-plot'));
  const cell = await drawnCell(page);
  await page.mouse.click(heat.x + cell.x, heat.y + cell.y);
  await until(page, () => new URL(location.href).searchParams.get('sel'));
  for (let back = 0; back < 4; ++back) await page.goBack(); // heat map, slowest, typical, slow
  await paramIs(page, 'slow', null);
  await done(page);
});

await check('waits: causes per container, stacks with and without idling, who ended them', async () => {
  const page = await open('?view=waits', { mock, width: 1440, height: 1000 });
  await page.waitForSelector('.data-table tbody tr');
  await textIs(page.locator('.data-table tr:has-text("postgres") .cause-cell'), /disk/);
  await graphReady(page);
  const names = () => page.evaluate(() => window.__pyrometerFlame.graph.fns.name);
  assert.ok((await names()).includes('[lock]'));
  assert.ok(!(await names()).includes('[poll]'), 'idling is left out');
  await page.screenshot({ path: join(shots, 'waits.png'), fullPage: true });
  await page.click('.segments >> text="All"');
  await until(page, () => window.__pyrometerFlame.graph.fns.name.includes('[poll]'));
  await page.click('.segments >> text="Without idling"');
  await page.click('.segments >> text="Who woke it"');
  await until(page, () => window.__pyrometerFlame.graph.fns.name.includes('shop::Cache::Refresh()'));
  await paramIs(page, 'wakers', '1');
  await page.click('.data-table tr:has-text("checkout") >> nth=0');
  await page.waitForSelector('.hbar');
  await textIs(page.locator('.detail h2').first(), /Time checkout waited for a CPU/);
  const call = () => decodeURIComponent(mock.state.calls.filter((c) => c.startsWith('GET flame') && c.includes('off_cpu')).at(-1));
  await until(page, () => document.querySelector('.wait-flame h2')?.textContent.includes('in checkout'));
  assert.match(call(), /query=off_cpu_wakers\{node="eu-1",container\.name="checkout",service="checkout",cause!~"timer\|poll"\}/);
  await graphReady(page);
  await page.waitForTimeout(500);
  await page.screenshot({ path: join(shots, 'waits-wakers.png'), fullPage: true });
  await done(page);
});

await check('network: peers and their histogram', async () => {
  const page = await open('?view=network', { mock });
  await page.waitForSelector('.data-table tbody tr');
  await textIs(page.locator('.data-table tbody tr').first(), /198\.51\.100\.7:24224[\s\S]*ms/);
  await page.locator('.data-table tbody tr').nth(1).focus();
  await page.keyboard.press('Enter');
  await page.waitForSelector('.hbar');
  await textIs(page.locator('.detail h2'), /RTT between checkout and 203\.0\.113\.80:443/);
  await textIs(page.locator('.data-table tr.chosen'), /142\s+fast[\s\S]*6\s+received/);
  await textIs(page.locator('.peer-notes'), /112 retransmitted: fast[\s\S]*6 resets received[\s\S]*3 connections failed/);
  await page.waitForTimeout(600);
  await page.screenshot({ path: join(shots, 'network-row.png'), fullPage: true });
  await done(page);
});

await check('network: all columns fit, the least of them fold', async () => {
  for (const [width, folds] of [[1280, true], [1400, true], [1600, false]]) {
    const page = await open('?view=network', { mock, width, height: 900 });
    await page.waitForSelector('.data-table tbody tr');
    const table = await page.evaluate(() => {
      const t = document.querySelector('.data-table'), last = [...t.querySelectorAll('tbody tr:first-child td')].filter((d) => d.offsetParent).at(-1);
      return { cut: last.getBoundingClientRect().right - t.getBoundingClientRect().right, over: t.scrollWidth - t.clientWidth, heads: [...t.querySelectorAll('th')].filter((h) => h.offsetParent).map((h) => h.innerText.trim()) };
    });
    assert.ok(table.over <= 0 && table.cut <= 0, `${width}: ${JSON.stringify(table)}`);
    assert.equal(table.heads.includes('Measured'), !folds, table.heads.join());
    assert.ok(table.heads.includes('Received') && table.heads.includes('Opened'));
    const peer = page.locator('.data-table .cut[title^="[2001"]');
    assert.equal(await peer.getAttribute('title'), '[2001:db8:85a3:8d3:1319:8a2e:370:7348]:50443');
    await shot(page, `network-${width}`);
    await done(page);
  }
});

await check('sessions: start, watch, stop, open', async () => {
  const page = await open('?view=sessions', { mock });
  await page.waitForSelector('text=No session yet');
  await page.waitForSelector('option:has-text("redis")', { state: 'attached' });
  await page.selectOption('select >> nth=1', { label: 'redis' });
  await page.fill('input >> nth=0', '0');
  await page.waitForSelector('text=Choose between 1 and 86400 seconds');
  await page.fill('input >> nth=0', '20');
  await page.selectOption('select >> nth=2', { label: 'CPU time and waits' });
  await page.click('button >> text=Start');
  await page.waitForSelector('text=container redis');
  await shot(page, 'sessions');
  const s = mock.state.sessions[0];
  assert.deepEqual([s.node, s.target, s.durationNs, s.probes], ['eu-1', 'container=redis', 20e9, ['cpu', 'waits']]);
  await page.click('button >> text=Stop');
  await page.waitForSelector('.badge >> text=stopped');
  await page.click('text=Flame graph');
  await graphReady(page);
  await paramIs(page, 'q', `cpu{session="${s.id}"}`);
  await page.goBack();
  await page.click('tbody a >> text=Waits');
  await graphReady(page);
  await paramIs(page, 'q', `off_cpu{session="${s.id}"}`);
  await done(page);
});

await check('sessions: one that failed says why, and what it took can be opened', async () => {
  const before = mock.state.sessions;
  const failed = (id, samples, error) => ({ id, node: 'eu-1', target: '', probes: ['cpu'], state: 'failed', startedMs: Date.now() - 60_000, durationNs: 30e9, samples, error });
  mock.state.sessions = [failed('s90a7', 412, 'the session ended early, its probe cpu_sampler failed: cannot read samples: Input/output error'), failed('s91a7', 0, 'no process 7 runs here')];
  const page = await open('?view=sessions', { mock });
  const rows = page.locator('table[aria-label=Sessions] tbody tr');
  await textIs(rows.nth(0), /failed[\s\S]*cannot read samples: Input\/output error[\s\S]*412[\s\S]*Flame graph/);
  await textIs(rows.nth(1), /failed[\s\S]*no process 7 runs here/);
  assert.equal(await rows.nth(1).locator('a').count(), 0);
  await rows.nth(0).locator('text=Flame graph').click();
  await graphReady(page);
  await paramIs(page, 'q', 'cpu{session="s90a7"}');
  mock.state.sessions = before;
  await done(page);
});

await check('status: store, nodes, probes', async () => {
  const page = await open('?view=status', { mock, scheme: 'dark' });
  await page.waitForSelector('.probes');
  const text = await page.locator('.status').innerText();
  assert.match(text, /17.402.331/);
  assert.match(text, /kernel buffer was full/);
  assert.match(text, /upgrade to Linux 5\.16/);
  assert.match(text, /off_cpu[\s\S]*unused\s+nobody asked for it/);
  await shot(page, 'status-dark');
  await done(page);
});

await check('right after the start: a countdown instead of an empty page', async () => {
  const fresh = await startMock({ dist, fresh: true });
  const page = await open('', { mock: fresh });
  await page.waitForSelector('text=No samples yet');
  await textIs(page.locator('.empty'), /first window arrives 10 s after the start: \d+ s to go/);
  await shot(page, 'fresh-overview');
  await page.click('nav >> text=CPU');
  await page.waitForSelector('text=No samples yet');
  fresh.state.fresh = false;
  await graphReady(page);
  await done(page);
  await fresh.close();
});

await check('a store that wants a token', async () => {
  const locked = await startMock({ dist, token: 'sesame' });
  const page = await open('?view=flame', { mock: locked, allowErrors: true });
  await page.waitForSelector('[role=dialog]');
  await shot(page, 'token');
  await page.fill('[role=dialog] input', 'wrong');
  await page.click('text=Continue');
  await page.waitForTimeout(300);
  await page.waitForSelector('[role=dialog]');
  await page.fill('[role=dialog] input', 'sesame');
  await page.click('text=Continue');
  await graphReady(page);
  await countIs(page.locator('[role=dialog]'), 0);
  assert.equal(await page.evaluate(() => localStorage.length), 0, 'the token is not kept beyond the tab');
  await page.reload();
  await graphReady(page);
  await page.click('text=Export');
  const [file] = await Promise.all([page.waitForEvent('download'), page.click('.menu-list >> text=pprof')]);
  assert.equal(file.suggestedFilename(), 'profile.pprof');
  await done(page);
  await locked.close();
});

await check('the store goes away: says so and keeps the picture', async () => {
  const shaky = await startMock({ dist });
  const page = await open('', { mock: shaky, allowErrors: true });
  await page.waitForSelector('.overview-table');
  shaky.state.offline = true;
  await page.waitForSelector('text=Pyrometer does not answer. Is it still running?', { timeout: 12_000 });
  await countIs(page.locator('tr.row-link'), 12);
  await shot(page, 'offline');
  shaky.state.offline = false;
  await page.click('text=Try again');
  await page.waitForSelector('.error-box', { state: 'detached' });
  await done(page);
  await shaky.close();
});

await check('light and dark: by system, by button, remembered', async () => {
  const page = await open('?view=flame', { mock, scheme: 'dark', width: 1600, height: 1000 });
  await graphReady(page);
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
  await shot(page, 'flame-dark-1600');
  await page.click('[aria-label="Light colours"]');
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'light');
  await paramIs(page, 'theme', 'light');
  await page.goto(mock.url);
  await page.waitForSelector('.overview-table');
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'light');
  await done(page);
});

await check('narrow window', async () => {
  for (const view of ['overview', 'flame', 'syscalls', 'waits', 'network']) {
    const page = await open(`?view=${view}`, { mock, width: 900, height: 900 });
    await page.waitForTimeout(900);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${view} is not wider than the window`);
    await shot(page, `narrow-${view}`);
    await done(page);
  }
});

await check('nothing moves while data arrives', async () => {
  const page = await open('?view=flame', { mock });
  await graphReady(page);
  await page.waitForTimeout(400);
  const before = await page.locator('.flame-canvas').boundingBox();
  await page.click('button >> text=5m');
  const during = await page.locator('.flame-canvas').boundingBox();
  await page.waitForTimeout(500);
  const after = await page.locator('.flame-canvas').boundingBox();
  assert.deepEqual(during, before);
  assert.deepEqual(after, before);
  await done(page);
});

function percentile(values, q) {
  return values.slice().sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))];
}

await check('100,000 frames: first paint and frame times', async () => {
  await fetch(`${mock.url}api/v1/flame?query=${encodeURIComponent('cpu{service="big"}')}`).then((r) => r.text()); // made once, kept by the mock
  const page = await open(`?view=flame&display=graph&live=0&q=${encodeURIComponent('cpu{service="big"}')}`, { mock, width: 1600, height: 1000 });
  const began = Date.now();
  await until(page, () => Number(document.querySelector('.flame-canvas')?.dataset.frames) >= 99_000 && window.__pyrometerFlame.stats.rects > 100, 30_000);
  const first = Date.now() - began;
  const result = await page.evaluate(async () => {
    const r = window.__pyrometerFlame, g = r.graph;
    const draws = [], gaps = [];
    let rects = 0, texts = 0, last = 0;
    // Continuous motion: zooming in and out over many places, scrolling, with the pointer moving.
    for (let i = 0; i < 240; i++) {
      const now = await new Promise((resolve) => requestAnimationFrame(resolve));
      if (last) gaps.push(now - last);
      last = now;
      const depth = (1 - Math.cos((i / 60) * Math.PI)) / 2;
      const width = g.total[0] * 10 ** (-3 * depth), centre = g.total[0] * (0.2 + 0.6 * (i / 240));
      r.x0 = Math.max(0, centre - width / 2);
      r.x1 = Math.min(g.total[0], centre + width / 2);
      r.scrollTop = (i % 60) * 8;
      r.hover = r.hit((i * 37) % 1500, (i * 13) % 600);
      const s = r.draw();
      draws.push(s.ms);
      rects = Math.max(rects, s.rects);
      texts = Math.max(texts, s.texts);
    }
    const full = [];
    r.x0 = 0; r.x1 = g.total[0]; r.scrollTop = 0;
    const canvas = document.querySelector('.flame-canvas');
    const ctx = canvas.getContext('2d');
    for (let i = 0; i < 20; i++) {
      const t = performance.now();
      r.draw();
      ctx.getImageData(canvas.width - 1, canvas.height - 1, 1, 1);
      full.push(performance.now() - t);
    }
    return { draws, gaps, full, rects, texts, frames: g.fn.length, levels: g.levels };
  });
  const median = percentile(result.draws, 0.5), p95 = percentile(result.draws, 0.95), worst = Math.max(...result.draws);
  console.log(`     ${result.frames} frames, ${result.levels} levels: first paint ${first} ms; draw median ${median.toFixed(2)} ms, p95 ${p95.toFixed(2)} ms, max ${worst.toFixed(2)} ms `
    + `(up to ${result.rects} rectangles, ${result.texts} texts); frame interval median ${percentile(result.gaps, 0.5).toFixed(1)} ms, p95 ${percentile(result.gaps, 0.95).toFixed(1)} ms; `
    + `whole graph with rasterising (software) median ${percentile(result.full, 0.5).toFixed(1)} ms`);
  await shot(page, 'flame-100k');
  assert.ok(result.frames >= 99_000);
  assert.ok(median < kMedianBudgetMs, `median ${median} ms`);
  assert.ok(first < kFirstPaintBudgetMs, `first paint ${first} ms`);
  await page.fill('.search input', 'method_42');
  await page.waitForSelector('text=/%\\s+matched/');
  await done(page);
});

// ---- the viewer, from a file ----
const viewer = (json) => {
  const path = join(temp, `viewer-${Math.random().toString(36).slice(2)}.html`);
  writeFileSync(path, viewerHtml.replace('__PYROMETER_DATA__', () => json.replace(/</g, '\\u003c')));
  return pathToFileURL(path).href;
};

await check('viewer.html holds its data element once and refers to nothing outside', async () => {
  assert.equal(viewerHtml.split('<script id="pyrometer-data" type="application/json">__PYROMETER_DATA__</script>').length, 2);
  assert.equal(viewerHtml.split('__PYROMETER_DATA__').length, 2);
  assert.ok(!/<(script|link|img)[^>]+(src|href)=/.test(viewerHtml));
});

await check('viewer: opens from disk, searches, splits by label, asks nobody', async () => {
  const page = await open(viewer(JSON.stringify(flame('cpu{service="shop"} <b>&"</b></script>'))), {});
  await graphReady(page);
  await textIs(page.locator('h1'), /^cpu\{service="shop"\} <b>&"<\/b><\/script>$/);
  await textIs(page.locator('.viewer-head .faint'), /20\d\d-\d\d-\d\d \d\d:\d\d:\d\d · 15\.0 min/);
  await textIs(page.locator('.trust'), /7 dropped/);
  await shot(page, 'viewer-light');
  await page.fill('.search input', 'malloc');
  await page.waitForSelector('text=/%\\s+matched/');
  assert.match(page.url(), /#search=malloc/);
  await page.selectOption('.toolbar select', 'node');
  await until(page, () => window.__pyrometerFlame.graph.fns.name.includes('eu-2'));
  await page.click('.segments >> text=Samples');
  await page.fill('.search input', '');
  await clickFrame(page, 'eu-2');
  await page.waitForSelector('text=of all');
  await page.waitForTimeout(250);
  await shot(page, 'viewer-grouped');
  await page.goBack();
  await textIs(page.locator('.crumbs .here'), /^All$/);
  await page.click('[aria-label="Dark colours"]');
  await shot(page, 'viewer-dark');
  await done(page);
});

await check('viewer: 100,000 frames', async () => {
  const page = await open(viewer(JSON.stringify(bigFlame('big', 100_000))), { width: 1600, height: 1000 });
  await graphReady(page);
  assert.ok((await page.evaluate(() => window.__pyrometerFlame.graph.fn.length)) >= 99_000);
  await done(page);
});

await check('viewer: a damaged file says so', async () => {
  for (const json of ['{"version":1', '{}', JSON.stringify({ ...flame('x'), version: 3 })]) {
    const page = await open(viewer(json), {});
    await page.waitForSelector('text=This file holds no readable flame graph');
    await done(page);
  }
});

await browser.close();
await mock.close();
if (process.env.PYROMETER_SHOTS) console.log(`screenshots: ${shots}`);
rmSync(temp, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
