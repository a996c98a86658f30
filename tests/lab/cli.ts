// `npm run --silent lab`: sets the lab up and prints, as the last line on standard output, its paths as JSON.
// Progress goes to standard error. Exit status 1 with one line when something is missing.
import { lab } from './lab.ts';
import { LabError } from './lab-error.ts';

try {
  process.stdout.write(`${JSON.stringify(await lab())}\n`);
} catch (error) {
  if (!(error instanceof LabError)) {
    throw error;
  }
  process.stderr.write(`lab: ${error.message}\n`);
  process.exitCode = 1;
}
