// Adds up the tests of the results given (vitest's JSON reports, and texts that end with a closing line), and prints
// the closing line of all. A step that failed without a failed test (an install, a lint, a report that was never
// written) counts as one failure.
import { readFileSync } from 'node:fs';

const [failedSteps, ...results] = process.argv.slice(2);
let passed = 0;
let failed = 0;
for (const path of results) {
  const [itsPassed, itsFailed] = countsOf(readFileSync(path, 'utf8'), path.endsWith('.json'));
  passed += itsPassed;
  failed += itsFailed;
}
if (failed === 0) {
  failed = Number(failedSteps);
}
if (passed === 0 && failed === 0) {
  failed = 1;
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

function countsOf(text, isReport) {
  if (isReport) {
    const { numPassedTests, numFailedTests } = JSON.parse(text);
    return [numPassedTests, numFailedTests];
  }
  const closing = [...text.matchAll(/^(\d+) passed, (\d+) failed$/gm)].at(-1);
  return closing === undefined ? [0, 0] : [Number(closing[1]), Number(closing[2])];
}
