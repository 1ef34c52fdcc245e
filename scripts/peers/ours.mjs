// Turns what `crdt-genome bench list --json` printed into lines as run.mjs
// prints them: the bare list, the genome around it with its history, and the
// snapshot, which holds no deleted text.
import { readFileSync } from 'node:fs';

const { figures } = JSON.parse(readFileSync(0));

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

for (const trace of new Set(figures.map((f) => f.group))) {
  const find = (name) => {
    const f = figures.find((f) => f.group === trace && f.name === name);
    if (!f) throw new Error(`no figure "${name}" of ${trace}: bench list and ours.mjs disagree`);
    return f;
  };
  const edits = find('rope, no CRDT').ops;
  for (const [peer, what, name, sized] of rows) {
    const f = find(name);
    const bytes = find(sized ?? name).bytes;
    console.log(JSON.stringify({ trace, peer, what, edits, runs: f.runs, min_ms: f.min_ms, median_ms: f.median_ms, bytes }));
  }
}
