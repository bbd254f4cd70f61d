// Draws a flame graph on a canvas.
//
// Per redraw only what can be seen is touched: rows by scroll position, nodes within a row by binary search, and runs
// of nodes narrower than a pixel are drawn as one pixel and jumped over by another search. So the cost depends on the
// size of the canvas, not of the profile. Rectangles are not given to the canvas one by one (30,000 of them take 30 ms):
// each row of frames is painted as one line of pixels, copied downwards, and the whole picture handed over at once.
// Nothing is allocated per node or per redraw.
import { pathTo, seekLevel, type FlameGraph } from './flame';
import { fillsOf, kFillCount, type Palette } from './colors';
import { shortName } from './format';

export const kRowHeight = 20;
const kDim = kFillCount, kMatch = kFillCount + 1, kBackground = kFillCount + 2, kColours = kFillCount + 3;
const kMinText = 26; // px; a narrower frame has no room for a letter and the dots
const kFont = '12px Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';

export interface DrawStats {
  rects: number;
  texts: number;
  ms: number;
}

export class FlameRenderer {
  x0 = 0;
  x1 = 1;
  scrollTop = 0;
  up = false;
  zoom = 0;
  hover = -1;
  focus = -1;
  matches: Uint8Array | null = null; // per function: found by the search
  emphasis: Uint8Array | null = null; // per function: 0 = step back
  stats: DrawStats = { rects: 0, texts: 0, ms: 0 };

  private ctx: CanvasRenderingContext2D;
  private width = 0;
  private height = 0;
  private dpr = 1;
  private graph: FlameGraph | null = null;
  private palette: Palette | null = null;
  private fills = new Uint8Array(0);
  private reach = new Int32Array(0);
  private fullWidth = new Float32Array(0);
  private shortWidth = new Float32Array(0);
  private shortText: (string | undefined)[] = [];
  private onZoomPath = new Uint8Array(0);
  private letters = new Float32Array(65536); // width of each UTF-16 unit, 0 = not measured yet

  private capacity = 0;
  private count = 0;
  private rx = new Float32Array(0);
  private rw = new Float32Array(0);
  private ry = new Float32Array(0);
  private rnode = new Int32Array(0);
  private rcolour = new Uint8Array(0);
  private image: ImageData | null = null;
  private pixels = new Uint32Array(0);
  private ink = new Uint32Array(kColours); // colours as pixels

  constructor(private readonly canvas: HTMLCanvasElement) {
    const ctx = canvas.getContext('2d', { alpha: false, willReadFrequently: true });
    if (!ctx) throw new Error('This browser has no 2D canvas.');
    this.ctx = ctx;
  }

  setGraph(graph: FlameGraph): void {
    if (graph === this.graph) return;
    this.graph = graph;
    const functions = graph.fns.name.length;
    this.fills = fillsOf(graph.fns);
    this.fullWidth = new Float32Array(functions).fill(-1);
    this.shortWidth = new Float32Array(functions).fill(-1);
    this.shortText = new Array<string | undefined>(functions);
    this.reach = Int32Array.from(graph.depth);
    for (let i = graph.fn.length - 1; i > 0; i--) {
      const p = graph.parent[i]!;
      if (this.reach[i]! > this.reach[p]!) this.reach[p] = this.reach[i]!;
    }
    this.hover = this.focus = -1;
    this.setZoom(0);
  }

  setPalette(palette: Palette): void {
    if (palette === this.palette) return;
    this.palette = palette;
    // By bytes, so that it is right on either byte order.
    const bytes = new Uint8Array(this.ink.buffer);
    [...palette.fills, palette.dimFill, palette.match, palette.background].forEach((hex, i) => {
      for (let c = 0; c < 3; c++) bytes[i * 4 + c] = parseInt(hex.slice(1 + 2 * c, 3 + 2 * c), 16);
      bytes[i * 4 + 3] = 255;
    });
  }

  // Marks the node whose subtree is the view; x0 and x1 are the caller's (it may animate them).
  setZoom(node: number): void {
    this.zoom = node;
    this.onZoomPath = new Uint8Array(this.graph ? this.graph.fn.length : 0);
    if (!this.graph) return;
    for (const at of pathTo(this.graph, node).slice(0, -1)) this.onZoomPath[at] = 1;
  }

  resize(width: number, height: number, dpr: number): void {
    this.width = width;
    this.height = height;
    this.dpr = dpr;
    const w = Math.max(1, Math.round(width * dpr)), h = Math.max(1, Math.round(height * dpr));
    if (this.canvas.width !== w) this.canvas.width = w;
    if (this.canvas.height !== h) this.canvas.height = h;
    if (!this.image || this.image.width !== w || this.image.height !== h) {
      this.image = this.ctx.createImageData(w, h);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
  }

  contentHeight(): number {
    return this.graph ? (this.reach[this.zoom]! + 1) * kRowHeight : 0;
  }

  rowTop(depth: number): number {
    const full = Math.max(this.contentHeight(), this.up ? this.height : 0);
    return (this.up ? full - (depth + 1) * kRowHeight : depth * kRowHeight) - this.scrollTop;
  }

  private depthAt(y: number): number {
    const full = Math.max(this.contentHeight(), this.up ? this.height : 0);
    return this.up ? Math.floor((full - 1 - (y + this.scrollTop)) / kRowHeight) : Math.floor((y + this.scrollTop) / kRowHeight);
  }

  hit(x: number, y: number): number {
    const g = this.graph;
    if (!g || this.width <= 0) return -1;
    const depth = this.depthAt(y);
    if (depth < 0 || depth >= g.levels) return -1;
    const at = this.x0 + (x / this.width) * (this.x1 - this.x0);
    const node = g.level[seekLevel(g, depth, at)]!;
    return at >= g.start[node]! && at < g.start[node]! + g.total[node]! ? node : -1;
  }

  // Where a node is on the canvas now, for outlines and for scrolling it into view.
  box(node: number): { x: number; y: number; w: number } {
    const g = this.graph!;
    const scale = this.width / (this.x1 - this.x0);
    const left = Math.max(0, (g.start[node]! - this.x0) * scale);
    const right = Math.min(this.width, (g.start[node]! + g.total[node]! - this.x0) * scale);
    return { x: left, y: this.rowTop(g.depth[node]!), w: Math.max(0, right - left) };
  }

  draw(): DrawStats {
    const began = performance.now();
    const { ctx, graph: g, palette } = this;
    if (!g || !palette || !this.image || this.width <= 0) return this.stats;
    this.collect(g);
    this.paint();
    ctx.putImageData(this.image, 0, 0);
    ctx.setTransform(this.dpr, 0, 0, this.dpr, 0, 0);
    const texts = this.label(g, palette);
    this.outline(this.hover, palette, 1);
    this.outline(this.focus, palette, 2);
    this.stats = { rects: this.count, texts, ms: performance.now() - began };
    return this.stats;
  }

  private collect(g: FlameGraph): void {
    this.count = 0;
    const span = this.x1 - this.x0;
    if (!(span > 0)) return;
    const scale = this.width / span, perPixel = span / this.width;
    const rowA = this.depthAt(0), rowB = this.depthAt(this.height);
    const first = Math.max(0, Math.min(rowA, rowB)), last = Math.min(g.levels - 1, Math.max(rowA, rowB), this.reach[this.zoom]!);
    const { start, total, level, levelStart, fn } = g;
    for (let depth = first; depth <= last; depth++) {
      const end = levelStart[depth + 1]!;
      const y = this.rowTop(depth);
      for (let i = seekLevel(g, depth, this.x0); i < end;) {
        const node = level[i]!;
        const s = start[node]!;
        if (s >= this.x1) break;
        const e = s + total[node]!;
        if (e <= this.x0) {
          i++;
          continue;
        }
        const left = s > this.x0 ? (s - this.x0) * scale : 0;
        const right = e < this.x1 ? (e - this.x0) * scale : this.width;
        if (right - left < 0.75) {
          // One pixel stands for this node and all that begin within it.
          const pixel = Math.floor(left);
          this.push(pixel, 1, y, node, fn[node]!);
          const nextX = this.x0 + (pixel + 1) * perPixel;
          let low = i + 1, high = end;
          while (low < high) {
            const middle = (low + high) >> 1;
            if (start[level[middle]!]! < nextX) low = middle + 1;
            else high = middle;
          }
          // The last one before nextX may be wide and reach over it.
          const before = level[low - 1]!;
          i = low - 1 > i && (start[before]! + total[before]! - this.x0) * scale > pixel + 1.75 ? low - 1 : low;
        } else {
          this.push(left, right - left, y, node, fn[node]!);
          i++;
        }
      }
    }
  }

  private push(x: number, w: number, y: number, node: number, f: number): void {
    if (this.count === this.capacity) this.grow();
    const i = this.count++;
    this.rx[i] = x;
    this.rw[i] = w;
    this.ry[i] = y;
    this.rnode[i] = node;
    let colour = this.fills[f]!;
    if (this.matches) colour = this.matches[f] ? kMatch : kDim;
    else if (this.emphasis && !this.emphasis[f]) colour = kDim;
    else if (this.onZoomPath[node]) colour = kDim;
    this.rcolour[i] = colour;
  }

  private grow(): void {
    this.capacity = Math.max(4096, this.capacity * 2);
    const f32 = (from: Float32Array): Float32Array => {
      const to = new Float32Array(this.capacity);
      to.set(from);
      return to;
    };
    this.rx = f32(this.rx);
    this.rw = f32(this.rw);
    this.ry = f32(this.ry);
    const nodes = new Int32Array(this.capacity);
    nodes.set(this.rnode);
    this.rnode = nodes;
    const colours = new Uint8Array(this.capacity);
    colours.set(this.rcolour);
    this.rcolour = colours;
  }

  // Rectangles come row by row (collect): paint the top line of a row, then copy it.
  private paint(): void {
    const { pixels, ink, rx, rw, ry, rcolour, dpr, count } = this;
    const w = this.image!.width, h = this.image!.height;
    pixels.fill(ink[kBackground]!);
    for (let i = 0; i < count;) {
      const y = ry[i]!;
      const top = Math.max(0, Math.round(y * dpr)), bottom = Math.min(h, Math.round((y + kRowHeight - 1) * dpr));
      const line = top * w;
      for (; i < count && ry[i] === y; i++) {
        if (top >= bottom) continue;
        // Edges on device pixels: crisp, and neighbours never overlap. Frames wide enough leave a gap of one pixel.
        const left = Math.round(rx[i]! * dpr);
        let right = Math.min(w, Math.round((rx[i]! + rw[i]!) * dpr));
        if (rw[i]! > 2.5) right -= Math.round(dpr);
        pixels.fill(ink[rcolour[i]!]!, line + left, line + Math.max(left + 1, right));
      }
      for (let row = top + 1; row < bottom; row++) pixels.copyWithin(row * w, line, line + w);
    }
  }

  private label(g: FlameGraph, palette: Palette): number {
    const { ctx } = this;
    ctx.font = kFont;
    ctx.textBaseline = 'middle';
    let texts = 0, style = -1;
    for (let i = 0; i < this.count; i++) {
      const w = this.rw[i]!;
      if (w < kMinText) continue;
      const f = g.fn[this.rnode[i]!]!;
      const text = this.fit(g, f, w - 10);
      if (text === '') continue;
      const colour = this.rcolour[i]!;
      const wanted = colour === kDim ? 1 : colour === kMatch ? 2 : 0;
      if (wanted !== style) {
        style = wanted;
        ctx.fillStyle = wanted === 1 ? palette.dimText : wanted === 2 ? palette.matchText : palette.text;
      }
      ctx.fillText(text, this.rx[i]! + 5, this.ry[i]! + kRowHeight / 2);
      texts++;
    }
    return texts;
  }

  // The whole name if it fits, else the name without arguments, else as much of that as fits.
  private fit(g: FlameGraph, f: number, room: number): string {
    const full = g.fns.name[f]!;
    if (this.fullWidth[f]! < 0) this.fullWidth[f] = this.widthOf(full);
    if (this.fullWidth[f]! <= room) return full;
    let text = this.shortText[f];
    if (text === undefined) {
      text = this.shortText[f] = shortName(full);
      this.shortWidth[f] = text === full ? this.fullWidth[f]! : this.widthOf(text);
    }
    if (this.shortWidth[f]! <= room) return text;
    let x = this.advance(0x2026), i = 0;
    for (; i < text.length; i++) {
      x += this.advance(text.charCodeAt(i));
      if (x > room) break;
    }
    return i >= 2 ? `${text.slice(0, i)}…` : '';
  }

  // Sums of letters' widths: a measurement of the canvas costs as much as drawing, and kerning only makes text narrower.
  private widthOf(text: string): number {
    let x = 0;
    for (let i = 0; i < text.length && x < 10_000; i++) x += this.advance(text.charCodeAt(i));
    return x;
  }

  private advance(code: number): number {
    const known = this.letters[code]!;
    if (known > 0) return known;
    this.ctx.font = kFont;
    return (this.letters[code] = Math.max(0.01, this.ctx.measureText(String.fromCharCode(code)).width));
  }

  private outline(node: number, palette: Palette, width: number): void {
    if (node < 0) return;
    const { x, y, w } = this.box(node);
    if (w <= 0 || y < -kRowHeight || y > this.height) return;
    this.ctx.strokeStyle = palette.outline;
    this.ctx.lineWidth = width;
    this.ctx.strokeRect(x + width / 2, y + width / 2 - 0.5, Math.max(1, w - 1 - width), kRowHeight - width);
  }
}
