// What runs in the page: draws the timeline on a canvas, and lets a person move about in it. Written into the page as
// the text of this one function, so it uses nothing from outside. All text reaches the page as text, never as markup.

import type { Timeline } from './timeline.ts';

/** The few things of a browser that it uses. */
interface Context {
  fillStyle: string;
  strokeStyle: string;
  font: string;
  globalAlpha: number;
  lineWidth: number;
  fillRect(x: number, y: number, width: number, height: number): void;
  fillText(text: string, x: number, y: number, width?: number): void;
  measureText(text: string): { readonly width: number };
  beginPath(): void;
  moveTo(x: number, y: number): void;
  lineTo(x: number, y: number): void;
  bezierCurveTo(a: number, b: number, c: number, d: number, e: number, f: number): void;
  stroke(): void;
  setTransform(a: number, b: number, c: number, d: number, e: number, f: number): void;
}
interface Input {
  readonly key: string;
  readonly deltaY: number;
  readonly offsetX: number;
  readonly offsetY: number;
  readonly clientX: number;
  readonly clientY: number;
  readonly buttons: number;
  readonly ctrlKey: boolean;
  readonly altKey: boolean;
  readonly metaKey: boolean;
  preventDefault(): void;
}
interface Element {
  textContent: string;
  value: string;
  hidden: boolean;
  width: number;
  height: number;
  readonly clientWidth: number;
  readonly style: Record<string, string>;
  getContext(kind: '2d'): Context;
  focus(): void;
  addEventListener(type: string, listener: (input: Input) => void, options?: object): void;
}
export interface Browser {
  readonly document: { getElementById(id: string): Element; readonly documentElement: object };
  readonly devicePixelRatio: number;
  readonly innerWidth: number;
  readonly performance: { now(): number };
  getComputedStyle(element: object): { getPropertyValue(name: string): string };
  matchMedia(query: string): { addEventListener(type: string, listener: () => void): void };
  requestAnimationFrame(callback: () => void): void;
  addEventListener(type: string, listener: (input: Input) => void): void;
  /** For whoever measures: milliseconds of the last frame, and what is seen. */
  timeline?: object;
}

export function viewer(browser: Browser, data: Timeline, kinds: readonly string[]): void {
  const { document } = browser;
  const canvas = document.getElementById('canvas');
  const context = canvas.getContext('2d');
  const tip = document.getElementById('tip');
  const search = document.getElementById('search');
  const found = document.getElementById('found');
  const LANE = 34;
  const LEFT = 130;
  const TOP = 28;
  const { lanes, marks, stretches, arrows, texts } = data;
  const height = TOP + lanes.length * LANE + 8;
  const count = marks.time.length;
  const times = Float64Array.from(marks.time);
  const laneOf = Uint16Array.from(marks.lane);
  const byKind = kinds.map((_, kind) =>
    Uint32Array.from([...times.keys()].filter((i) => marks.kind[i] === kind)),
  );
  const length = data.end - data.start;
  const view = { from: data.start, to: data.start + 1.02 * length };
  const state = { frame: 0, drawn: 0, hits: [] as number[], hit: -1 };
  let matches: Uint8Array | undefined;
  let isQueued = false;
  let colours: Record<string, string> = {};

  function readColours(): void {
    const style = browser.getComputedStyle(document.documentElement);
    const names = [
      'ink',
      'soft',
      'line',
      'phase',
      'up',
      'hostwork',
      'standstill',
      'arrow',
      ...kinds,
    ];
    colours = Object.fromEntries(
      names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]),
    );
  }

  function x(time: number): number {
    const span = view.to - view.from;
    return LEFT + ((time - view.from) / span) * (canvas.clientWidth - LEFT);
  }

  function timeAt(px: number): number {
    return view.from + ((px - LEFT) / (canvas.clientWidth - LEFT)) * (view.to - view.from);
  }

  function firstAfter(time: number): number {
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle]! < time) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  /** The first of `members`, which are in order, that is `first` or later. */
  function placeOf(members: Uint32Array, first: number): number {
    let low = 0;
    let high = members.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (members[middle]! < first) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  function clock(nanoseconds: number): string {
    return `${(nanoseconds / 1e9).toFixed(6)} s`;
  }

  function drawLanes(width: number): void {
    context.font = '12px system-ui, sans-serif';
    lanes.forEach((name, lane) => {
      const y = TOP + lane * LANE;
      context.fillStyle = colours.line!;
      context.fillRect(0, y + LANE - 1, width, 1);
      context.fillStyle = colours.ink!;
      context.fillText(name, 10, y + LANE / 2 + 4, LEFT - 16);
    });
    const span = view.to - view.from;
    const step = 10 ** Math.floor(Math.log10(span / 4));
    // Seconds or milliseconds, with as many decimals as the step needs.
    const [unit, name] = span > 5e9 ? [1e9, 's'] : [1e6, 'ms'];
    const decimals = Math.max(0, Math.round(Math.log10(unit / step)));
    context.fillStyle = colours.soft!;
    for (let time = Math.ceil(view.from / step) * step; time < view.to; time += step) {
      const at = x(time);
      if (at >= LEFT) {
        context.fillRect(at, TOP - 6, 1, 6);
      }
      if (Math.round(time / step) % 2 === 0 && at >= LEFT && at < width - 80) {
        context.fillText(`${(time / unit).toFixed(decimals)} ${name}`, at + 3, 16);
      }
    }
  }

  function drawStretches(width: number): void {
    for (const { lane, from, to, text, style } of stretches) {
      if (to < view.from || from > view.to) {
        continue;
      }
      const start = Math.max(LEFT, x(from));
      const end = Math.min(width, Math.max(x(to), start + 2));
      const y = TOP + lane * LANE;
      context.fillStyle = colours[style === 'host' ? 'hostwork' : style]!;
      context.fillRect(start, y + 5, end - start, LANE - 10);
      // In its middle: marks and arrows crowd where a stretch begins and where it ends.
      const { width: textWidth } = context.measureText(text);
      if (end - start > textWidth + 8) {
        context.fillStyle = colours.ink!;
        context.fillText(text, (start + end - textWidth) / 2, y + LANE / 2 + 4);
      }
    }
  }

  /** Many marks fall on one pixel: it is painted once for each kind, whatever their number. */
  function drawMarks(): void {
    const first = firstAfter(view.from);
    const last = firstAfter(view.to);
    const painted = new Int32Array(lanes.length);
    const wide = last - first > 5000 ? 1 : 2;
    const scale = (canvas.clientWidth - LEFT) / (view.to - view.from);
    state.drawn = 0;
    byKind.forEach((members, kind) => {
      context.fillStyle = colours[kinds[kind]!]!;
      painted.fill(-1);
      for (let position = placeOf(members, first); position < members.length; position++) {
        const i = members[position]!;
        if (i >= last) {
          break;
        }
        const at = LEFT + Math.round((times[i]! - view.from) * scale);
        const lane = laneOf[i]!;
        const isMatch = matches?.[i] === 1;
        if (painted[lane] === at && !isMatch) {
          continue;
        }
        painted[lane] = at;
        context.globalAlpha = matches !== undefined && !isMatch ? 0.15 : 1;
        const inset = isMatch ? 2 : 8;
        context.fillRect(at, TOP + lane * LANE + inset, isMatch ? 3 : wide, LANE - 2 * inset);
        state.drawn++;
      }
    });
    context.globalAlpha = 1;
  }

  function drawArrows(): void {
    context.strokeStyle = colours.arrow!;
    context.lineWidth = 1.5;
    for (const { from, to } of arrows) {
      if (to.time < view.from || from.time > view.to) {
        continue;
      }
      const [x1, x2] = [Math.max(LEFT, x(from.time)), Math.max(LEFT, x(to.time))];
      const y1 = TOP + from.lane * LANE + LANE / 2;
      const y2 = TOP + to.lane * LANE + LANE / 2;
      const bend = Math.max(12, (x2 - x1) / 2);
      context.beginPath();
      context.moveTo(x1, y1);
      context.bezierCurveTo(x1 + bend, y1, x2 - bend, y2, x2, y2);
      context.moveTo(x2 - 6, y2 - 4);
      context.lineTo(x2, y2);
      context.lineTo(x2 - 6, y2 + 4);
      context.stroke();
    }
  }

  function draw(): void {
    isQueued = false;
    const began = browser.performance.now();
    const width = canvas.clientWidth;
    const ratio = browser.devicePixelRatio;
    if (
      canvas.width !== Math.round(width * ratio) ||
      canvas.height !== Math.round(height * ratio)
    ) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.height = `${height}px`;
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle =
      colours.paper ??
      browser.getComputedStyle(document.documentElement).getPropertyValue('--paper');
    context.fillRect(0, 0, width, height);
    drawLanes(width);
    drawStretches(width);
    drawMarks();
    drawArrows();
    state.frame = browser.performance.now() - began;
  }

  function queue(): void {
    if (!isQueued) {
      isQueued = true;
      browser.requestAnimationFrame(draw);
    }
  }

  function zoom(factor: number, around: number): void {
    const least = 1000;
    const span = Math.min(Math.max((view.to - view.from) * factor, least), 1.1 * length + least);
    const share = (around - view.from) / (view.to - view.from);
    view.from = around - share * span;
    view.to = view.from + span;
    pan(0);
  }

  function pan(share: number): void {
    const span = view.to - view.from;
    const from = Math.min(
      Math.max(view.from + share * span, data.start - 0.05 * span),
      data.end - 0.1 * span,
    );
    view.from = from;
    view.to = from + span;
    queue();
  }

  function nearest(px: number, py: number): number {
    const lane = Math.floor((py - TOP) / LANE);
    let best = -1;
    let distance = 8;
    for (let i = firstAfter(timeAt(px - 8)); i < count && x(marks.time[i]!) <= px + 8; i++) {
      const away = Math.abs(x(marks.time[i]!) - px);
      if (marks.lane[i] === lane && away < distance) {
        best = i;
        distance = away;
      }
    }
    return best;
  }

  function show(index: number, left: number, top: number): void {
    tip.hidden = index < 0;
    if (index >= 0) {
      const what = texts[marks.what[index]!]!;
      const kind = kinds[marks.kind[index]!]!;
      tip.textContent = `${clock(marks.time[index]!)}  ${lanes[marks.lane[index]!]}  ${kind}\n${what}\n${texts[marks.text[index]!]}`;
      tip.style.left = `${Math.min(left + 14, browser.innerWidth - 380)}px`;
      tip.style.top = `${top + 14}px`;
    }
  }

  function find(): void {
    const wanted = search.value.toLowerCase();
    state.hits = [];
    state.hit = -1;
    matches = undefined;
    if (wanted !== '') {
      const isHit = texts.map((text) => text.toLowerCase().includes(wanted));
      matches = new Uint8Array(count);
      for (let i = 0; i < count; i++) {
        if (isHit[marks.what[i]!] || isHit[marks.text[i]!]) {
          matches[i] = 1;
          state.hits.push(i);
        }
      }
    }
    found.textContent = wanted === '' ? '' : `${state.hits.length} found`;
    queue();
  }

  function go(direction: number): void {
    if (state.hits.length === 0) {
      return;
    }
    state.hit = (state.hit + direction + state.hits.length) % state.hits.length;
    const index = state.hits[state.hit]!;
    const span = view.to - view.from;
    view.from = marks.time[index]! - span / 2;
    view.to = view.from + span;
    found.textContent = `${state.hit + 1} of ${state.hits.length}`;
    show(index, x(marks.time[index]!), TOP + marks.lane[index]! * LANE + 60);
    queue();
  }

  const keys: Record<string, () => void> = {
    '+': () => zoom(0.5, (view.from + view.to) / 2),
    '-': () => zoom(2, (view.from + view.to) / 2),
    ArrowLeft: () => pan(-0.2),
    ArrowRight: () => pan(0.2),
    Home: () => {
      view.from = data.start;
      view.to = data.start + 1.02 * length;
      queue();
    },
    n: () => go(1),
    N: () => go(-1),
    '/': () => search.focus(),
  };
  let isTyping = false;
  search.addEventListener('focus', () => {
    isTyping = true;
  });
  search.addEventListener('blur', () => {
    isTyping = false;
  });
  search.addEventListener('input', find);
  search.addEventListener('keydown', (input) => {
    if (input.key === 'Enter') {
      go(1);
    }
  });
  browser.addEventListener('keydown', (input) => {
    const act = keys[input.key];
    // With these it is the browser's, such as the size of its text.
    const isBrowsers = input.ctrlKey || input.altKey || input.metaKey;
    if (act !== undefined && !isTyping && !isBrowsers) {
      input.preventDefault();
      act();
    }
  });
  browser.addEventListener('resize', queue);
  canvas.addEventListener(
    'wheel',
    (input) => {
      input.preventDefault();
      zoom(input.deltaY > 0 ? 1.25 : 0.8, timeAt(input.offsetX));
    },
    { passive: false },
  );
  let dragged = 0;
  canvas.addEventListener('mousedown', (input) => {
    dragged = input.clientX;
  });
  canvas.addEventListener('mousemove', (input) => {
    if (input.buttons === 1) {
      pan((dragged - input.clientX) / (canvas.clientWidth - LEFT));
      dragged = input.clientX;
      show(-1, 0, 0);
    } else {
      show(nearest(input.offsetX, input.offsetY), input.clientX, input.clientY);
    }
  });
  canvas.addEventListener('mouseleave', () => show(-1, 0, 0));
  browser.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    readColours();
    queue();
  });
  readColours();
  draw();
  browser.timeline = { view, state, zoom, pan, draw, find, go, count };
}
