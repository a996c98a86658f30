// Scenario: the backend refuses to start, for the reason in `argv[3]` (a regular expression), on the PF `argv[2]`.
import { strict as assert } from 'node:assert';
import { openPf, step } from './scenario.ts';

const [pf, reason] = process.argv.slice(2);
await step(`${pf} is refused`, async () => {
  await assert.rejects(openPf({ pf: pf! }), (error: Error) => {
    console.log(error.message);
    assert.equal(error.name, 'HostError');
    assert.match(error.message, new RegExp(reason!));
    return true;
  });
});
