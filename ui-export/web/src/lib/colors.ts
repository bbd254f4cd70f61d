// Colours of frames: by what kind of code they are, and within libraries by module.
//
// Warm = your program, cool hues = libraries (one hue per module), slate = kernel, yellow = generated code, grey = no name.
// The causes that end the stacks of waits have one fill each, in the hue that bars and legends give them (lib/causes.ts).
// Every label on a frame has a contrast of at least 4.5 : 1 (tests/unit/colors.test.ts).
import { Kind, type Functions } from './flame';
import { baseName } from './format';

export const kCategories = ['program', 'library', 'kernel', 'jit', 'interpreted', 'unknown', 'other'] as const;
export type Category = (typeof kCategories)[number];

export const kCategoryInfo: Record<Category, { label: string; help: string }> = {
  program: { label: 'Program', help: 'The main executable: usually your own code.' },
  library: { label: 'Libraries', help: 'Shared libraries (.so): libc, libssl, … Each library has its own hue.' },
  kernel: { label: 'Kernel', help: 'Linux itself, working for the program: system calls, page faults, interrupts.' },
  jit: { label: 'JIT', help: 'Machine code made while running (Java, Node.js, .NET). Named by the runtime through /tmp/perf-PID.map.' },
  interpreted: { label: 'Interpreted', help: 'Functions of an interpreted language such as Python.' },
  unknown: { label: 'No name', help: 'Addresses for which no symbol was found. Point at one to read why.' },
  other: { label: 'Labels', help: 'Not code: the root, label values, and marks such as [truncated].' },
};

export function isLibrary(module: string): boolean {
  return /\.so(\.[\w.]+)?$|^\[vdso\]$|^\[vsyscall\]$|^ld-linux|\.dylib$/.test(baseName(module).replace(/ \(deleted\)$/, ''));
}

export function categoryOf(kind: number, module: string): Category {
  switch (kind) {
    case Kind.Native: return isLibrary(module) ? 'library' : 'program';
    case Kind.Kernel: return 'kernel';
    case Kind.Jit: return 'jit';
    case Kind.Interpreted: return 'interpreted';
    case Kind.Synthetic: case Kind.Label: return 'other';
    default: return 'unknown';
  }
}

export interface Palette {
  fills: string[];
  text: string;
  dimFill: string;
  dimText: string;
  match: string;
  matchText: string;
  background: string;
  outline: string;
}

// Indices into Palette.fills.
const kProgram = 0, kKernel = 1, kJit = 2, kInterpreted = 3, kUnknown = 4, kOther = 5, kLibrary = 6;
const kLibraryHues = [174, 265, 142, 305, 196, 338, 84, 232];
const kCause = kLibrary + kLibraryHues.length;
// Hue and saturation by the frame's name.
const kCauseTones: [string, number, number][] = [
  ['[lock]', 6, 0.75], ['[block_io]', 268, 0.45], ['[network]', 197, 0.55], ['[page_fault]', 322, 0.45], ['[throttled]', 352, 0.6],
  ['[runnable]', 45, 0.75], ['[timer]', 130, 0.18], ['[poll]', 210, 0.2], ['[other]', 35, 0.06],
];
export const kFillCount = kCause + kCauseTones.length;

export const kLight: Palette = {
  fills: ['#f5b778', '#aebdce', '#f0dd6a', '#c3dc7c', '#d5d2cc', '#e9e5dd',
    ...kLibraryHues.map((h) => hslHex(h, h > 220 && h < 330 ? 0.56 : 0.42, h > 220 && h < 330 ? 0.82 : 0.74)),
    ...kCauseTones.map(([, h, s]) => hslHex(h, s, 0.78))],
  text: '#221d17', dimFill: '#efedea', dimText: '#6b665e', match: '#c2410c', matchText: '#ffffff',
  background: '#ffffff', outline: '#1c1917',
};

export const kDark: Palette = {
  fills: ['#a85a1c', '#46566a', '#7d6c14', '#56701c', '#4d4a46', '#37332e',
    ...kLibraryHues.map((h) => hslHex(h, h > 220 && h < 330 ? 0.3 : 0.4, h > 220 && h < 330 ? 0.4 : 0.29)),
    ...kCauseTones.map(([, h, s]) => hslHex(h, s * 0.7, 0.32))],
  text: '#fbf6ef', dimFill: '#26231f', dimText: '#99928a', match: '#ff9a57', matchText: '#1c1206',
  background: '#171513', outline: '#fff7ee',
};

export function hslHex(h: number, s: number, l: number): string {
  const f = (n: number): string => {
    const k = (n + h / 30) % 12;
    const v = l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(k - 3, 9 - k, 1));
    return Math.round(255 * v).toString(16).padStart(2, '0');
  };
  return `#${f(0)}${f(8)}${f(4)}`;
}

export function fillOf(kind: number, module: string): number {
  switch (categoryOf(kind, module)) {
    case 'program': return kProgram;
    case 'kernel': return kKernel;
    case 'jit': return kJit;
    case 'interpreted': return kInterpreted;
    case 'unknown': return kUnknown;
    case 'other': return kOther;
    default: return kLibrary + libraryHue(module);
  }
}

// By name without version, so that libc.so.6 and libc-2.36.so look the same on every node.
export function libraryHue(module: string): number {
  const name = baseName(module).replace(/[-.]?\d[\d.]*.*$|\.so.*$/g, '');
  let h = 7;
  for (let i = 0; i < name.length; i++) h = (Math.imul(h, 31) + name.charCodeAt(i)) >>> 0;
  return h % kLibraryHues.length;
}

const made = new WeakMap<Functions, Uint8Array>();

// One fill per function. Each library has the hue of its name; where two of a graph would share one, the library with
// fewer functions takes the next free hue.
export function fillsOf(fns: Functions): Uint8Array {
  const known = made.get(fns);
  if (known) return known;
  const sizes = new Map<string, number>();
  for (let i = 0; i < fns.name.length; i++) {
    if (categoryOf(fns.kind[i]!, fns.module[i]!) === 'library') sizes.set(fns.module[i]!, (sizes.get(fns.module[i]!) ?? 0) + 1);
  }
  const taken = new Set<number>();
  const hues = new Map<string, number>();
  for (const [module] of [...sizes].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))) {
    let hue = libraryHue(module);
    for (let step = 0; step < kLibraryHues.length && taken.has(hue); step++) hue = (hue + 1) % kLibraryHues.length;
    taken.add(hue);
    hues.set(module, hue);
  }
  const out = new Uint8Array(fns.name.length);
  for (let i = 0; i < out.length; i++) {
    const cause = fns.kind[i] === Kind.Synthetic ? kCauseTones.findIndex(([name]) => name === fns.name[i]) : -1;
    if (cause >= 0) {
      out[i] = kCause + cause;
      continue;
    }
    const hue = hues.get(fns.module[i]!);
    out[i] = hue !== undefined && categoryOf(fns.kind[i]!, fns.module[i]!) === 'library' ? kLibrary + hue : fillOf(fns.kind[i]!, fns.module[i]!);
  }
  made.set(fns, out);
  return out;
}
