// CPU within seconds: made-up data of a store, and the checks of the page.
import assert from 'node:assert/strict';
import { random } from './data.mjs';

// A job that runs for 60 ms each second and drifts, a timer every 200 ms, and a busy half minute.
export function subSecond(from, to, stepMs, cellMs, query) {
  const rows = Math.round(stepMs / cellMs), columns = [];
  let samples = 0, timed = 0;
  for (let t = Math.floor(from / stepMs) * stepMs; t < to; t += stepMs) {
    const i = Math.round(t / stepMs), rnd = random(i);
    if (Math.floor(i / 17) % 19 === 3 && i % 17 < 3) continue; // the agent was away
    const drift = (i * 7) % 1000, busy = Math.floor(t / 30_000) % 11 === 4;
    const cells = Array.from({ length: rows }, (_, row) => {
      const at = row * cellMs;
      return (rnd() < 0.25 ? 1 : 0) + (at >= drift && at < drift + 60 ? 6 + Math.floor(rnd() * 3) : 0) + (at % 200 === 0 ? 2 : 0) + (busy ? 3 + Math.floor(rnd() * 3) : 0);
    });
    const n = cells.reduce((a, b) => a + b, 0);
    samples += n;
    if (/service="ancient"/.test(query)) continue;
    if (/service="partly"/.test(query) && t < (from + to) / 2) continue;
    timed += n;
    columns.push({ t, cells });
  }
  return { stepNs: stepMs * 1e6, cellNs: cellMs * 1e6, samples, timed, columns };
}

export async function secondsChecks({ check, open, done, graphReady, address, textIs, shot, until, settled, mock }) {
  const drawn = (page) => page.evaluate(() => {
    const c = document.querySelector('.seconds-plot canvas');
    const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    const seen = new Set();
    for (let i = 3; i < d.length; i += 4) seen.add(d[i]);
    return seen.size;
  });

  await check('time line: within seconds shows cells, dragging narrows the range to whole windows', async () => {
    const page = await open('?view=flame&live=0', { mock, height: 900 });
    await graphReady(page);
    await page.click('.segments >> text=Within seconds');
    await address(page, (p) => p.get('seconds') === '1');
    await until(page, () => document.querySelector('.seconds-plot canvas')?.getAttribute('aria-label').includes('samples'));
    await page.waitForTimeout(200);
    assert.ok((await drawn(page)) > 4, 'cells of different strength');
    const asked = new URL(mock.state.calls.filter((c) => c.startsWith('GET heatmap') && c.includes('cell=')).at(-1).split(' ')[1], 'http://x/').searchParams;
    assert.deepEqual([asked.get('step'), asked.get('cell')], ['1000ms', '20ms']);
    const box = await settled(page.locator('.seconds-plot'));
    await page.mouse.move(box.x + box.width * 0.5, box.y + 70);
    await textIs(page.locator('.timeline-note span').nth(1), /^\d\d:\d\d:\d\d \+ \d+ … \d+ ms: \d+ samples?$/);
    await shot(page, 'seconds-light');
    await page.mouse.move(box.x + box.width * 0.4, box.y + 30);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.45, box.y + 90, { steps: 4 });
    await page.mouse.up();
    const [from, to] = (await address(page, (p) => p.has('sel'))).get('sel').split('-').map(Number);
    assert.ok(from % 10_000 === 0 && to % 10_000 === 0 && to > from && to - from <= 70_000, `${from} ${to}`);
    await page.mouse.move(box.x + box.width * 0.9, box.y + box.height + 60);
    await page.waitForSelector('text=Whole range');
    await page.waitForTimeout(300);
    await shot(page, 'seconds-chosen');
    await page.click('text=Whole range');
    await address(page, (p) => !p.has('sel'));
    await page.click('.segments >> text=Sums');
    await address(page, (p) => !p.has('seconds'));
    await page.waitForSelector('.timeline-plot .area');
    await done(page);
  });

  await check('time line: within seconds says which samples have no time, and why', async () => {
    const partly = await open(`?view=flame&seconds=1&live=0&q=${encodeURIComponent('cpu{service="partly"}')}`, { mock, scheme: 'dark', height: 900 });
    await textIs(partly.locator('.seconds-missing'), /of .* samples \(\d\d\.\d %\) have no time and are not shown\. .*--retention-offsets/);
    await graphReady(partly);
    await shot(partly, 'seconds-partly-dark');
    await done(partly);
    const none = await open(`?view=flame&seconds=1&live=0&q=${encodeURIComponent('cpu{service="ancient"}')}`, { mock, height: 900 });
    await textIs(none.locator('.timeline-none'), /None of the .* samples has a time/);
    await graphReady(none);
    await shot(none, 'seconds-none');
    await done(none);
  });
}
