// Evaluates a process file of PM2 as PM2 does, and writes what it holds to standard input, which is a socket: whatever
// the file prints cannot come between. One line of JSON: {"value": …} or {"error": "…"}.
import { readFileSync, realpathSync, writeSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { runInThisContext } from 'node:vm';

// The file may put its own in their place.
const { stringify } = JSON;
const { exit } = process;
const [file, kind] = process.argv.slice(-2);

// What is not data is marked; the reader says where it stands.
function plain(value) {
  const above = [];
  return stringify({ value }, function (key, value) {
    if (typeof value === 'function') return { 'not data: ': 'a function' };
    if (typeof value === 'bigint' || typeof value === 'symbol') return { 'not data: ': `a ${typeof value}` };
    if (typeof value !== 'object' || value === null) return value;
    while (above.length > 0 && above.at(-1) !== this) above.pop();
    if (above.includes(value)) return { 'not data: ': 'a circle' };
    above.push(value);
    return value;
  });
}

// The message, with the line of the file if it is known.
function say(error) {
  if (!(error instanceof Error)) return `it throws ${String(error)}`;
  const text = `${error.name}: ${error.message}`.split('\n')[0];
  // The parenthesis is ours.
  if (kind === 'json' && text === "SyntaxError: Unexpected token ')'") return 'SyntaxError: it ends too early';
  const stack = String(error.stack);
  for (const name of [file, realpathSync(file), pathToFileURL(file).href]) {
    const line = stack.split(`${name}:`)[1]?.match(/^\d+/);
    if (line) return `line ${line[0]}: ${text}`;
  }
  return text;
}

async function load() {
  if (kind === 'json') {
    return runInThisContext(`(${readFileSync(file)}\n)`, { filename: file, timeout: 1000 });
  }
  const module = await import(pathToFileURL(file).href);
  return module.default ?? { ...module };
}

let answer;
try {
  answer = plain(await load());
} catch (error) {
  answer = stringify({ error: say(error) });
}
const bytes = Buffer.from(`${answer}\n`);
for (let at = 0; at < bytes.length; ) {
  try {
    at += writeSync(0, bytes, at);
  } catch (error) {
    if (error.code !== 'EAGAIN') throw error;
  }
}
exit(0);
