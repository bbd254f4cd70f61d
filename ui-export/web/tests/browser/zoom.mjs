// Zooming in on a flame graph that the store cut: the page asks again, finer.
import assert from 'node:assert/strict';
import { startMock } from './mock.mjs';

export async function zoomChecks({ check, open, done, graphReady, address, textIs, countIs, shot, until, dist }) {
  const mock = await startMock({ dist });
  const kPage = `?view=flame&by=-&display=graph&live=0&q=${encodeURIComponent('cpu{service="huge"}')}`;
  const focused = () => mock.state.calls.filter((c) => / flame\?/.test(c) && (c.includes('focus=') || c.startsWith('POST')));
  const waitFor = async (page, what, holds) => {
    for (const end = Date.now() + 20_000; !holds();) {
      assert.ok(Date.now() < end, what);
      await page.waitForTimeout(40);
    }
  };
  // A box below the root with something summed up under it, and one inside of it; where on the canvas, and what they hold.
  const target = (page) => page.evaluate(() => {
    const r = window.__pyrometerFlame, g = r.graph;
    const name = (i) => g.fns.name[g.fn[i]];
    const box = document.querySelector('.flame-canvas').getBoundingClientRect();
    const at = (i) => ({ x: box.left + ((g.start[i] + g.total[i] / 2 - r.x0) / (r.x1 - r.x0)) * box.width, y: box.top + r.rowTop(g.depth[i]) + 8 });
    const cutBelow = new Uint8Array(g.fn.length);
    for (let i = g.fn.length - 1; i > 0; i--) if (name(i) === '(smaller)' || cutBelow[i]) cutBelow[g.parent[i]] = 1;
    const kids = (p) => Array.from(g.fn, (_, i) => i).filter((i) => i > 0 && g.parent[i] === p && cutBelow[i]).sort((a, b) => g.total[b] - g.total[a]);
    const outer = kids(0).find((i) => kids(i).length > 0), inner = kids(outer)[0];
    const describe = (i) => ({ name: name(i), total: g.total[i], ...at(i) });
    return { outer: describe(outer), inner: describe(inner), frames: g.fn.length, whole: g.total[0] };
  });
  const graph = (page) => page.evaluate(() => {
    const g = window.__pyrometerFlame.graph;
    return { frames: g.fn.length, whole: g.total[0], smaller: Array.from(g.fn).filter((f) => g.fns.name[f] === '(smaller)').length };
  });

  await check('flame graph that was cut: zooming in asks for the finer subtree, zooming out does not', async () => {
    mock.state.focus.delayMs = 1500;
    const page = await open(kPage, { mock, height: 900 });
    await graphReady(page);
    const before = await target(page);
    await shot(page, 'zoom-coarse-whole');
    await page.mouse.click(before.outer.x, before.outer.y);
    await textIs(page.locator('.crumb-wait'), /Asking for smaller boxes/);
    await page.waitForTimeout(300); // the glide takes 160 ms
    assert.equal((await graph(page)).frames, before.frames, 'the old picture stays until the answer is there');
    await shot(page, 'zoom-coarse');
    await countIs(page.locator('.crumb-wait .dot'), 0);
    const fine = await graph(page);
    assert.ok(fine.frames > before.frames, `${before.frames} boxes became ${fine.frames}`);
    assert.equal(fine.whole, before.whole, 'the numbers stay');
    assert.equal(focused().length, 1);
    const asked = new URL(focused()[0].split(' ')[1], 'http://x/').searchParams;
    assert.equal(asked.get('focus'), before.outer.name);
    assert.match(asked.get('from'), /^\d{13}$/);
    await textIs(page.locator('.crumb-value'), /of all/);
    await shot(page, 'zoom-fine');
    // Out and in again: at once, and nothing is asked.
    const zoom = (await address(page, (p) => p.has('zoom'))).get('zoom');
    await page.goBack();
    await textIs(page.locator('.crumbs .here'), /^All$/);
    assert.equal((await graph(page)).frames, fine.frames);
    await page.goForward();
    await address(page, (p) => p.get('zoom') === zoom);
    await page.waitForTimeout(300);
    assert.equal(focused().length, 1);
    // Search and table see what came.
    await page.fill('.search input', 'method_1');
    await page.waitForSelector('text=/%\\s+matched/');
    await page.click('.segments >> text=Both');
    await page.waitForSelector('.fn-table tbody tr[aria-rowindex]');
    await done(page);
  });

  await check('flame graph that was cut: a click on what is summed up shows it below its caller', async () => {
    mock.state.focus.delayMs = 0;
    const asked = focused().length;
    const page = await open(kPage, { mock, height: 900 });
    await graphReady(page);
    const at = await page.evaluate(() => {
      const r = window.__pyrometerFlame, g = r.graph;
      const box = document.querySelector('.flame-canvas').getBoundingClientRect();
      const all = Array.from(g.fn, (_, i) => i).filter((i) => g.fns.name[g.fn[i]] === '(smaller)' && g.parent[i] > 0 && r.rowTop(g.depth[i]) < box.height - 20);
      const i = all.reduce((a, b) => (g.total[b] > g.total[a] ? b : a));
      return { caller: g.fns.name[g.fn[g.parent[i]]], x: box.left + ((g.start[i] + g.total[i] / 2) / g.total[0]) * box.width, y: box.top + r.rowTop(g.depth[i]) + 8 };
    });
    await page.mouse.move(at.x, at.y);
    await textIs(page.locator('.frame-tip'), /\(smaller\)[\s\S]*Click to see them/);
    await shot(page, 'zoom-smaller-tip');
    await page.mouse.click(at.x, at.y);
    await waitFor(page, 'the finer subtree is asked for', () => focused().length > asked);
    const here = await page.locator('.crumbs .here').getAttribute('title');
    assert.equal(here, at.caller);
    await until(page, () => !document.querySelector('.crumb-wait .dot'));
    await shot(page, 'zoom-smaller-clicked');
    await done(page);
  });

  await check('flame graph that was cut: an error says so and can be tried again; answers nobody waits for are dropped', async () => {
    Object.assign(mock.state.focus, { delayMs: 0, error: 'the question took longer than --query-timeout (30s)' });
    const page = await open(kPage, { mock, allowErrors: true, height: 900 });
    await graphReady(page);
    const before = await target(page);
    await page.mouse.click(before.outer.x, before.outer.y);
    await textIs(page.locator('.notice'), /The smaller boxes below .* did not come: the question took longer than --query-timeout \(30s\)/);
    await shot(page, 'zoom-error');
    assert.equal((await graph(page)).frames, before.frames);
    Object.assign(mock.state.focus, { error: '', delayMs: 1500 });
    await page.click('.notice >> text=Try again');
    await page.waitForSelector('.crumb-wait .dot');
    // Zoomed on meanwhile: the first answer is of no use any more.
    mock.state.focus.answered = [];
    mock.state.focus.delayMs = 0;
    const inner = await page.evaluate((wanted) => {
      const r = window.__pyrometerFlame, g = r.graph;
      const i = Array.from(g.fn, (_, n) => n).find((n) => g.fns.name[g.fn[n]] === wanted.inner && g.fns.name[g.fn[g.parent[n]]] === wanted.outer);
      const box = document.querySelector('.flame-canvas').getBoundingClientRect();
      return { x: box.left + ((g.start[i] + g.total[i] / 2 - r.x0) / (r.x1 - r.x0)) * box.width, y: box.top + r.rowTop(g.depth[i]) + 8 };
    }, { outer: before.outer.name, inner: before.inner.name });
    await page.mouse.click(inner.x, inner.y);
    await waitFor(page, 'the inner subtree is answered', () => mock.state.focus.answered.length > 0);
    await until(page, () => !document.querySelector('.crumb-wait .dot'));
    assert.deepEqual(mock.state.focus.answered[0].focus, [before.outer.name, before.inner.name]);
    await page.waitForTimeout(1800);
    assert.equal(mock.state.focus.answered.length, 1, 'the question that nobody waited for was let go');
    await countIs(page.locator('.notice'), 0);
    // A link to that place loads as fine as it was.
    const link = await open(`?${await address(page)}`, { mock });
    await waitFor(link, 'the link asks too', () => mock.state.focus.answered.length > 1);
    await done(link);
    await done(page);
  });

  await check('flame graph that was cut: live, the picture before stays until the new one is as fine', async () => {
    Object.assign(mock.state.focus, { error: '', delayMs: 400, answered: [] });
    const page = await open(kPage.replace('&live=0', ''), { mock, height: 900 });
    await graphReady(page);
    const before = await target(page);
    await page.mouse.click(before.outer.x, before.outer.y);
    await waitFor(page, 'the finer subtree is answered', () => mock.state.focus.answered.length > 0);
    await until(page, () => !document.querySelector('.crumb-wait .dot'));
    await page.evaluate(() => {
      window.fewest = Infinity;
      const look = () => {
        window.fewest = Math.min(window.fewest, window.__pyrometerFlame.graph.fn.length);
        requestAnimationFrame(look);
      };
      look();
    });
    await waitFor(page, 'it is renewed', () => mock.state.focus.answered.length > 1);
    await page.waitForTimeout(500);
    assert.ok((await page.evaluate(() => window.fewest)) > before.frames, 'it never became coarse again');
    const [first, second] = mock.state.focus.answered;
    assert.ok(second.range[1] > first.range[1], 'each picture asks for its own range');
    await done(page);
  });

  await mock.close();
}
