import { readFileSync } from 'node:fs';
import protobuf from 'protobufjs/light.js';
import { describe, expect, it } from 'vitest';
import { page } from '../../../vmm-glue/trace/timeline/page.ts';
import { perfetto } from '../../../vmm-glue/trace/timeline/perfetto.ts';
import { enablePicture } from '../../../vmm-glue/trace/timeline/svg.ts';
import { timelineOf } from '../../../vmm-glue/trace/timeline/timeline.ts';
import { GuestScript, STARTED } from './guest-script.ts';
import { DESCRIPTION } from './ring.ts';

function enabled() {
  const guest = new GuestScript('glue')
    .write('SR-IOV NumVFs', 1)
    .write('SR-IOV Control', 9)
    .note('host', { name: 'createVfs', count: 1 })
    .phase('disabled', 'creating')
    .glue('stop')
    .after(30)
    .note('host', { name: 'createVfs', took: 30 })
    .phase('creating', 'enabled')
    .glue('cont')
    .after(80)
    .useVf(0);
  return timelineOf(guest.events, DESCRIPTION, STARTED);
}

it('has a lane for the PF, each VF, the phases, the host and the guest’s standstill', () => {
  const { lanes } = enabled();
  expect(lanes).toEqual(['phase', 'host', 'guest stands still', 'machine', 'pf', 'vf0']);
});

it('shows the phases, the host’s work and the standstill as stretches', () => {
  const timeline = enabled();
  expect(timeline.stretches.map(({ lane, text }) => [timeline.lanes[lane], text])).toEqual([
    ['phase', 'creating'],
    ['phase', 'enabled'],
    ['host', 'createVfs'],
    ['guest stands still', 'stopped by the glue'],
  ]);
});

it('arrows lead from VF Enable to the host, to the VFs that are up, to the guest’s first look', () => {
  const { lanes, arrows } = enabled();
  expect(arrows.map(({ from, to }) => [lanes[from.lane], lanes[to.lane]])).toEqual([
    ['pf', 'host'],
    ['host', 'phase'],
    ['phase', 'vf0'],
  ]);
  expect(arrows.every(({ from, to }) => from.time <= to.time)).toBe(true);
});

it('a recording whose beginning is missing starts with its first event, in the phase that was then', () => {
  const guest = new GuestScript('none').after(3_600_000).useVf(0).phase('enabled', 'unplugging');
  const timeline = timelineOf(guest.events, DESCRIPTION, STARTED);
  expect([timeline.start, timeline.end]).toEqual([3_600_000e6, 3_600_000.1e6]);
  const [up] = timeline.stretches;
  expect(up).toMatchObject({ text: 'enabled', from: timeline.start, to: timeline.end });
});

it('a guest that the glue has not let go on stands still to the end', () => {
  const guest = new GuestScript('glue').after(5).glue('stop').after(10).read('Command', 0);
  const { stretches } = timelineOf(guest.events, DESCRIPTION, STARTED);
  expect(stretches).toEqual([
    expect.objectContaining({ style: 'standstill', from: 5e6, to: 15e6 }),
  ]);
});

it('the page fetches nothing and holds all marks', () => {
  const html = page(enabled());
  expect(html).not.toMatch(/(src|href)="|https?:/);
  expect(html).toContain('SR-IOV Control');
});

describe('the picture of an enable', () => {
  const picture = enablePicture(enabled())!;

  it('is small, stands alone, and has the colours of light and dark', () => {
    expect(picture.length).toBeLessThan(60_000);
    expect(picture).toMatch(/^<svg xmlns="[^"]+" viewBox="0 0 880 \d+"/);
    expect(picture).toContain('@media (prefers-color-scheme:dark)');
    expect(picture).not.toMatch(/<script|href|url\(|NaN|Infinity|undefined/);
  });

  it('says what the guest wrote, who worked on it, and when the guest looked', () => {
    const words = [...picture.matchAll(/<text[^>]*>([^<]*)</g)].map(([, word]) => word);
    expect(words).toEqual(
      expect.arrayContaining([
        'echo 1 &gt; sriov_numvfs, out of a recording',
        'PF, loopback',
        'VF 0',
        'guest stopped',
        'createVfs, 30 ms',
        expect.stringMatching(/^writes SR-IOV Control: 0x0009 {2}vfEnable 0/),
        'looks at its VFs',
        '0 ms',
      ]),
    );
    expect(picture.match(/class="arrow"/g)).toHaveLength(3);
  });

  it('is none where the guest looked at no VF', () => {
    const guest = new GuestScript().write('SR-IOV NumVFs', 1).write('SR-IOV Control', 9);
    expect(enablePicture(timelineOf(guest.events, DESCRIPTION, STARTED))).toBeUndefined();
  });

  it('has nothing of a device’s name as markup', () => {
    const timeline = { ...enabled(), title: '</text><script>' };
    expect(enablePicture(timeline)).not.toContain('<script');
  });
});

it('the picture in the README is one that the script makes', () => {
  const drawn = readFileSync(new URL('../../../examples/enable.svg', import.meta.url), 'utf8');
  const form = (svg: string): unknown[] => [
    /<style>[\s\S]*<\/style>/.exec(svg)![0],
    new Set(
      [...svg.matchAll(/class="([a-z ]+)"/g)]
        .map(([, name]) => name!)
        .filter((name) => !/read|message|standstill/.test(name)),
    ),
  ];
  expect(form(drawn)).toEqual(form(enablePicture(enabled())!));
  expect(drawn.length).toBeLessThan(60_000);
});

/** The messages of perfetto's trace.proto, as far as they are written. */
const PROTO = protobuf.Root.fromJSON({
  nested: {
    Trace: { fields: { packet: { rule: 'repeated', type: 'Packet', id: 1 } } },
    Packet: {
      fields: {
        timestamp: { type: 'uint64', id: 8 },
        trustedPacketSequenceId: { type: 'uint32', id: 10 },
        trackEvent: { type: 'TrackEvent', id: 11 },
        trackDescriptor: { type: 'TrackDescriptor', id: 60 },
      },
    },
    TrackDescriptor: {
      fields: { uuid: { type: 'uint64', id: 1 }, name: { type: 'string', id: 2 } },
    },
    TrackEvent: {
      fields: {
        debugAnnotations: { rule: 'repeated', type: 'DebugAnnotation', id: 4 },
        type: { type: 'uint32', id: 9 },
        trackUuid: { type: 'uint64', id: 11 },
        categories: { rule: 'repeated', type: 'string', id: 22 },
        name: { type: 'string', id: 23 },
        flowIds: { rule: 'repeated', type: 'fixed64', id: 47, options: { packed: false } },
      },
    },
    DebugAnnotation: {
      fields: { stringValue: { type: 'string', id: 6 }, name: { type: 'string', id: 10 } },
    },
  },
});

interface Packet {
  readonly timestamp?: string;
  readonly trackDescriptor?: { readonly uuid: string; readonly name: string };
  readonly trackEvent?: {
    readonly type: number;
    readonly trackUuid: string;
    readonly name?: string;
    readonly flowIds?: readonly string[];
    readonly debugAnnotations?: readonly { readonly stringValue: string }[];
  };
}

it('stretches that overlap have tracks of their own in Perfetto, where slices are nested', () => {
  const { lanes, ...rest } = enabled();
  const stretch = (from: number, to: number) =>
    ({ lane: 2, from, to, text: `${from}`, style: 'standstill' }) as const;
  const stretches = [stretch(0, 10), stretch(5, 15), stretch(12, 20)];
  const Trace = PROTO.lookupType('Trace');
  const written = perfetto({ ...rest, lanes, arrows: [], stretches });
  const { packet } = Trace.toObject(Trace.decode(written), { longs: String }) as {
    packet: readonly Packet[];
  };
  const begins = packet.flatMap(({ trackEvent: event }) => (event?.type === 1 ? [event] : []));
  const tracks = begins.map(({ trackUuid }) => trackUuid);
  expect(tracks).toEqual(['3', tracks[1], '3']);
  expect(tracks[1]).not.toBe('3');
  const named = packet.flatMap(({ trackDescriptor }) => trackDescriptor ?? []);
  expect(named.find(({ uuid }) => uuid === tracks[1])?.name).toBe(lanes[2]);
  expect(new Set(named.map(({ uuid }) => uuid)).size).toBe(named.length);
});

it('is written for Perfetto: tracks, instants with what was decoded, slices and flows', () => {
  const Trace = PROTO.lookupType('Trace');
  const { packet } = Trace.toObject(Trace.decode(perfetto(enabled())), {
    longs: String,
  }) as { packet: readonly Packet[] };
  const tracks = packet.flatMap(({ trackDescriptor }) => trackDescriptor ?? []);
  expect(tracks.map(({ name }) => name)).toContain('vf0');
  const events = packet.flatMap(({ trackEvent, timestamp }) =>
    trackEvent === undefined ? [] : [{ ...trackEvent, timestamp }],
  );
  const control = events.find(({ name }) => name === 'SR-IOV Control');
  expect(control).toMatchObject({ type: 3, timestamp: '100000', trackUuid: '5' });
  expect(control?.debugAnnotations?.[0]?.stringValue).toContain('vfEnable 0→1');
  const begins = events.filter(({ type }) => type === 1).length;
  expect(begins).toBe(4);
  expect(events.filter(({ type }) => type === 2)).toHaveLength(begins);
  const flows = events.flatMap(({ flowIds }) => flowIds ?? []);
  expect(new Set(flows)).toEqual(new Set(['1', '2', '3']));
});
