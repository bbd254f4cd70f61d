// Light or dark: the address decides, then what was chosen before, then the system.
import { useEffect, useSyncExternalStore } from 'react';

export type Theme = '' | 'light' | 'dark';
const kKey = 'pyrometer-theme';

let chosen: Theme = '';
const listeners = new Set<() => void>();
const media = (): MediaQueryList => matchMedia('(prefers-color-scheme: dark)');

function stored(): Theme {
  try {
    const v = localStorage.getItem(kKey);
    return v === 'light' || v === 'dark' ? v : '';
  } catch {
    return ''; // file:// in a strict browser has no storage
  }
}

export function applyTheme(theme: Theme): void {
  chosen = theme || stored();
  document.documentElement.dataset.theme = isDark() ? 'dark' : 'light';
  listeners.forEach((l) => l());
}

export function rememberTheme(theme: Theme): void {
  try {
    if (theme) localStorage.setItem(kKey, theme);
    else localStorage.removeItem(kKey);
  } catch {
    // Not remembered; the address still carries it.
  }
}

export function isDark(): boolean {
  return chosen ? chosen === 'dark' : media().matches;
}

export function useDark(): boolean {
  useEffect(() => {
    const m = media();
    const changed = (): void => applyTheme(chosen);
    m.addEventListener('change', changed);
    return () => m.removeEventListener('change', changed);
  }, []);
  return useSyncExternalStore((l) => {
    listeners.add(l);
    return () => listeners.delete(l);
  }, isDark);
}
