// Prints the lines of run.mjs and ours.mjs as one table.
import { readFileSync } from 'node:fs';

const lines = readFileSync(0, 'utf8').split('\n').filter(Boolean).map((l) => JSON.parse(l));

const digits = (x) => (x < 10 ? x.toFixed(2) : x < 100 ? x.toFixed(1) : Math.round(x).toLocaleString('en'));
const time = (f) => (f ? `${digits(f.min_ms)} / ${digits(f.median_ms)}` : '–');

const rows = [['TRACE', 'PEER', 'EDITS', 'LOCAL', 'EMIT', 'B/EDIT', 'REMOTE', 'LOAD', 'SAVED B']];
const seen = new Set();
for (const { trace, peer, edits } of lines) {
  const key = JSON.stringify([trace, peer, edits]);
  if (seen.has(key)) continue;
  seen.add(key);
  const of = (what) => lines.find((l) => l.trace === trace && l.peer === peer && l.edits === edits && l.what === what);
  const emit = of('emit'), load = of('load');
  rows.push([trace, peer, edits.toLocaleString('en'), time(of('local')), time(emit),
    emit?.bytes ? (emit.bytes / edits).toFixed(1) : '–', time(of('remote')), time(load),
    load?.bytes ? load.bytes.toLocaleString('en') : '–']);
}

const widths = rows[0].map((_, i) => Math.max(...rows.map((r) => r[i].length)));
for (const r of rows) console.log(r.map((cell, i) => cell.padEnd(widths[i])).join('  ').trimEnd());
console.log(`
Milliseconds of CPU, best / median. LOCAL: edits applied to the own copy. EMIT: and
each put into bytes of its own (crdt-genome: into blocks of up to 4,096). REMOTE: those
bytes applied one by one elsewhere. LOAD: the saved document to its text. Yjs and
json-joy save no deleted text, nor does the snapshot; the others save the history.
– where a peer needs more than a minute.`);
