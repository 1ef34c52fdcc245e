// Turns what `crdt-genome bench list --json` printed into lines as run.mjs
// prints them: the bare list, the genome around it with its history, and the
// snapshot, which holds no deleted text.
import { readFileSync } from 'node:fs';

// A row holds a case's times, another one its size.
const { rows: measured } = JSON.parse(readFileSync(0));

const rows = [
  ['crdt-genome', 'local', 'genome, local'],
  ['crdt-genome', 'emit', 'genome, local, each op as bytes'],
  ['crdt-genome', 'remote', 'genome, remote one by one, from bytes'],
  ['crdt-genome', 'load', 'log, joined: unpack and replay', 'log, joined: pack'],
  ['crdt-genome, list only', 'local', 'list, local'],
  ['crdt-genome, list only', 'remote', 'list, remote'],
  ['crdt-genome, snapshot', 'load', 'snapshot: load', 'snapshot: save'],
  ['rope, no CRDT', 'local', 'rope, no CRDT'],
];

for (const trace of new Set(measured.map((r) => r.group))) {
  const find = (name, unit = 'ms') => {
    const r = measured.find((r) => r.group === trace && r.name === name && r.unit === unit);
    if (!r) throw new Error(`no ${unit} of "${name}" of ${trace}: bench list and ours.mjs disagree`);
    return r;
  };
  const sizeOf = (name) => measured.find((r) => r.group === trace && r.name === name && r.unit === 'B')?.median;
  const edits = find('rope, no CRDT').ops;
  for (const [peer, what, name, sized] of rows) {
    const f = find(name);
    const bytes = sized ? find(sized, 'B').median : sizeOf(name);
    console.log(JSON.stringify({ trace, peer, what, edits, runs: f.values.length, min_ms: f.min, median_ms: f.median, bytes }));
  }
}
