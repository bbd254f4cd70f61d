import { chromium } from 'playwright-core';
const out = process.argv[2], base = process.argv[3] ?? 'http://127.0.0.1:17070/';
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });
async function open(path, width = 1280, height = 900) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: 'light', timezoneId: 'UTC', locale: 'en-GB' });
  const page = await context.newPage();
  page.setDefaultTimeout(30000);
  page.on('pageerror', (e) => console.log('page error', e.message));
  page.on('console', (m) => m.type() === 'error' && console.log('console', m.text()));
  await page.goto(base + path);
  return page;
}
const shot = (page, name, full = true) => page.screenshot({ path: `${out}/${name}.png`, fullPage: full });
const step = async (name, f) => { try { await f(); console.log('ok', name); } catch (e) { console.log('FAIL', name, String(e).split('\n').slice(0, 4).join(' ')); } };
await step('overview', async () => { const p = await open(''); await p.waitForSelector('.name-cell a'); await p.waitForTimeout(800); await shot(p, 'overview'); await p.context().close(); });
await step('syscalls', async () => {
  const p = await open('?view=syscalls&from=-5m'); await p.waitForSelector('.data-table tbody tr'); await p.waitForTimeout(800); await shot(p, 'syscalls');
  await p.click('.data-table tr:has-text("queue-reader"):has-text("read")'); await p.waitForSelector('.hbar'); await p.waitForTimeout(1500); await shot(p, 'syscalls-row');
  const box = await p.locator('.histogram-plot').boundingBox();
  // the slow bars
  const bars = await p.locator('.hbar').evaluateAll((l) => l.map((b) => { const r = b.getBoundingClientRect(); return [r.x, r.width, r.height]; }));
  console.log(JSON.stringify(bars));
  const last = bars.at(-1);
  await p.mouse.click(last[0] + last[1] / 2, box.y + box.height * 0.6);
  await p.waitForSelector('.exemplar-list tbody tr'); await p.waitForTimeout(1500); await shot(p, 'syscalls-bucket');
  await p.click('.exemplar-list tbody tr >> nth=0'); await p.waitForTimeout(800); await shot(p, 'syscalls-exemplar');
  await p.context().close();
});
await step('waits', async () => {
  const p = await open('?view=waits&from=-5m'); await p.waitForSelector('.data-table tbody tr'); await p.waitForTimeout(1500); await shot(p, 'waits');
  await p.click('.segments >> text="All"'); await p.waitForTimeout(1200); await shot(p, 'waits-all');
  await p.click('.data-table tr:has-text("queue-reader") >> nth=0'); await p.waitForSelector('.hbar'); await p.waitForTimeout(1500); await shot(p, 'waits-row');
  await p.click('.segments >> text="Who woke it"'); await p.waitForTimeout(1500); await shot(p, 'waits-wakers');
  await p.context().close();
});
await step('waits-batch', async () => {
  const p = await open('?view=waits&from=-5m'); await p.waitForSelector('.data-table tbody tr');
  await p.click('.data-table tr:has-text("batch") >> nth=0'); await p.waitForSelector('.hbar'); await p.waitForTimeout(1500); await shot(p, 'waits-batch');
  await p.context().close();
});
await step('network', async () => {
  const p = await open('?view=network&from=-5m'); await p.waitForSelector('.data-table tbody tr'); await p.waitForTimeout(800); await shot(p, 'network');
  await p.click('.data-table tr:has-text("shop-api") >> nth=0'); await p.waitForSelector('.hbar'); await p.waitForTimeout(1500); await shot(p, 'network-row');
  await p.context().close();
});
await browser.close();
