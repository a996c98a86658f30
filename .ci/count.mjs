// Adds up the tests of the results given (vitest's JSON reports, and texts that end with a closing line), names those
// of the reports that failed, and prints the closing line of all. A step that failed without a failed test (an install, a lint, a report that was never
// written) counts as one failure.
import { readFileSync } from 'node:fs';
import { relative } from 'node:path';

const [failedSteps, ...results] = process.argv.slice(2);
let passed = 0;
let failed = 0;
let toldAgain = 0;
for (const path of results) {
  const text = readFileSync(path, 'utf8');
  const [itsPassed, itsFailed, itsToldAgain] = countsOf(text, path.endsWith('.json'));
  for (const failure of path.endsWith('.json') ? failuresOf(text) : []) {
    console.log(`failed: ${failure}`);
  }
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

/** A line a failed test: its file, its name, and the first line of what it failed with. */
function failuresOf(report) {
  return JSON.parse(report).testResults.flatMap(({ name, message, assertionResults }) => {
    const file = relative(process.cwd(), name);
    const failed = assertionResults
      .filter(({ status }) => status === 'failed')
      .map(
        ({ fullName, failureMessages }) => `${file}: ${fullName}: ${firstLine(failureMessages[0])}`,
      );
    return failed.length === 0 && message !== '' ? [`${file}: ${firstLine(message)}`] : failed;
  });
}

function firstLine(text = '') {
  return text.split('\n', 1)[0];
}
