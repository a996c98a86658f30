import { expect, it } from 'vitest';
import { FailedMaps, MOST_SENTENCES } from '../../../backend/device/failed-maps.ts';

it('keeps the first sentences and counts the rest', () => {
  const maps = new FailedMaps();
  for (let i = 0; i < MOST_SENTENCES; i++) {
    maps.add(`${i}`);
  }
  expect(maps.sentences).toHaveLength(16);
  for (let i = 0; i < 300_000; i++) {
    maps.add('another');
  }
  expect(maps.sentences).toHaveLength(17);
  expect(maps.sentences.slice(-2)).toEqual(['15', '300000 more DMA_MAPs were refused']);
});

it('forgets them all', () => {
  const maps = new FailedMaps();
  maps.add('one');
  maps.clear();
  expect(maps.sentences).toEqual([]);
});
