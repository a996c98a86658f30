// Where a value is in a text that is JSON: of a file that people change, what is wrong with a value is told with its line. Pure.

/** A mark, a string, or a number or name. */
const TOKEN = /[{}[\]:,]|"(?:[^"\\]|\\.)*"|[^\s{}[\]:,"]+/g;

/** A list or an object that has begun; `path` is undefined where it does not lead to what is wanted. */
interface Open {
  readonly path: string | undefined;
  /** Of the element whose turn it is; undefined in an object. */
  index: number | undefined;
  /** Of the value whose turn it is; undefined where a key is to come. */
  key: string | undefined;
}

/** At which character, from 0, the value at `wanted` begins (`card.vfBars[0].kind`), or the innermost that there is on the way. */
export function placeInJson(text: string, wanted: string): number {
  const open: Open[] = [];
  let found = 0;
  for (const { 0: token, index: at } of text.matchAll(TOKEN)) {
    const around = open.at(-1);
    if (token === ',') {
      moveOn(around!);
    } else if (token === '}' || token === ']') {
      open.pop();
    } else if (around !== undefined && around.index === undefined && around.key === undefined) {
      around.key = JSON.parse(token) as string;
    } else if (token !== ':') {
      const path = pathIn(around, wanted);
      found = path === undefined ? found : at;
      if (token === '{' || token === '[') {
        open.push({ path, index: token === '[' ? 0 : undefined, key: undefined });
      }
    }
  }
  return found;
}

function moveOn(around: Open): void {
  if (around.index === undefined) {
    around.key = undefined;
  } else {
    around.index++;
  }
}

/** Of the value whose turn it is; undefined where it is not on the way. */
function pathIn(around: Open | undefined, wanted: string): string | undefined {
  if (around === undefined) {
    return '';
  }
  const { path: parent, index, key = '' } = around;
  if (parent === undefined) {
    return undefined;
  }
  const dot = parent === '' ? '' : '.';
  const path = index === undefined ? `${parent}${dot}${key}` : `${parent}[${index}]`;
  return `${wanted}.`.startsWith(`${path}.`) || wanted.startsWith(`${path}[`) ? path : undefined;
}
