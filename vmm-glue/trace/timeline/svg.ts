// The first enable of a recording as a picture, for documents: who did what from the write of VF Enable to the guest's first
// look at its VFs. Colours follow the reader's scheme; no script, nothing is fetched.

import { escapeHtml } from './page.ts';
import type { Timeline } from './timeline.ts';

const WIDTH = 880;
const LEFT = 118;
const RIGHT = 20;
const TOP = 64;
const LANE = 34;
const AXIS = 30;
/** Part of the time from write to first look that is shown before it, and behind it. */
const LEAD = 0.06;
const TAIL = 0.12;
const MILLISECOND = 1e6;
/** Marks closer than this are one to the eye. */
const PIXEL = 1.5;
/** Lanes beyond these would make a picture that nobody looks at. */
const MOST_VFS = 8;
const STYLE = `
svg{font:12px system-ui,sans-serif;color-scheme:light dark}
.paper{fill:#fff}.ink{fill:#1c2430}.soft{fill:#6b7685}.line{stroke:#e3e7ec}
.phase{fill:#f3d9a4}.up{fill:#cdebd1}.host{fill:#cfd8f6}.standstill{fill:#f5c6c6}
.read{fill:#93a2b8}.write{fill:#1668c7}.failure{fill:#d22f2f}.reset{fill:#b3541e}.message{fill:#27915a}
.arrow{stroke:#8a5cd1;fill:none;stroke-width:1.5}.head{fill:#8a5cd1}
.title{font-size:15px;font-weight:600}
@media (prefers-color-scheme:dark){
.paper{fill:#14181e}.ink{fill:#e4e9f0}.soft{fill:#8e9aaa}.line{stroke:#2a313b}
.phase{fill:#5d4716}.up{fill:#1f4f2b}.host{fill:#2b3564}.standstill{fill:#5b2626}
.read{fill:#64748c}.write{fill:#63a8f5}.failure{fill:#ff6b6b}.reset{fill:#f0975e}.message{fill:#56c98d}
.arrow{stroke:#b594ee}.head{fill:#b594ee}}`;

/** What a lane of the timeline is called in the picture; the others are left out. */
function titleOf(lane: string, device: string): string | undefined {
  const vf = /^vf(\d+)$/.exec(lane);
  if (vf !== null) {
    return Number(vf[1]) < MOST_VFS ? `VF ${vf[1]}` : undefined;
  }
  const titles: Readonly<Record<string, string>> = {
    pf: `PF, ${device}`,
    host: 'host',
    phase: 'backend',
    'guest stands still': 'guest stopped',
  };
  return titles[lane];
}

/** The picture, or undefined where the recording has no enable that the guest came to see. */
export function enablePicture(timeline: Timeline): string | undefined {
  const { arrows, lanes, stretches, marks, texts, title } = timeline;
  const first = arrows.find(({ from }) => lanes[from.lane] === 'pf');
  const seen = arrows.filter(({ to }) => lanes[to.lane]?.startsWith('vf'));
  if (first === undefined || seen.length === 0) {
    return undefined;
  }
  const wrote = first.from.time;
  const next = arrows.find(({ from }) => lanes[from.lane] === 'pf' && from.time > wrote);
  const ofThis = arrows.filter(
    ({ from }) => from.time >= wrote && from.time < (next?.from.time ?? Number.POSITIVE_INFINITY),
  );
  const looked = Math.max(...ofThis.map(({ to }) => to.time));
  const span = looked - wrote;
  const view = { from: wrote - LEAD * span, to: looked + TAIL * span };
  const shown = stretches.filter(({ from, to }) => to > view.from && from < view.to);
  const used = new Set([
    ...shown.map(({ lane }) => lane),
    ...ofThis.flatMap(({ from, to }) => [from.lane, to.lane]),
  ]);
  const rows = [
    'pf',
    'phase',
    'host',
    'guest stands still',
    ...lanes.filter((lane) => /^vf/.test(lane)),
  ]
    .map((lane) => lanes.indexOf(lane))
    .filter((lane) => used.has(lane) && titleOf(lanes[lane]!, title) !== undefined);
  const y = (lane: number): number => TOP + rows.indexOf(lane) * LANE;
  const x = (time: number): number => {
    const inside = Math.min(Math.max(time, view.from), view.to);
    return round(LEFT + ((inside - view.from) / (view.to - view.from)) * (WIDTH - LEFT - RIGHT));
  };
  const height = TOP + rows.length * LANE + AXIS;
  const parts: string[] = [
    `<rect class="paper" width="${WIDTH}" height="${height}" rx="6"/>`,
    text(
      16,
      26,
      'title ink',
      `echo ${seenVfs(lanes, ofThis)} &gt; sriov_numvfs, out of a recording`,
    ),
    ...rows.flatMap((lane) => [
      `<path class="line" d="M${LEFT} ${y(lane) + LANE - 0.5}H${WIDTH - RIGHT}"/>`,
      text(16, y(lane) + 21, 'ink', escapeHtml(titleOf(lanes[lane]!, title)!)),
    ]),
    ...ticks(view, wrote, x, height),
  ];
  for (const { lane, from, to, text: name, style } of shown) {
    if (!rows.includes(lane)) {
      continue;
    }
    const [start, end] = [x(from), x(to)];
    const width = Math.max(2, end - start);
    parts.push(
      `<rect class="${style}" x="${start}" y="${y(lane) + 5}" width="${round(width)}" height="${LANE - 10}" rx="3"/>`,
    );
    const words = `${name}${style === 'host' ? `, ${Math.round((to - from) / MILLISECOND)} ms` : ''}`;
    if (width > 7 * words.length) {
      parts.push(text(round(start + 6), y(lane) + 21, 'ink', escapeHtml(words)));
    }
  }
  parts.push(...marksOf(timeline, rows, view, x, y));
  for (const { from, to } of ofThis) {
    if (rows.includes(from.lane) && rows.includes(to.lane)) {
      parts.push(arrow(x(from.time), y(from.lane) + LANE / 2, x(to.time), y(to.lane) + LANE / 2));
    }
  }
  const control = marks.time.findIndex(
    (time, i) => time >= Math.round(wrote) && texts[marks.what[i]!] === 'SR-IOV Control',
  );
  parts.push(
    text(
      x(wrote),
      TOP - 8,
      'soft',
      escapeHtml(`writes ${texts[marks.what[control]!]}: ${texts[marks.text[control]!]}`),
    ),
    text(x(looked), TOP - 8, 'soft', 'looks at its VFs', 'end'),
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="An enable of VFs on a time line">
<style>${STYLE}</style>
${parts.join('\n')}
</svg>
`;
}

function seenVfs(lanes: readonly string[], arrows: Timeline['arrows']): number {
  return new Set(arrows.map(({ to }) => lanes[to.lane]!).filter((lane) => /^vf/.test(lane))).size;
}

/** Each mark once for all that fall on one place. */
function marksOf(
  { marks, lanes }: Timeline,
  rows: readonly number[],
  view: { from: number; to: number },
  x: (time: number) => number,
  y: (lane: number) => number,
): string[] {
  const last = new Map<string, number>();
  return marks.time.flatMap((time, i) => {
    const lane = marks.lane[i]!;
    const kind = (['read', 'write', 'failure', 'reset', 'message'] as const)[marks.kind[i]!];
    const isFunction = /^(pf|vf\d+)$/.test(lanes[lane]!);
    if (
      time < view.from ||
      time > view.to ||
      !rows.includes(lane) ||
      !isFunction ||
      kind === undefined
    ) {
      return [];
    }
    const at = x(time);
    const key = `${lane} ${kind}`;
    if (at - (last.get(key) ?? Number.NEGATIVE_INFINITY) < PIXEL) {
      return [];
    }
    last.set(key, at);
    const inset = kind === 'write' ? 8 : 11;
    return [`<path class="${kind}" d="M${at} ${y(lane) + inset}h1.5v${LANE - 2 * inset}h-1.5z"/>`];
  });
}

/** Milliseconds since the write, at round numbers. */
function ticks(
  view: { from: number; to: number },
  zero: number,
  x: (time: number) => number,
  height: number,
): string[] {
  const span = (view.to - zero) / MILLISECOND;
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((each) => span / each <= 8) ?? 2000;
  return Array.from({ length: Math.floor(span / step) + 1 }, (_, i) => i * step).flatMap((at) => {
    const place = x(zero + at * MILLISECOND);
    const label = at === 0 ? '0 ms' : String(at);
    return [
      `<path class="line" d="M${place} ${TOP}V${height - AXIS + 6}"/>`,
      text(place, height - 10, 'soft', label, 'middle'),
    ];
  });
}

function arrow(x1: number, y1: number, x2: number, y2: number): string {
  const bend = round(Math.max(10, (x2 - x1) / 2));
  return (
    `<path class="arrow" d="M${x1} ${y1}C${round(x1 + bend)} ${y1} ${round(x2 - bend)} ${y2} ${round(x2 - 5)} ${y2}"/>` +
    `<path class="head" d="M${x2} ${y2}l-7 -3.5v7z"/>`
  );
}

function text(x: number, y: number, classes: string, content: string, anchor = 'start'): string {
  return `<text class="${classes}" x="${x}" y="${y}"${anchor === 'start' ? '' : ` text-anchor="${anchor}"`}>${content}</text>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
