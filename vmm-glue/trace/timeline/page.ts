// The timeline as one self-contained page: nothing is fetched, nothing that a guest said is markup.

import { MARK_KINDS, type Timeline, titleOf } from './timeline.ts';
import { viewer } from './viewer.ts';

const STYLE = `
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2430; --soft: #6b7685; --line: #e3e7ec;
  --phase: #f3d9a4; --up: #b9dfbe; --hostwork: #cfd8f6; --standstill: #f5c6c6; --arrow: #8a5cd1;
  --read: #7d8fa8; --write: #1668c7; --failure: #d22f2f; --reset: #b3541e; --message: #27915a; --host: #5566c9; --step: #a06a00; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181e; --ink: #e4e9f0; --soft: #8e9aaa; --line: #2a313b;
  --phase: #5d4716; --up: #1f4f2b; --hostwork: #2b3564; --standstill: #5b2626; --arrow: #b594ee;
  --read: #7488a5; --write: #63a8f5; --failure: #ff6b6b; --reset: #f0975e; --message: #56c98d; --host: #93a2f5; --step: #dba63a; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 14px system-ui, sans-serif; }
header { display: flex; gap: 1em; align-items: baseline; padding: 10px; flex-wrap: wrap; }
h1 { font-size: 15px; margin: 0; }
small, #found { color: var(--soft); }
input { font: inherit; background: var(--paper); color: var(--ink); border: 1px solid var(--soft); border-radius: 4px; padding: 2px 6px; }
canvas { display: block; width: 100%; cursor: crosshair; }
#tip { position: fixed; white-space: pre-wrap; max-width: 360px; background: var(--paper); border: 1px solid var(--soft);
  border-radius: 4px; padding: 6px 8px; font: 12px ui-monospace, monospace; pointer-events: none; }
.key { display: inline-block; width: 9px; height: 9px; margin: 0 3px 0 8px; }
`;

/** The page, in UTF-8. */
export function page(timeline: Timeline): string {
  const title = escapeHtml(titleOf(timeline));
  const legend = MARK_KINDS.map(
    (kind) => `<span class="key" style="background:var(--${kind})"></span>${kind}`,
  ).join('');
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${title}</title>
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>${STYLE}</style></head><body>
<header><h1>${title}</h1><input id="search" type="search" placeholder="search ( / )" aria-label="search">
<span id="found" role="status"></span><small>${legend}</small>
<small>wheel or + − zooms, drag or ← → moves, Home shows all, n and N go from hit to hit</small></header>
<canvas id="canvas" aria-label="timeline"></canvas><div id="tip" hidden></div>
<script type="application/json" id="data">${jsonForScript(timeline)}</script>
<script>(${viewer.toString()})(window, JSON.parse(document.getElementById('data').textContent), ${JSON.stringify(MARK_KINDS)});</script>
</body></html>
`;
}

/** JSON that no text in it can end the script element around it. */
export function jsonForScript(value: unknown): string {
  return JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
