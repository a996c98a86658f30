// Adds up the tests of the results given (vitest's JSON reports, and texts that end with a closing line), names those
// of the reports that failed, and prints the closing line of all. A step that failed without a failed test (an install, a
// lint, a report that was never written) counts as one failure.
import { readFileSync } from 'node:fs';
import { relative } from 'node:path';

const [failedSteps, ...results] = process.argv.slice(2);
let passed = 0;
let failed = 0;
let toldAgain = 0;
for (const path of results) {
  const text = readFileSync(path, 'utf8');
  const [itsPassed, itsFailed, itsToldAgain] = path.endsWith('.json')
    ? reported(JSON.parse(text))
    : closing(text);
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

function reported({ testResults, numPassedTests, numFailedTests }) {
  for (const failure of testResults.flatMap(failuresOf)) {
    console.log(`failed: ${failure}`);
  }
  return [numPassedTests, numFailedTests, 0];
}

function closing(text) {
  const line = [...text.matchAll(/^(\d+) passed, (\d+) failed(?:, (\d+) told again)?$/gm)].at(-1);
  return line === undefined ? [0, 0, 0] : [Number(line[1]), Number(line[2]), Number(line[3] ?? 0)];
}

/** A line a failed test of a file: the file, the test's name, and the first line of what it failed with. */
function failuresOf({ name, message, assertionResults }) {
  const file = relative(process.cwd(), name);
  const failed = assertionResults
    .filter(({ status }) => status === 'failed')
    .map(
      ({ fullName, failureMessages }) => `${file}: ${fullName}: ${firstLine(failureMessages[0])}`,
    );
  return failed.length === 0 && message !== '' ? [`${file}: ${firstLine(message)}`] : failed;
}

function firstLine(text = '') {
  return text.split('\n', 1)[0];
}
