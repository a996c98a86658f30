// Stacks of a thread that does not come back are those of the module that was made of the card; here they get the lines that its
// author wrote. What Node does of itself where an error is thrown.

import { Buffer } from 'node:buffer';
import { SourceMap } from 'node:module';
import { dirname, resolve } from 'node:path';
import { BUILT_IN, bundle } from './load-module.ts';

const MAP = /^\/\/# sourceMappingURL=data:application\/json;base64,(\S+)\s*$/m;
const FRAME = new RegExp(`(?:file://)?[^\\s()]*${BUILT_IN}[^\\s()]*?:(\\d+):(\\d+)`, 'g');

/** The stack as it is, where the file cannot be read any more. */
export function sourceStack(stack: string, file: string): string {
  const built = resolve(`${file}.mjs`);
  const map = mapOf(file, built);
  if (map === undefined) {
    return stack;
  }
  return stack.replace(FRAME, (frame, line: string, column: string) => {
    const found = map.findEntry(Number(line) - 1, Number(column) - 1);
    return 'originalSource' in found
      ? `${resolve(dirname(built), found.originalSource)}:${found.originalLine + 1}:${found.originalColumn + 1}`
      : frame;
  });
}

/** Made once more: to bundle a card runs nothing of it. */
function mapOf(file: string, built: string): SourceMap | undefined {
  try {
    const [, encoded = ''] = MAP.exec(bundle(resolve(file), file, built)) ?? [];
    return new SourceMap(JSON.parse(Buffer.from(encoded, 'base64').toString()));
  } catch {
    return undefined;
  }
}
