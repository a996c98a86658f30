import protobuf from 'protobufjs/light.js';
import { expect, it } from 'vitest';
import { page } from '../../../trace/timeline/page.ts';
import { perfetto } from '../../../trace/timeline/perfetto.ts';
import { timelineOf } from '../../../trace/timeline/timeline.ts';
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

it('the page fetches nothing and holds all marks', () => {
  const html = page(enabled());
  expect(html).not.toMatch(/(src|href)="|https?:/);
  expect(html).toContain('SR-IOV Control');
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
