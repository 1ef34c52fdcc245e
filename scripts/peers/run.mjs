// Runs one editing trace through other list CRDTs and prints one JSON object a
// line: {trace, peer, what, edits, runs, min_ms, median_ms, bytes}.
//
//   node --expose-gc run.mjs TRACE.json.gz [--runs 3] [--edits N] [--only yjs,loro]
//
// Every edit is an operation of its own, as in a live session: that is what the
// daemon does. Times are CPU time of the process, so the helper threads of node
// (collector, compiler) count too. Every outcome is compared with the trace's
// text; a peer that ends with another one is an error.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { gunzipSync } from 'node:zlib';

// What took longer than this is not run again, and given up after the second.
const patienceMS = 20_000;
const longestMS = 60_000;

class GaveUp extends Error {}

// hurry yields what a run has to do, until it has taken too long.
function* hurry(items) {
  const start = process.cpuUsage();
  let i = 0;
  for (const item of items) {
    if (i++ % 256 === 0) {
      const used = process.cpuUsage(start);
      if ((used.user + used.system) / 1000 > longestMS) throw new GaveUp(`given up after ${i - 1} of ${items.length}`);
    }
    yield item;
  }
}

const loaders = {
  yjs: async () => {
    const Y = await import('yjs');
    const open = () => { const doc = new Y.Doc(); return { doc, text: doc.getText('t') }; };
    const edit = (d, [pos, del, ins]) => d.doc.transact(() => {
      if (del) d.text.delete(pos, del);
      if (ins) d.text.insert(pos, ins);
    });
    return {
      open,
      edit,
      emit(d, edits) {
        const out = [];
        d.doc.on('update', (u) => out.push(u));
        for (const e of edits) edit(d, e);
        return out;
      },
      apply: (d, u) => Y.applyUpdate(d.doc, u),
      save: (d) => Y.encodeStateAsUpdate(d.doc),
      load(bytes) { const d = open(); Y.applyUpdate(d.doc, bytes); return d; },
      text: (d) => d.text.toString(),
    };
  },
  'loro-crdt': async () => {
    const { LoroDoc } = await import('loro-crdt');
    const open = () => { const doc = new LoroDoc(); return { doc, text: doc.getText('t') }; };
    const edit = (d, [pos, del, ins]) => {
      if (del) d.text.delete(pos, del);
      if (ins) d.text.insert(pos, ins);
      d.doc.commit();
    };
    return {
      open,
      edit,
      emit(d, edits) {
        const out = [];
        d.doc.subscribeLocalUpdates((u) => out.push(u));
        for (const e of edits) edit(d, e);
        return out;
      },
      apply: (d, u) => d.doc.import(u),
      save: (d) => d.doc.export({ mode: 'snapshot' }),
      load(bytes) { const d = open(); d.doc.import(bytes); return d; },
      text: (d) => d.text.toString(),
      close: (d) => d.doc.free(),
    };
  },
  'json-joy': async () => {
    const { Model } = await import('json-joy/lib/json-crdt/index.js');
    const { Patch } = await import('json-joy/lib/json-crdt-patch/index.js');
    const wrap = (model) => ({ model, str: model.api.str([]) });
    const first = Model.create();
    first.api.set('');
    first.api.flush();
    const edit = (d, [pos, del, ins]) => {
      if (del) d.str.del(pos, del);
      if (ins) d.str.ins(pos, ins);
      return d.model.api.flush();
    };
    return {
      open: () => wrap(first.fork()),
      edit,
      emit: (d, edits) => Array.from(edits, (e) => edit(d, e).toBinary()),
      apply: (d, u) => d.model.applyPatch(Patch.fromBinary(u)),
      save: (d) => d.model.toBinary(),
      load: (bytes) => wrap(Model.fromBinary(bytes)),
      text: (d) => d.model.view(),
    };
  },
  'diamond-types-node': async () => {
    const { default: dt } = await import('diamond-types-node');
    const edit = (d, [pos, del, ins]) => {
      if (del) d.del(pos, del);
      if (ins) d.ins(pos, ins);
    };
    return {
      open: () => new dt.Doc('a'),
      edit,
      emit(d, edits) {
        const out = [];
        for (const e of edits) {
          const before = d.getLocalVersion();
          edit(d, e);
          out.push(d.getPatchSince(before));
        }
        return out;
      },
      apply: (d, u) => d.mergeBytes(u),
      save: (d) => d.toBytes(),
      load: (bytes) => dt.Doc.fromBytes(bytes, 'b'),
      text: (d) => d.get(),
      close: (d) => d.free(),
    };
  },
  automerge: async () => {
    const A = await import('@automerge/automerge');
    const first = A.save(A.from({ t: '' }));
    const open = () => ({ doc: A.load(first) });
    const edit = (d, [pos, del, ins]) => { d.doc = A.change(d.doc, (c) => A.splice(c, ['t'], pos, del, ins)); };
    return {
      open,
      edit,
      emit: (d, edits) => Array.from(edits, (e) => { edit(d, e); return A.getLastLocalChange(d.doc); }),
      apply(d, u) { [d.doc] = A.applyChanges(d.doc, [u]); },
      save: (d) => A.save(d.doc),
      load: (bytes) => ({ doc: A.load(bytes) }),
      text: (d) => d.doc.t,
      close: (d) => A.free(d.doc),
    };
  },
};

function parseArgs(args) {
  const o = { runs: 3, edits: Infinity, only: null };
  for (let i = 0; i < args.length; i++) {
    switch (args[i]) {
      case '--runs': o.runs = Number(args[++i]); break;
      case '--edits': o.edits = Number(args[++i]); break;
      case '--only': o.only = args[++i].split(','); break;
      default: o.path = args[i];
    }
  }
  if (!o.path || !(o.runs >= 1) || !(o.edits >= 1)) {
    console.error('usage: node --expose-gc run.mjs TRACE.json.gz [--runs N] [--edits N] [--only NAMES]');
    process.exit(64);
  }
  return o;
}

function readTrace(path, limit) {
  let data = readFileSync(path);
  if (data[0] === 0x1f && data[1] === 0x8b) data = gunzipSync(data);
  const file = JSON.parse(data);
  let edits = file.startContent ? [[0, 0, file.startContent]] : [];
  for (const txn of file.txns) for (const p of txn.patches) edits.push(p);
  if (edits.length <= limit) return { edits, end: file.endContent };
  edits = edits.slice(0, limit);
  let end = ''; // slow, but obviously right
  for (const [pos, del, ins] of edits) end = end.slice(0, pos) + ins + end.slice(pos + del);
  return { edits, end };
}

// measure runs a function that returns a document, and checks its text. If a run
// takes too long after the first was done, the first is what is told, and there
// is no document.
function measure(peer, runs, end, run) {
  const times = [];
  let doc, first;
  for (let i = 0; i <= runs; i++) { // the first is to warm up
    if (doc) peer.close?.(doc);
    doc = undefined;
    globalThis.gc?.();
    const before = process.cpuUsage();
    try {
      doc = run();
    } catch (err) {
      if (!(err instanceof GaveUp) || first === undefined) throw err;
      if (times.length === 0) times.push(first);
      break;
    }
    const used = process.cpuUsage(before);
    const ms = (used.user + used.system) / 1000;
    if (peer.text(doc) !== end) throw new Error('the final text is wrong');
    if (i > 0) times.push(ms);
    else if (ms > patienceMS) { times.push(ms); break; }
    else first = ms;
  }
  times.sort((a, b) => a - b);
  return { doc, figures: { runs: times.length, min_ms: times[0], median_ms: times[times.length >> 1] } };
}

function runPeer(peer, { edits, end }, runs, print) {
  // attempt prints what was measured, or that it took too long.
  const attempt = (what, run, more = () => ({})) => {
    try {
      const { doc, figures } = measure(peer, runs, end, run);
      print({ what, ...more(), ...figures });
      return doc;
    } catch (err) {
      if (!(err instanceof GaveUp)) throw err;
      console.error(`    ${what}: ${err.message}`);
    }
  };
  const local = attempt('local', () => {
    const d = peer.open();
    for (const e of hurry(edits)) peer.edit(d, e);
    return d;
  });
  let updates;
  attempt('emit', () => {
    const d = peer.open();
    updates = peer.emit(d, hurry(edits));
    if (updates.length !== edits.length) throw new Error(`${updates.length} updates for ${edits.length} edits`);
    return d;
  }, () => ({ bytes: updates.reduce((n, u) => n + u.length, 0) }));
  if (updates) {
    attempt('remote', () => {
      const d = peer.open();
      for (const u of hurry(updates)) peer.apply(d, u);
      return d;
    });
  }
  if (local) {
    const saved = peer.save(local);
    attempt('load', () => { const d = peer.load(saved); peer.text(d); return d; }, () => ({ bytes: saved.length }));
  }
}

const args = parseArgs(process.argv.slice(2));
const trace = readTrace(args.path, args.edits);
const name = basename(args.path).split('.')[0];
let failed = false;
for (const [peerName, loader] of Object.entries(loaders)) {
  if (args.only && !args.only.some((o) => peerName.startsWith(o))) continue;
  console.error(`  ${peerName}`);
  try {
    runPeer(await loader(), trace, args.runs, (figures) =>
      console.log(JSON.stringify({ trace: name, peer: peerName, edits: trace.edits.length, ...figures })));
  } catch (err) {
    failed = true;
    console.error(`  ${peerName}: ${err?.message ?? err}`);
  }
}
process.exitCode = failed ? 1 : 0;
