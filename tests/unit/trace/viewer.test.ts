// What runs in the page, in a browser that draws nothing; tests/browser has a real one.
import { expect, it } from 'vitest';
import { MARK_KINDS, timelineOf } from '../../../vmm-glue/trace/timeline/timeline.ts';
import { type Browser, viewer } from '../../../vmm-glue/trace/timeline/viewer.ts';
import { GuestScript, STARTED } from './guest-script.ts';
import { DESCRIPTION } from './ring.ts';

interface Seen {
  readonly view: { readonly from: number; readonly to: number };
}

/** A page with one second of recording that begins after an hour, and a keyboard for it. */
function opened() {
  const listeners = new Map<string, (input: never) => void>();
  const context = new Proxy({}, { get: () => () => ({ width: 0 }), set: () => true });
  const element = () => ({
    clientWidth: 1000,
    style: {},
    getContext: () => context,
    addEventListener: () => {},
  });
  const browser = {
    document: { getElementById: element, documentElement: {} },
    devicePixelRatio: 1,
    innerWidth: 1000,
    performance,
    getComputedStyle: () => ({ getPropertyValue: () => '' }),
    matchMedia: () => ({ addEventListener: () => {} }),
    requestAnimationFrame: (callback: () => void) => callback(),
    addEventListener: (type: string, listener: (input: never) => void) =>
      listeners.set(type, listener),
  } as unknown as Browser;
  const guest = new GuestScript('none').after(3_600_000).useVf(0).after(999.9).useVf(0);
  viewer(browser, timelineOf(guest.events, DESCRIPTION, STARTED), MARK_KINDS);
  const press = (key: string, held: object = {}): boolean => {
    let isTaken = false;
    const preventDefault = (): void => {
      isTaken = true;
    };
    listeners.get('keydown')!({ key, preventDefault, ...held } as never);
    return isTaken;
  };
  return { press, view: (browser.timeline as Seen).view };
}

it('shows all of a recording that begins late, and nothing before it', () => {
  const { press, view } = opened();
  const all = { from: 3600e9, to: expect.closeTo(3601.02e9, -6) };
  expect(view).toEqual(all);
  press('+');
  expect(view.to - view.from).toBeCloseTo(0.51e9, -6);
  press('Home');
  expect(view).toEqual(all);
});

it('takes its own keys, and none that is the browser’s', () => {
  const { press, view } = opened();
  const before = { ...view };
  expect(press('+', { ctrlKey: true })).toBe(false);
  expect(press('ArrowLeft', { altKey: true })).toBe(false);
  expect(view).toEqual(before);
  expect(press('+')).toBe(true);
  expect(view).not.toEqual(before);
});
