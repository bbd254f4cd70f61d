// The selector with completion from the store and errors marked where they are.
import { useEffect, useId, useMemo, useRef, useState } from 'react';
import { api, apiPath, useApi, type ApiError } from '../lib/api';
import { completionAt, parseSelector, SelectorError, type Completion } from '../lib/selector';

interface Option {
  text: string;
  note: string;
}

export function SelectorInput(props: {
  value: string; defaultType: string; types: string[]; range: { from: string; to: string }; storeError?: ApiError; onSubmit: (text: string) => void;
}): JSX.Element {
  const { value, defaultType } = props;
  const [text, setText] = useState(value);
  const [caret, setCaret] = useState(0);
  const [focused, setFocused] = useState(false);
  const [active, setActive] = useState(-1);
  const [dismissed, setDismissed] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const id = useId();
  useEffect(() => setText(value), [value]);

  const completion: Completion = focused && !dismissed ? completionAt(text, caret) : null;
  const names = useApi<{ labels: string[] }>(focused ? apiPath('labels', { query: defaultType, ...props.range }) : null, { scope: 'labels' });
  const wantedLabel = completion?.kind === 'value' ? completion.label : '';
  const [values, setValues] = useState<{ label: string; values: string[] }>({ label: '', values: [] });
  useEffect(() => {
    if (!wantedLabel || values.label === wantedLabel) return undefined;
    const abort = new AbortController();
    api<{ values: string[] }>(apiPath('label-values', { label: wantedLabel, query: defaultType, ...props.range }), { signal: abort.signal })
      .then((r) => setValues({ label: wantedLabel, values: r.values }))
      .catch(() => undefined); // no completion then; typing still works
    return () => abort.abort();
  }, [wantedLabel, values.label, defaultType, props.range.from, props.range.to]);

  const options = useMemo<Option[]>(() => {
    if (!completion) return [];
    const all: Option[] = completion.kind === 'type' ? props.types.map((t) => ({ text: t, note: 'type' }))
      : completion.kind === 'name' ? (names.data?.labels ?? []).map((l) => ({ text: l, note: 'label' }))
        : values.label === completion.label ? values.values.map((v) => ({ text: v, note: completion.label })) : [];
    const want = completion.prefix.toLowerCase();
    return all.filter((o) => o.text.toLowerCase().includes(want) && o.text !== completion.prefix)
      .sort((a, b) => Number(b.text.toLowerCase().startsWith(want)) - Number(a.text.toLowerCase().startsWith(want)))
      .slice(0, 12);
  }, [completion?.kind, completion?.prefix, names.data, values, props.types]);
  useEffect(() => setActive(-1), [completion?.kind, completion?.prefix]);

  const accept = (o: Option): void => {
    if (!completion) return;
    const insert = completion.kind === 'value' ? o.text.replace(/\\/g, '\\\\').replace(/"/g, '\\"') + (completion.closed ? '' : '"')
      : completion.kind === 'name' ? `${o.text}=""${text.includes('}', completion.to) ? '' : '}'}` : `${o.text}`;
    const next = text.slice(0, completion.from) + insert + text.slice(completion.to);
    const place = completion.from + insert.length + (completion.kind === 'name' ? insert.lastIndexOf('"') - insert.length : completion.kind === 'value' && completion.closed ? 1 : 0);
    setText(next);
    requestAnimationFrame(() => {
      input.current?.focus();
      input.current?.setSelectionRange(place, place);
      setCaret(place);
    });
  };

  let error: { message: string; position: number } | null = null;
  if (text.trim()) {
    try {
      parseSelector(text);
    } catch (e) {
      if (e instanceof SelectorError && text !== value) error = { message: e.message, position: e.position };
    }
  }
  // The store's own word on what was last asked.
  if (!error && text === value && props.storeError?.status === 400) error = { message: props.storeError.message, position: props.storeError.position ?? -1 };
  // While a completion is on offer, the text is unfinished rather than wrong.
  const showError = error && !(focused && text !== value && options.length > 0);

  const submit = (): void => {
    if (error && text !== value) return;
    setDismissed(true);
    let clean = text.trim();
    // "cpu" alone and "{}" mean everything: the shortest address says the same.
    if (clean === defaultType || clean === '{}' || clean === `${defaultType}{}`) clean = '';
    props.onSubmit(clean);
  };
  const track = (): void => setCaret(input.current?.selectionStart ?? 0);
  return (
    <div className="selector">
      <div className={`selector-box ${showError ? 'bad' : ''}`}>
        <input
          ref={input} value={text} spellCheck={false} autoCapitalize="off" autoComplete="off" aria-label="Selector: what to show"
          role="combobox" aria-expanded={options.length > 0} aria-controls={`${id}-list`} aria-autocomplete="list" aria-invalid={Boolean(error)}
          aria-activedescendant={active >= 0 ? `${id}-${active}` : undefined} aria-describedby={showError ? `${id}-error` : undefined}
          placeholder={`${defaultType}{}   everything; e.g. ${defaultType}{container.name="shop"}`}
          onFocus={() => {
            setFocused(true);
            setDismissed(true);
            track();
          }}
          onBlur={() => setFocused(false)}
          onSelect={track} onClick={() => {
            setDismissed(false);
            track();
          }}
          onChange={(e) => {
            setText(e.target.value);
            setDismissed(false);
            setCaret(e.target.selectionStart ?? 0);
          }}
          onKeyDown={(e) => {
            if (e.key === 'ArrowDown' || e.key === 'ArrowUp') {
              e.preventDefault();
              setDismissed(false);
              if (options.length) setActive((active + (e.key === 'ArrowDown' ? 1 : options.length + (active < 0 ? 0 : -1))) % options.length);
            } else if ((e.key === 'Enter' || e.key === 'Tab') && active >= 0 && options[active]) {
              e.preventDefault();
              accept(options[active]!);
            } else if (e.key === 'Enter') submit();
            else if (e.key === 'Escape') {
              if (options.length && !dismissed) setDismissed(true);
              else setText(value);
            }
          }}
        />
        {showError && error && error.position >= 0 && error.position <= text.length && (
          <span className="squiggle" aria-hidden="true" style={{ left: `calc(10px + ${error.position}ch)` }} />
        )}
        {text !== value && <button type="button" className="button small primary" onMouseDown={(e) => e.preventDefault()} onClick={submit} disabled={Boolean(error)}>Show</button>}
        {text === value && value !== '' && (
          <button type="button" className="clear" aria-label="Show everything" title="Show everything" onClick={() => props.onSubmit('')}>×</button>
        )}
      </div>
      {showError && <div className="selector-error" id={`${id}-error`} role="alert">{error!.message}{error!.position >= 0 && ` (at character ${error!.position + 1})`}</div>}
      {options.length > 0 && (
        <ul className="options" id={`${id}-list`} role="listbox">
          {options.map((o, i) => (
            <li key={o.text} id={`${id}-${i}`} role="option" aria-selected={i === active} onMouseDown={(e) => {
              e.preventDefault();
              accept(o);
            }}>
              <span>{o.text}</span><small>{o.note}</small>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
