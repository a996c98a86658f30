// Where a text stops being JSON (RFC 8259): for files that people change and cut, of which V8 says it in words alone. Pure.

/** White space, then a mark, a string, or a number or name. */
const TOKEN =
  /[ \t\r\n]*(?:([{}[\]:,])|("(?:[\x20-\x21\x23-\x5b\x5d-\uffff]|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*")|(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null))/y;
const WHITE_SPACE = /[ \t\r\n]*/y;

/** What may come: `item` and `key` where a list or an object has just begun, which may be empty. */
type Expected = 'value' | 'item' | 'key' | 'nextKey' | 'colon' | 'next';

/** At which character, from 0: the text's length where it ends too soon. Undefined where it is JSON. */
export function jsonFault(text: string): number | undefined {
  const open: string[] = [];
  let expected: Expected = 'value';
  for (let at = 0; ; at = TOKEN.lastIndex) {
    WHITE_SPACE.lastIndex = at;
    WHITE_SPACE.test(text);
    const start = WHITE_SPACE.lastIndex;
    if (expected === 'next' && open.length === 0) {
      return start === text.length ? undefined : start;
    }
    TOKEN.lastIndex = at;
    const token = TOKEN.exec(text);
    const next: Expected | undefined =
      token === null ? undefined : follow(expected, token[1], token[2], open);
    if (next === undefined) {
      return start;
    }
    expected = next;
  }
}

/** What may come behind a token; undefined where the token itself may not. `open`: the marks that end what has begun. */
function follow(
  expected: Expected,
  mark: string | undefined,
  string: string | undefined,
  open: string[],
): Expected | undefined {
  const isEnd = mark !== undefined && mark === open.at(-1);
  if (isEnd && ['item', 'key', 'next'].includes(expected)) {
    open.pop();
    return 'next';
  }
  switch (expected) {
    case 'key':
    case 'nextKey':
      return string === undefined ? undefined : 'colon';
    case 'colon':
      return mark === ':' ? 'value' : undefined;
    case 'next':
      return mark !== ',' ? undefined : open.at(-1) === '}' ? 'nextKey' : 'value';
    default:
      return begin(mark, open);
  }
}

function begin(mark: string | undefined, open: string[]): Expected | undefined {
  if (mark === undefined) {
    return 'next';
  }
  if (mark === '{') {
    open.push('}');
    return 'key';
  }
  if (mark === '[') {
    open.push(']');
    return 'item';
  }
  return undefined;
}
