// Adds up the tests of the results given (vitest's JSON reports, and texts that end with a closing line), and prints
// the closing line of all. A step that failed without a failed test (an install, a lint, a report that was never
// written) counts as one failure.
import { readFileSync } from 'node:fs';

const [failedSteps, ...results] = process.argv.slice(2);
let passed = 0;
let failed = 0;
let toldAgain = 0;
for (const path of results) {
  const [itsPassed, itsFailed, itsToldAgain] = countsOf(
    readFileSync(path, 'utf8'),
    path.endsWith('.json'),
  );
  passed += itsPassed;
  failed += itsFailed;
  toldAgain += itsToldAgain;
}
if (failed === 0) {
  failed = Number(failedSteps);
}
if (passed === 0 && failed === 0) {
  failed = 1;
}
if (toldAgain > 0) {
  console.log(`${toldAgain} told again, because the emulator broke the guest of a nested story`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

function countsOf(text, isReport) {
  if (isReport) {
    const { numPassedTests, numFailedTests } = JSON.parse(text);
    return [numPassedTests, numFailedTests, 0];
  }
  const closing = [...text.matchAll(/^(\d+) passed, (\d+) failed(?:, (\d+) told again)?$/gm)].at(
    -1,
  );
  return closing === undefined
    ? [0, 0, 0]
    : [Number(closing[1]), Number(closing[2]), Number(closing[3] ?? 0)];
}
