// The page of a node. It asks nobody but that node: see the package comment.
const $ = id => document.getElementById(id);
const HUES = ['#e69f00', '#56b4e9', '#009e73', '#f0e442', '#0072b2', '#d55e00', '#cc79a7', '#999999']; // Okabe and Ito
const SPAN = 30e3;        // ms shown in the diagram
const HISTORY = 60;       // seconds of lag kept for each actor
const KEEP = 200;         // lines of story and log
const ARRIVALS = 4000;    // changes whose arrivals are remembered
const MESSAGES = 1500;    // lines in the diagram
const SETTLE = 400;       // ms that "behind" must last before it is said: most changes are on their way for less
const SILENCE = 20e3;     // ms without any event after which a stream is taken for dead
const STREAMS = 4;        // of the pages of one browser
const calm = matchMedia('(prefers-reduced-motion: reduce)');

const hue = actor => HUES[actor % HUES.length];
const inkOn = hex => {
	const [r, g, b] = [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
	return .299 * r + .587 * g + .114 * b > 100 ? '#000' : '#fff';
};
const num = n => n.toLocaleString('en-US');
const some = (n, what) => `${num(n)} ${what}${n === 1 ? '' : 's'}`;
const hex2 = v => v.toString(16).padStart(2, '0');
const names = list => list.length === 1 ? `actor ${list[0]}` : `actors ${list.slice(0, -1).join(', ')} and ${list.at(-1)}`;
const span = ms => ms < 1000 ? `${Math.round(ms)} ms` : ms < 120e3 ? `${(ms / 1000).toFixed(ms < 10e3 ? 1 : 0)} s` : `${Math.round(ms / 60e3)} min`;
const clock = (t, ms) => {
	const d = new Date(t), p = (n, w = 2) => String(n).padStart(w, '0');
	return `${p(d.getHours())}:${p(d.getMinutes())}:${p(d.getSeconds())}${ms ? '.' + p(d.getMilliseconds(), 3) : ''}`;
};
function el(tag, props = {}, ...kids) {
	const e = Object.assign(document.createElement(tag), props);
	e.append(...kids.filter(k => k != null));
	return e;
}
function chip(actor) {
	const c = el('span', { className: 'chip', textContent: 'a' + actor });
	c.style.background = hue(actor);
	c.style.color = inkOn(hue(actor));
	return c;
}

// ---- the list

// The list with its tombstones: one row per element in the arrays author …
// lsn; order holds rows in list order. dels[row] is [author, seq, lsn, …].
const ROOT = -1, OUTSIDE = -2;
let M = newModel();

function newModel() {
	return { pos: 0, live: 0, total: 0, whole: true, vv: [], reps: [], repOf: new Map(), actorOf: [],
		author: [], gene: [], seq: [], val: [], parent: [], side: [], lsn: [], dels: [], order: [], byId: new Map(), kids: new Map() };
}

// rep returns the number of a replica ("3@5f3c1a2b") in this page.
function rep(text) {
	let i = M.repOf.get(text);
	if (i === undefined) {
		i = M.reps.push(text) - 1;
		M.repOf.set(text, i);
		M.actorOf.push(+text.slice(0, text.indexOf('@')));
	}
	return i;
}
const idKey = (author, gene) => author * 2 ** 36 + gene;
function splitId(text, mark) {
	const i = text.lastIndexOf(mark);
	return [rep(text.slice(0, i)), +text.slice(i + 1)];
}
const rowOf = (author, gene) => M.byId.get(idKey(author, gene));
function vector(vv) {
	const v = [];
	for (const r in vv) v[rep(r)] = vv[r];
	return v;
}
const holds = (v, author, seq) => v[author] >= seq; // undefined >= n is false

// siblings returns the children of a row on one side, in their order.
function siblings(parent, side) {
	let k = M.kids.get(parent);
	if (!k) M.kids.set(parent, k = { L: [], R: [] });
	return k[side];
}
function edge(row, side) { // the first (L) or last (R) element of row's subtree
	for (let k; (k = M.kids.get(row)?.[side]) && k.length;) row = side === 'L' ? k[0] : k.at(-1);
	return row;
}
function comesBefore(a, b) { // siblings ascend by replica (actor, then epoch), then gene number
	const [x, y] = [M.author[a], M.author[b]];
	if (x === y) return M.gene[a] < M.gene[b];
	if (M.actorOf[x] !== M.actorOf[y]) return M.actorOf[x] < M.actorOf[y];
	return M.reps[x].slice(-8) < M.reps[y].slice(-8);
}

// place puts a new row where the tree has it: left children, gene, right children.
function place(row) {
	const parent = M.parent[row], side = M.side[row], sib = siblings(parent, side);
	let i = sib.length;
	while (i > 0 && comesBefore(row, sib[i - 1])) i--;
	let at;
	if (i > 0) at = M.order.lastIndexOf(edge(sib[i - 1], 'R')) + 1;
	else if (side === 'R') at = parent === ROOT ? 0 : M.order.lastIndexOf(parent) + 1;
	else at = M.order.lastIndexOf(sib.length ? edge(sib[0], 'L') : parent);
	sib.splice(i, 0, row);
	M.order.splice(at, 0, row);
}

function addRow(author, gene, seq, val, parent, side, lsn) {
	const row = M.author.push(author) - 1;
	M.gene.push(gene); M.seq.push(seq); M.val.push(val); M.parent.push(parent); M.side.push(side); M.lsn.push(lsn);
	M.byId.set(idKey(author, gene), row);
	M.live++;
	return row;
}
function addDeletion(row, author, seq, lsn) {
	if (!M.dels[row]) { M.dels[row] = []; M.live--; }
	M.dels[row].push(author, seq, lsn);
}

// take fills the list from an answer of /v1/elements.
function take(e) {
	M = newModel();
	M.pos = e.pos; M.total = e.total; M.whole = e.from === 0 && e.author.length === e.total;
	const r = e.replicas.map(rep);
	for (let i = 0; i < e.author.length; i++) {
		addRow(r[e.author[i]], e.gene[i], e.seq[i], parseInt(e.val.substr(2 * i, 2), 16), ROOT, e.side[i], e.lsn[i]);
		M.order.push(i);
	}
	for (let i = 0; i < e.author.length; i++) { // siblings come in their order
		const p = e.parent_author[i];
		M.parent[i] = p < 0 ? ROOT : rowOf(r[p], e.parent_gene[i]) ?? OUTSIDE;
		siblings(M.parent[i], M.side[i]).push(i);
	}
	const d = e.deleted;
	for (let i = 0; i < d.of.length; i++) addDeletion(d.of[i], r[d.author[i]], d.seq[i], d.lsn[i]);
	M.vv = vector(e.vv);
}

// apply adds a record of the log.
function apply(r) {
	const [author, seq] = splitId(r.op, '.');
	const n = r.kind === 'insert' ? r.genes.length / 2 : r.count;
	if (r.kind === 'insert') {
		const up = r.parent ? splitId(r.parent, '#') : null;
		let parent = up ? rowOf(...up) ?? OUTSIDE : ROOT;
		for (let i = 0; i < n; i++) {
			M.total++;
			if (parent === OUTSIDE) continue;
			const row = addRow(author, r.gene + i, seq + i, parseInt(r.genes.substr(2 * i, 2), 16), parent, i ? 'R' : r.side, r.seq + i);
			place(row);
			parent = row;
		}
	} else {
		const [of, first] = splitId(r.target, '#');
		for (let i = 0; i < n; i++) {
			const row = rowOf(of, r.reverse ? first + n - 1 - i : first + i);
			if (row !== undefined) addDeletion(row, author, seq + i, r.seq + i);
		}
	}
	M.vv[author] = seq + n - 1;
	M.pos = r.seq + n - 1;
}

// ---- the feed

const S = { self: 0, verdict: null, said: 'connecting', since: 0, actors: new Map(), diverged: null, downAt: 0, heardAt: performance.now(),
	skew: 0, at: null, selected: -1, row: -1, story: [], log: [], messages: [], arrivals: new Map(), lanes: new Map(), ribbon: [], trouble: null,
	duplicates: 0, reloads: 0, chaos: false, typed: '' };
const dirty = { strips: true, table: true, verdict: true, lists: true };
let source = null, loading = false;

const now = () => Date.now() - S.skew; // on the node's clock

async function load() {
	if (loading) return;
	loading = true;
	source?.close?.();
	try {
		const res = await fetch('/v1/elements');
		if (!res.ok) throw new Error(res.status);
		take(await res.json());
		for (const a of S.actors.values()) a.vec = vector(a.vv);
		S.arrivals.clear();
		S.reloads++;
		S.selected = -1;
		S.at = S.at && Math.min(S.at, M.pos);
		loading = false;
		Object.keys(dirty).forEach(k => dirty[k] = true);
		follow();
	} catch {
		loading = false;
		down();
		setTimeout(load, 1000);
	}
}

// follow listens to what happens. A browser has six connections to a server,
// so only STREAMS pages of one browser hold a stream; further ones ask now and
// then, and take the place of one that closes.
async function follow() {
	source?.close?.();
	const s = source = {};
	clearTimeout(polling);
	if (document.hidden) return leaveSeat();
	const seated = await takeSeat();
	if (s !== source) return;
	if (!seated) return poll();
	const stream = source = new EventSource('/v1/changes?since=' + M.pos); // a browser that comes back sends Last-Event-ID, which wins
	for (const name in HEAR) stream.addEventListener(name, e => stream === source && hear(name, JSON.parse(e.data)));
	stream.onopen = () => S.heardAt = performance.now();
	stream.onerror = () => {
		if (stream !== source) return;
		down();
		if (stream.readyState === EventSource.CLOSED) setTimeout(() => stream === source && follow(), 1000);
	};
}
const HEAR = { op: hearOp, peer: hearPeer, verdict: hearVerdict, delivery: hearDelivery, reset: load };
function hear(name, data) {
	if (loading) return;
	S.heardAt = performance.now();
	if (S.downAt) { S.downAt = 0; dirty.verdict = true; }
	HEAR[name]?.(data);
}

let leaveSeat = () => {}, seated = false, polling = 0;
async function takeSeat() {
	for (let i = 0; navigator.locks && !seated && i < STREAMS; i++)
		await new Promise(done => navigator.locks.request('crdt-genome stream ' + i, { ifAvailable: true }, lock => {
			done();
			if (!lock) return;
			seated = true;
			return new Promise(f => leaveSeat = () => { seated = false; f(); });
		}));
	return seated || !navigator.locks;
}
async function poll() {
	try {
		const res = await fetch('/v1/changes?feed=normal&since=' + M.pos);
		for (const line of (await res.text()).split('\n')) if (line) { const e = JSON.parse(line); hear(e.event, e.data); }
	} catch {
		down();
	}
	polling = setTimeout(follow, 1000);
}
function down() { S.downAt ||= performance.now(); dirty.verdict = true; }

addEventListener('visibilitychange', () => {
	if (!loading) follow();
});

function hearOp(r) {
	if (r.seq <= M.pos) { S.duplicates++; return; }
	if (r.seq !== M.pos + 1) { load(); return; }
	apply(r);
	const t = Date.parse(r.time), [author, seq] = splitId(r.op, '.'), n = M.pos - r.seq + 1, actor = M.actorOf[author];
	const fromPeer = r.via === 'pull' ? r.from : actor;
	const sent = r.via === 'local' ? t : t - (S.actors.get(fromPeer)?.rtt_ms ?? 1) / 2;
	for (let i = 0; i < Math.min(n, 64); i++) {
		arrived(author, seq + i, actor, sent);
		arrived(author, seq + i, S.self, t);
	}
	if (now() - t < SPAN) addMessage({ from: r.via === 'local' ? S.self : fromPeer, to: S.self, author: actor, sent, got: t, kind: r.kind, n, pull: r.via === 'pull', op: r.op });
	if (r.via === 'local') for (const a of S.actors.values()) if (!a.self && a.boot && a.state === 'unreachable') addMessage({ from: S.self, to: a.actor, author: S.self, sent: t, got: t, lost: true, n, op: r.op });
	S.log.unshift({ t, text: `${r.seq} ${actor}.${seq} ${r.kind} ${r.kind === 'insert' ? r.genes.slice(0, 16) + (r.genes.length > 16 ? '…' : '') : some(n, 'gene')} ${r.via === 'local' ? 'here' : `via ${r.via} from ${r.from}`}` });
	S.log.length = Math.min(S.log.length, KEEP);
	dirty.strips = dirty.table = dirty.lists = true;
}

function arrived(author, seq, actor, t) {
	const key = author + '.' + seq;
	let m = S.arrivals.get(key);
	if (!m) {
		S.arrivals.set(key, m = new Map());
		if (S.arrivals.size > ARRIVALS) S.arrivals.delete(S.arrivals.keys().next().value);
	}
	if (!m.has(actor)) m.set(actor, t);
	return m;
}

function hearDelivery(d) {
	const t = Date.parse(d.at), [author, seq] = splitId(d.op, '.');
	for (let i = 0; i < Math.min(d.count, 64); i++) arrived(author, seq + i, d.to, t);
	const sent = S.arrivals.get(author + '.' + seq)?.get(d.from) ?? t;
	addMessage({ from: d.from, to: d.to, author: d.from, sent, got: t, kind: '', n: d.count, op: d.op });
	if (S.selected >= 0) dirty.gene = true;
}

function addMessage(m) {
	S.messages.push(m);
	if (S.messages.length > MESSAGES) S.messages.shift();
}

const reached = a => a.self || a.state !== 'unreachable' || a.through?.length > 0;

function hearPeer(a) {
	const t = Date.parse(a.at), old = S.actors.get(a.actor);
	S.skew = Date.now() - t;
	a.vec = vector(a.vv);
	a.lag = old?.lag ?? [];
	if (a.self) S.self = a.actor;
	if (a.link) S.chaos = true;
	if (old && a.posts_failed > old.posts_failed) addMessage({ from: S.self, to: a.actor, author: S.self, sent: t, got: t, lost: true, n: a.posts_failed - old.posts_failed, op: '' });
	S.actors.set(a.actor, a);
	if (!old) S.actors = new Map([...S.actors].sort((x, y) => x[0] - y[0]));
	const lane = S.lanes.get(a.actor) ?? [];
	if (!lane.length || lane.at(-1).up !== reached(a)) lane.push({ t, up: reached(a) });
	S.lanes.set(a.actor, lane);
	if (old && !a.self) {
		if (old.state !== 'unreachable' && a.state === 'unreachable') tell(t, `actor ${a.actor} does not answer this actor${a.error ? ` (${a.error.split(': ').at(-1)})` : ''}`);
		if (old.state === 'unreachable' && a.state !== 'unreachable') tell(t, `actor ${a.actor} answers this actor again`);
	}
	a.throughAt = a.through?.length ? old?.throughAt ?? t : null; // what peers say of each other takes a moment to catch up
	a.throughTold = a.through?.length ? old?.throughTold : false;
	if (a.throughAt && !a.throughTold && t - a.throughAt > 3000) {
		a.throughTold = true;
		tell(t, `${names(a.through)} still reach${a.through.length === 1 ? 'es' : ''} actor ${a.actor}: only the link from here is cut`);
	}
	if (a.state === 'diverged' && !S.diverged) S.diverged = { at: t, actor: a.actor, digest: a.digest, forks: a.forks };
	dirty.strips = dirty.table = dirty.verdict = true;
}

function hearVerdict(v) {
	const first = !S.verdict;
	S.verdict = v;
	S.verdictPos = v.ops;
	if (v.verdict === 'diverged') S.diverged ??= { at: now() };
	if (first) { $('report').disabled = $('pause').disabled = false; }
	if (v.ops === M.pos && M.whole && v.genes !== M.live && performance.now() - (S.reloadedAt ?? -1e4) > 5000) {
		S.reloadedAt = performance.now(); // our reading is not the node's: read again
		load();
	}
	dirty.verdict = dirty.table = true;
}

function tell(t, text) {
	S.story.unshift({ t, text });
	S.story.length = Math.min(S.story.length, KEEP);
	dirty.lists = true;
}

// ---- the verdict

// say decides what the header says. Behind must last a moment: most changes
// are on their way for less.
function say() {
	let v = S.verdict?.verdict ?? 'connecting';
	const t = performance.now();
	if (v !== 'behind') S.behindAt = 0;
	else {
		S.behindAt ||= t;
		if (t - S.behindAt < SETTLE && (S.said === 'converged' || S.said === 'connecting')) v = S.said;
	}
	if (S.downAt && t - S.downAt > 1000) v = 'stale';
	if (S.diverged && v !== 'stale') v = 'diverged';
	if (v !== S.said) turn(S.said, v);
	S.said = v;
	return v;
}

// turn keeps the story and the ribbon of verdicts.
function turn(from, to) {
	const t = now();
	S.ribbon.push({ t, v: to });
	if (S.ribbon.length > 400) S.ribbon.shift();
	if (to === 'partitioned') tell(t, `PARTITIONED ${groups()}`);
	if (to === 'unreachable') tell(t, `${names(away())} cannot be reached; nothing was missing when last heard of`);
	if (to === 'diverged') tell(t, 'DIVERGED: same changes, different genomes');
	if (to === 'stale') tell(t, 'no news from this actor');
	if (from === 'stale' && to !== 'stale') tell(t, 'news again');
	if (['partitioned', 'unreachable', 'diverged'].includes(to)) S.trouble ??= t;
	if (to === 'behind') S.lateAt = t;
	if (to === 'converged') {
		const since = S.trouble ?? (S.lateAt && t - S.lateAt > 2000 ? S.lateAt : null);
		if (since || from === 'connecting') tell(t, `CONVERGED: all ${S.verdict.of} equal${since ? `, after ${span(t - since)}` : ''}`);
		S.trouble = S.lateAt = null;
	}
}

const groups = (comma = ',', and = ' ') => S.verdict.groups.map(x => `{${x.join(comma)}}`).join(and);
const away = () => [...S.actors.values()].filter(a => !reached(a)).map(a => a.actor);

function sentence(v) {
	const V = S.verdict;
	if (v === 'connecting') return 'Waiting for the first news of the other actors.';
	if (v === 'stale') return `No news from this actor for ${span(performance.now() - S.downAt)}: what is shown is old${V ? ` (last: ${V.verdict})` : ''}.`;
	const late = [...S.actors.values()].filter(a => reached(a) && a.lacks_ops > 0);
	const fenced = V.fenced ? ` This actor makes no changes now: ${V.fenced}.` : '';
	if (v === 'diverged') {
		const d = S.diverged;
		return `Same changes, different genomes${d.actor === undefined ? '' : ` at actor ${d.actor}`}, seen at ${clock(d.at)}. This is a bug or damage; the node’s log has the evidence.`;
	}
	if (v === 'partitioned') return `${groups(', ', ' and ')} do not reach each other and drift apart. Nothing is lost: they become equal when the link heals.` + fenced;
	if (v === 'unreachable') return `${cap(names(away()))} cannot be reached. When last heard of, nothing was missing.` + fenced;
	if (v === 'behind') {
		if (!late.length) return 'Some changes are still on their way.' + fenced;
		const worst = late.reduce((a, b) => b.lacks_ops > a.lacks_ops ? b : a);
		return `${V.equal} of ${V.of} equal; actor ${worst.actor} lacks ${some(worst.lacks_ops, 'change')}${worst.oldest_ms > 1000 ? `, for ${span(worst.oldest_ms)}` : ''}. They are on their way.` + fenced;
	}
	return (V.of === 1 ? `This actor is alone: ${some(M.live, 'gene')}.` : `All ${V.of} actors hold the same ${some(V.genes, 'gene')}, made by ${some(V.ops, 'change')}.`) + fenced;
}
const cap = s => s[0].toUpperCase() + s.slice(1);

function setText(e, text) { if (e.textContent !== text) e.textContent = text; }

function drawVerdict() {
	const v = say(), head = $('verdict');
	if (head.dataset.verdict !== v) head.dataset.verdict = v;
	const word = v === 'connecting' ? 'connecting…' : v.toUpperCase();
	setText($('word'), v === 'stale' ? `stale ${Math.floor((performance.now() - S.downAt) / 1000)} s`
		: v === 'partitioned' ? `PARTITIONED ${groups()}` : word);
	setText($('sentence'), sentence(v));
	setText($('whoami'), S.verdict ? `actor ${S.self} · ${location.host}` : location.host);
	document.title = `${word} · actor ${S.self} · crdt-genome`;
	const p = !!S.verdict?.paused;
	$('pause').setAttribute('aria-pressed', p);
	setText($('pause'), p ? 'Resume mutation' : 'Pause mutation');
}

// ---- the strips

// What a row shows of an element.
const GONE = 0, HAS = 1, MISSING = 2, STALE = 3;
const MARKS = ['deleted here', 'has it', 'not received yet', 'still here, deleted elsewhere'];
const G = { rows: [], cols: [], codes: [] };

function readRows() {
	const rows = [...S.actors.values()].map(a => ({ actor: a.actor, a, vec: a.self ? M.vv : a.vec }));
	if (S.at !== null) rows.unshift({ at: S.at });
	return rows;
}

function codeAt(row, e) {
	const d = M.dels[e];
	let has, gone = false;
	if (row.at !== undefined) {
		has = M.lsn[e] <= row.at;
		for (let i = 2; d && i < d.length && !gone; i += 3) gone = d[i] <= row.at;
	} else {
		has = holds(row.vec, M.author[e], M.seq[e]);
		for (let i = 0; d && i < d.length && !gone; i += 3) gone = holds(row.vec, d[i], d[i + 1]);
	}
	if (has) return gone ? GONE : d ? STALE : HAS;
	return d ? GONE : MISSING;
}

// readColumns finds the elements that any row shows, and how.
function readColumns() {
	const rows = G.rows = readRows(), n = M.order.length, cols = G.cols = [];
	G.codes = rows.map(() => new Uint8Array(n));
	for (const row of rows) row.genes = 0;
	for (let i = 0; i < n; i++) {
		const e = M.order[i], k = cols.length;
		let shown = false;
		for (let r = 0; r < rows.length; r++) {
			const c = G.codes[r][k] = codeAt(rows[r], e);
			if (c & 1) { shown = true; rows[r].genes++; }
		}
		if (shown) cols.push(e);
	}
}

const look = {};
function readLook() {
	const s = getComputedStyle(document.documentElement);
	for (const n of ['mute', 'hatch', 'card', 'ink', 'dim', 'line', 'cut', 'good', 'warn', 'bad-bg', 'cut-bg']) look[n] = s.getPropertyValue('--' + n).trim();
}

const MONO = 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace';

function fit(canvas) { // sets the size in device pixels; returns it
	const dpr = devicePixelRatio || 1, w = Math.round(canvas.clientWidth * dpr), h = Math.round(canvas.clientHeight * dpr);
	if (canvas.width !== w) canvas.width = w;
	if (canvas.height !== h) canvas.height = h;
	return { w, h, dpr };
}

// cellWidth is the width of a column in device pixels, for w of them.
const cellWidth = (w, n, dpr) => Math.min(w / Math.max(n, 1), 26 * dpr);

// drawCells paints one row. Where columns are narrower than two pixels,
// neighbours of one mark and colour are painted as one, and a pixel in which
// anything is missing shows that.
function drawCells(canvas, codes, cols) {
	const { w, h, dpr } = fit(canvas), g = canvas.getContext('2d'), n = cols.length, cell = cellWidth(w, n, dpr);
	g.clearRect(0, 0, w, h);
	if (cell >= 2) {
		for (let i = 0; i < n; i++) {
			const x = Math.floor(i * cell), gap = cell >= 5 * dpr ? Math.round(dpr) : 0;
			mark(g, codes[i], hue(M.actorOf[M.author[cols[i]]]), x, Math.floor((i + 1) * cell) - x - gap, h, dpr);
			if (cell >= 19 * dpr && codes[i] & 1 && h >= 18 * dpr) label(g, cols[i], codes[i], x + (cell - gap) / 2, h, dpr);
		}
		return;
	}
	let start = 0, last = -1, lastHue = '';
	const width = Math.min(w, Math.ceil(n * cell));
	for (let x = 0; x <= width; x++) {
		const i = Math.floor(x / cell), end = Math.min(n, Math.max(i + 1, Math.floor((x + 1) / cell)));
		let c = -1, color = '';
		if (x < width && i < n) {
			c = codes[i];
			color = hue(M.actorOf[M.author[cols[i]]]);
			for (let k = i; k < end; k++) if (codes[k] === MISSING || codes[k] === STALE && c !== MISSING) c = codes[k];
		}
		if (c === last && color === lastHue) continue;
		if (last >= 0) mark(g, last, lastHue, start, x - start, h, dpr);
		start = x; last = c; lastHue = color;
	}
}

// mark paints one cell: full, a frame, a hatched half, or nothing.
function mark(g, code, color, x, w, h, dpr) {
	if (code === HAS) {
		g.fillStyle = color;
		g.fillRect(x, 0, w, h);
	} else if (code === STALE) {
		const b = Math.max(2, Math.round(2.5 * dpr));
		g.fillStyle = color;
		g.fillRect(x, 0, w, h);
		if (w > 2 * b + 1) g.clearRect(x + b, b, w - 2 * b, h - 2 * b);
		else g.clearRect(x, Math.round(h * .25), w, Math.round(h * .5));
	} else if (code === MISSING) {
		g.fillStyle = look.mute;
		g.fillRect(x, 0, w, h);
		g.save();
		g.beginPath();
		g.rect(x, 0, w, h);
		g.clip();
		g.strokeStyle = look.hatch;
		g.lineWidth = 1.3 * dpr;
		g.beginPath();
		const step = 6 * dpr; // hatching goes on over neighbours
		for (let s = Math.floor((x - h) / step) * step; s < x + w; s += step) { g.moveTo(s, h); g.lineTo(s + h, 0); }
		g.stroke();
		g.restore();
	}
}

function label(g, e, code, x, h, dpr) {
	g.font = `600 ${11 * dpr}px ${MONO}`;
	g.textAlign = 'center';
	g.textBaseline = 'middle';
	g.fillStyle = code === HAS ? inkOn(hue(M.actorOf[M.author[e]])) : look.ink;
	g.fillText(hex2(M.val[e]), x, h / 2 + dpr * .5);
}

let strips = ''; // the rows that the page has elements for
function drawStrips() {
	readColumns();
	const box = $('strips'), want = G.rows.map(r => r.at === undefined ? r.actor : '@').join();
	if (want !== strips) {
		strips = want;
		box.className = G.rows.length > 24 ? 'crowd' : G.rows.length > 9 ? 'many' : '';
		box.replaceChildren(...G.rows.flatMap((r, i) => {
			const canvas = el('canvas');
			canvas.dataset.row = i;
			if (r.at === undefined) canvas.dataset.actor = r.actor;
			canvas.setAttribute('aria-hidden', 'true');
			const name = el('div', { className: 'name' }, r.at === undefined ? chip(r.actor) : el('span', { className: 'chip', textContent: '⏱' }), el('small'));
			const cell = el('div', { className: r.at === undefined ? '' : 'past' }, canvas);
			return [name, cell, el('div', { className: 'count' })];
		}), el('div', { className: 'cursor', ariaHidden: 'true' }, el('i')));
		$('authors').replaceChildren('written by', ...[...S.actors.keys()].slice(0, 16).map(chip));
	}
	G.rows.forEach((r, i) => {
		const [name, cell, count] = [0, 1, 2].map(k => box.children[3 * i + k]);
		drawCells(cell.firstChild, G.codes[i], G.cols);
		const note = name.lastChild;
		if (r.at !== undefined) {
			setText(note, '@' + num(r.at));
			setText(count, `${num(r.genes)} genes`);
			return;
		}
		const a = r.a, beyond = M.reps.reduce((n, _, k) => n + Math.max(0, (a.vec[k] ?? 0) - (M.vv[k] ?? 0)), 0), [text, kind] = stateText(a);
		setText(note, a.self && kind === 'ok' ? 'this actor' : text);
		note.className = kind === 'ok' ? '' : kind;
		setText(count, `${num(r.genes)}${beyond ? ` +${num(beyond)}` : ''} genes`);
		count.title = beyond ? `${some(beyond, 'change')} that have not arrived at this page’s actor, so they are not drawn` : '';
	});
	drawCursor();
}

function stateText(a) {
	if (a.state === 'diverged') return ['diverged', 'off'];
	const lacks = a.lacks_ops ? `lacks ${num(a.lacks_ops)}` : 'equal';
	if (!a.self && a.state === 'unreachable') return reached(a) ? [`${lacks} (via ${a.through.map(x => 'a' + x).join(' ')})`, 'late'] : [a.boot ? `cut off · ${lacks}` : 'not seen yet', 'off'];
	return [lacks, a.lacks_ops ? 'late' : 'ok'];
}

function drawCursor() {
	const i = G.cols.indexOf(S.selected), bar = $('strips').querySelector('.cursor i');
	if (!bar) return;
	bar.hidden = i < 0;
	if (i < 0) return;
	const w = bar.parentNode.clientWidth, cell = cellWidth(w, G.cols.length, 1);
	bar.style.left = i * cell + 'px';
	bar.style.width = Math.max(3, cell - 1) + 'px';
}

function columnAt(canvas, x) {
	const i = Math.floor(x / cellWidth(canvas.clientWidth, G.cols.length, 1));
	return i >= 0 && i < G.cols.length ? i : -1;
}

// ---- the table

let columns = '';
function drawTable() {
	const actors = [...S.actors.values()], authors = actors.length <= 12 ? actors.map(a => a.actor) : [], table = $('table');
	const all = [];
	for (const v of [M.vv, ...actors.map(a => a.vec)]) v.forEach((seq, k) => all[k] = Math.max(all[k] ?? 0, seq));
	const want = actors.map(a => a.actor).join() + S.chaos;
	if (want !== columns) {
		columns = want;
		table.tHead.replaceChildren(el('tr', {}, ...['actor', 'state'].map(t => el('th', { textContent: t, scope: 'col', className: 'l' })),
			...authors.map(a => el('th', { scope: 'col', title: `changes by actor ${a}` }, chip(a))),
			...['Σ', 'rtt', '60 s', S.chaos ? 'link' : null].filter(Boolean).map(t => el('th', { textContent: t, scope: 'col', className: t === 'rtt' ? 'rtt' : '' }))));
		table.tBodies[0].replaceChildren(...actors.map(a => {
			const line = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
			line.append(document.createElementNS('http://www.w3.org/2000/svg', 'path'));
			line.setAttribute('viewBox', `0 0 ${HISTORY} 18`);
			line.setAttribute('preserveAspectRatio', 'none');
			line.setAttribute('role', 'img');
			const link = S.chaos ? el('td', {}, a.self ? '' : el('button', { type: 'button', onclick: () => setLink(a.actor) })) : null;
			return el('tr', {}, el('td', {}, chip(a.actor)), el('td', { className: 'state' }), ...authors.map(() => el('td', { className: 'num' })),
				el('td', { className: 'num' }), el('td', { className: 'num rtt' }), el('td', {}, line), link);
		}));
		$('chaos').hidden = !S.chaos;
	}
	actors.forEach((a, i) => {
		const cells = table.tBodies[0].rows[i].cells, [text, kind] = stateText(a);
		const since = a.state === 'unreachable' && a.since_ms ? ' ' + span(a.since_ms + Math.max(0, now() - Date.parse(a.at))) : '';
		const brief = text.replace(/ · .*/, '').replace(/^lacks.*\(/, '(').replace(/^lacks.*/, 'behind') + since;
		const state = el('span', { className: kind, textContent: brief, title: [a.url, a.error].filter(Boolean).join(' · ') });
		if (cells[1].textContent !== state.textContent || cells[1].firstChild?.className !== kind) cells[1].replaceChildren(state);
		const by = new Map();
		all.forEach((seq, k) => by.set(M.actorOf[k], (by.get(M.actorOf[k]) ?? 0) + seq - Math.min(seq, a.vec[k] ?? 0)));
		const put = (td, n) => {
			setText(td, n ? num(n) : '·');
			td.className = 'num ' + (n ? 'lack' : 'zero');
		};
		authors.forEach((x, k) => put(cells[2 + k], by.get(x) ?? 0));
		const k = 2 + authors.length;
		put(cells[k], [...by.values()].reduce((x, y) => x + y, 0));
		setText(cells[k + 1], a.self || a.state === 'unreachable' ? '–' : `${a.rtt_ms.toFixed(a.rtt_ms < 10 ? 1 : 0)} ms`);
		drawLag(cells[k + 2].firstChild, a);
		const b = cells[k + 3]?.firstChild;
		if (b?.tagName === 'BUTTON') {
			setText(b, a.link === 'cut' ? 'heal' : 'cut');
			b.className = a.link === 'cut' ? 'heal' : '';
			b.setAttribute('aria-label', `${a.link === 'cut' ? 'heal' : 'cut'} the link to actor ${a.actor}`);
		}
	});
}

function drawLag(svg, a) {
	const top = Math.max(4, ...a.lag), n = a.lag.length;
	const d = n ? 'M' + a.lag.map((v, i) => `${HISTORY - n + i} ${(16.5 - 15 * v / top).toFixed(1)}`).join('L') : '';
	if (svg.firstChild.getAttribute('d') !== d) svg.firstChild.setAttribute('d', d);
	const text = `lacked at most ${Math.max(0, ...a.lag)} in the last minute`;
	if (svg.getAttribute('aria-label') !== text) svg.setAttribute('aria-label', text);
}

async function setLink(actor, state = S.actors.get(actor).link === 'cut' ? 'up' : 'cut') {
	const problem = await send('PUT', `/v1/links/${actor}`, { state });
	if (problem) tell(now(), `link to actor ${actor}: ${problem}`);
	else tell(now(), `you ${state === 'cut' ? 'cut' : 'healed'} the link to actor ${actor}`);
}
const setLinks = state => { for (const a of S.actors.values()) if (!a.self && (a.link === 'cut') !== (state === 'cut')) setLink(a.actor, state); };

// ---- the diagram

const LANE = 26, TOP = 10, RIBBON = 15, LEFT = 34;
function scales(w) {
	const t1 = now(), actors = [...S.actors.keys()];
	return [t1, t => LEFT + (w - LEFT - 6) * (1 - (t1 - t) / SPAN), a => TOP + LANE / 2 + actors.indexOf(a) * LANE];
}

function drawLanes() {
	const canvas = $('lanes'), actors = [...S.actors.keys()], height = TOP + actors.length * LANE + RIBBON + 18;
	if (canvas.style.height !== height + 'px') canvas.style.height = height + 'px';
	const { w: W, dpr } = fit(canvas), g = canvas.getContext('2d'), w = W / dpr;
	g.setTransform(dpr, 0, 0, dpr, 0, 0);
	g.clearRect(0, 0, w, height);
	const [t1, x, y] = scales(w);
	g.font = '600 12px ' + MONO;
	g.textBaseline = 'middle';
	for (const a of actors) {
		g.fillStyle = look.dim;
		g.textAlign = 'left';
		g.fillText('a' + a, 2, y(a));
		const lane = S.lanes.get(a) ?? [];
		lane.forEach((s, i) => {
			const from = Math.max(s.t, t1 - SPAN), to = lane[i + 1]?.t ?? t1;
			if (to < t1 - SPAN) return;
			if (!s.up) { g.fillStyle = look['cut-bg']; g.fillRect(x(from), y(a) - 9, x(to) - x(from), 18); }
			g.strokeStyle = s.up ? look.line : look.cut;
			g.setLineDash(s.up ? [] : [3, 4]);
			g.lineWidth = 1.5;
			g.beginPath(); g.moveTo(x(from), y(a)); g.lineTo(x(to), y(a)); g.stroke();
		});
	}
	g.setLineDash([]);
	g.save();
	g.beginPath(); g.rect(LEFT - 4, 0, w, height); g.clip();
	for (const m of S.messages) if (t1 - m.got < SPAN + 500 && actors.includes(m.from) && actors.includes(m.to)) drawMessage(g, m, x, y);
	g.restore();
	drawRibbon(g, x, TOP + actors.length * LANE + 4, t1, w);
}

function drawMessage(g, m, x, y) {
	const [x0, y0, x1, y1] = [x(m.sent), y(m.from), x(m.got), y(m.to)];
	g.strokeStyle = g.fillStyle = m.lost ? look.cut : hue(m.author);
	g.lineWidth = 1.7;
	if (m.lost) { // as far as half way
		const xm = x1 + 4, ym = y0 + (y1 - y0) * .5;
		g.beginPath(); g.moveTo(x0, y0); g.lineTo(xm, ym);
		g.moveTo(xm - 4, ym - 4); g.lineTo(xm + 4, ym + 4); g.moveTo(xm - 4, ym + 4); g.lineTo(xm + 4, ym - 4); g.stroke();
		return;
	}
	if (m.from !== m.to) {
		g.setLineDash(m.pull ? [4, 3] : []);
		g.beginPath(); g.moveTo(x0, y0); g.lineTo(x1, y1); g.stroke();
		g.setLineDash([]);
		g.beginPath(); g.arc(x1, y1, 2.4, 0, 7); g.fill();
	}
	g.beginPath(); g.arc(x0, y0, 4, 0, 7);
	if (m.kind === 'delete') { g.fillStyle = look.card; g.fill(); g.stroke(); } else g.fill();
}

// drawRibbon paints which verdict held when.
function drawRibbon(g, x, top, t1, w) {
	const color = { converged: look.good, behind: look.warn, partitioned: look.cut, unreachable: look.cut, diverged: look['bad-bg'], stale: look.hatch, connecting: look.hatch };
	g.textAlign = 'left';
	S.ribbon.forEach((r, i) => {
		const from = Math.max(r.t, t1 - SPAN), to = S.ribbon[i + 1]?.t ?? t1;
		if (to < t1 - SPAN) return;
		const width = Math.max(1, x(to) - x(from));
		g.fillStyle = color[r.v];
		g.fillRect(x(from), top, width, RIBBON);
		g.font = '600 10px system-ui, sans-serif';
		if (width > g.measureText(r.v).width + 8) { g.fillStyle = look.card; g.fillText(r.v, x(from) + 4, top + RIBBON / 2 + .5); }
	});
	g.fillStyle = look.dim;
	g.font = '11px system-ui, sans-serif';
	g.textAlign = 'left'; g.fillText('30 s ago', LEFT, top + RIBBON + 9);
	g.textAlign = 'right'; g.fillText('now', w - 6, top + RIBBON + 9);
}

$('lanes').addEventListener('mousemove', e => {
	const w = e.currentTarget.clientWidth, [t1, x, y] = scales(w), tip = $('tip');
	let m = null, dist = 8;
	for (const o of S.messages) {
		if (t1 - o.got > SPAN) continue;
		const [ax, ay, bx, by] = [x(o.sent), y(o.from), x(o.got), y(o.to)];
		const k = Math.max(0, Math.min(1, ((e.offsetX - ax) * (bx - ax) + (e.offsetY - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2 || 1)));
		const d = Math.hypot(e.offsetX - ax - k * (bx - ax), e.offsetY - ay - k * (by - ay));
		if (d < dist) { dist = d; m = o; }
	}
	tip.hidden = !m;
	if (!m) return;
	tip.textContent = m.lost ? `${m.op} ${clock(m.sent)} did not get through to actor ${m.to}` : m.from === m.to ? `${clock(m.sent)} actor ${m.from} made ${m.op}`
		: `${m.n > 1 ? `${m.n} changes from ` : ''}${m.op} → actor ${m.to}, ${span(Math.max(0, m.got - m.sent))}${m.pull ? ' (pulled)' : ''}`;
	tip.style.top = e.offsetY + 14 + 'px';
	tip.style.left = Math.max(0, Math.min(e.offsetX, w - tip.offsetWidth)) + 'px';
});
$('lanes').addEventListener('mouseleave', () => $('tip').hidden = true);

function drawLists() {
	for (const name of ['story', 'log'])
		$(name).replaceChildren(...S[name].slice(0, name === 'log' ? 60 : KEEP).map(l => el('li', {}, el('time', { textContent: clock(l.t) }), l.text)));
}

// ---- one gene

function select(e, row) {
	S.selected = e;
	S.row = row;
	const i = liveIndex(e);
	if (i >= 0) $('at').value = i;
	drawCursor();
	drawGene();
	fetchOrigin(e);
}

// liveIndex returns how many genes of this actor's own list stand before e.
function liveIndex(e) {
	let n = 0;
	for (const x of M.order) {
		if (x === e) return n;
		if (!M.dels[x]) n++;
	}
	return -1;
}

function neighbour(e, step) {
	for (let i = G.cols.indexOf(e) + step; i >= 0 && i < G.cols.length; i += step) if (!M.dels[G.cols[i]]) return G.cols[i];
	return -1;
}

const short = e => `${hex2(M.val[e])} (${M.actorOf[M.author[e]]}.${M.seq[e]})`;
let origin = { e: -1, text: '' };

function drawGene() {
	const e = S.selected, box = $('gene');
	if (e < 0) return;
	const actor = M.actorOf[M.author[e]], d = M.dels[e], row = G.rows[S.row];
	const value = el('span', { className: 'value', textContent: hex2(M.val[e]) });
	value.style.background = hue(actor);
	value.style.color = inkOn(hue(actor));
	const came = S.arrivals.get(M.author[e] + '.' + M.seq[e]);
	const start = came && Math.min(...came.values());
	const arrivals = [...S.actors.values()].filter(a => a.actor !== actor).map(a => {
		if (!holds(a.self ? M.vv : a.vec, M.author[e], M.seq[e])) return `a${a.actor} not yet`;
		const t = came?.get(a.actor);
		return t === undefined ? `a${a.actor} has it` : `a${a.actor} +${span(t - start)}`;
	});
	const [l, r] = [neighbour(e, -1), neighbour(e, 1)];
	const dl = el('dl');
	const put = (k, v) => dl.append(el('dt', { textContent: k }), el('dd', { textContent: v }));
	put('op', `${M.reps[M.author[e]]}.${M.seq[e]}, no. ${num(M.lsn[e])} in this log`);
	put('came', origin.e === e ? origin.text : '…');
	put('between', `${l < 0 ? 'the beginning' : short(l)} and ${r < 0 ? 'the end' : short(r)}`);
	put('reached', arrivals.join('  ') || 'nobody else is there');
	const by = [];
	for (let i = 0; d && i < d.length; i += 3) by.push(`${M.reps[d[i]]}.${d[i + 1]}`);
	put('deleted by', by.join(', ') || '–');
	if (row && row.at === undefined) put(`at a${row.actor}`, MARKS[codeAt(row, e)]);
	box.replaceChildren(el('p', { className: 'title' }, value, 'by', chip(actor), `actor ${actor}`), dl);
}

let asking = 0;
async function fetchOrigin(e) {
	if (origin.e === e) return;
	const ask = ++asking;
	await new Promise(f => setTimeout(f, 120)); // arrow keys pass by quickly
	if (ask !== asking) return;
	try {
		const res = await fetch(`/v1/log?from=${M.lsn[e]}&limit=1`);
		const r = JSON.parse((await res.text()).split('\n')[0]);
		if (ask !== asking) return;
		origin = { e, text: `${clock(Date.parse(r.time), true)} ${r.via === 'local' ? 'made here' : `via ${r.via} from actor ${r.from}`}` };
	} catch {
		origin = { e, text: 'cannot be asked now' };
	}
	if (S.selected === e) drawGene();
}

$('strips').addEventListener('click', e => {
	if (e.target.tagName !== 'CANVAS') return;
	const i = columnAt(e.target, e.offsetX);
	if (i >= 0) select(G.cols[i], +e.target.dataset.row);
});
$('strips').addEventListener('mousemove', e => {
	if (e.target.tagName !== 'CANVAS') return;
	const i = columnAt(e.target, e.offsetX), x = G.cols[i];
	e.target.title = i < 0 ? '' : `gene ${hex2(M.val[x])} by actor ${M.actorOf[M.author[x]]}: ${MARKS[G.codes[+e.target.dataset.row][i]]}`;
});
$('strips').addEventListener('keydown', e => {
	if (e.ctrlKey || e.metaKey || e.altKey) return;
	const i = G.cols.indexOf(S.selected), n = G.cols.length, row = Math.max(0, S.row);
	const go = (col, r) => n && select(G.cols[Math.max(0, Math.min(n - 1, col))], Math.max(0, Math.min(G.rows.length - 1, r)));
	const moves = { ArrowLeft: () => go(i - 1, row), ArrowRight: () => go(i + 1, row), ArrowUp: () => go(Math.max(i, 0), row - 1), ArrowDown: () => go(Math.max(i, 0), row + 1),
		Home: () => go(0, row), End: () => go(n - 1, row), Delete: removeSelected, Backspace: removeSelected };
	if (moves[e.key]) moves[e.key]();
	else if (/^[0-9a-fA-F]$/.test(e.key)) typeHex(e.key);
	else return;
	e.preventDefault();
});

function typeHex(digit) {
	S.typed = (S.typed + digit).slice(-2);
	saySo(`typed ${S.typed}`);
	if (S.typed.length < 2) return;
	const hex = S.typed;
	S.typed = '';
	insertAt(() => S.selected < 0 ? M.live : Math.max(0, liveIndex(S.selected)), hex);
}

// ---- editing

function saySo(text, error) {
	setText($('said'), text);
	$('said').className = error ? 'error' : '';
}

// send does a request; it returns null, or what was wrong.
async function send(method, url, body, headers = {}) {
	try {
		const res = await fetch(url, { method, headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify(body) });
		if (res.ok) return send.reply = await res.json().catch(() => ({})), null;
		const p = await res.json().catch(() => ({}));
		send.status = res.status;
		return `${res.status} ${p.code ?? ''}: ${p.detail ?? res.statusText}${p.hint ? ` (${p.hint})` : ''}`;
	} catch {
		send.status = 0;
		return 'this actor does not answer';
	}
}

// edit makes the body anew for each try: the node refuses an edit of a list
// that has changed meanwhile, as the index might mean another gene.
async function edit(make, done) {
	if (S.at !== null) return saySo('go back to Live to edit', true);
	let problem;
	for (let i = 0; i < 5; i++) {
		const body = make();
		if (!body) return;
		const known = S.verdict && S.verdictPos === M.pos ? { 'If-Match': `"${S.verdict.digest}"` } : {};
		problem = await send('POST', '/v1/edit', body, known);
		if (!problem || send.status !== 412) break;
		await new Promise(f => setTimeout(f, 100));
	}
	if (problem) saySo(problem, true);
	else saySo(`${done}: ${send.reply.ops.join(', ')}`);
}
const insertAt = (index, hex) => edit(() => ({ insert: { at: index(), hex } }), `inserted ${hex}`);
const deleteAt = index => edit(() => {
	const at = index();
	if (at < 0) return saySo('there is no such gene in this actor’s copy', true);
	return { delete: { at, n: 1 } };
}, 'deleted');
function removeSelected() {
	if (S.selected >= 0) deleteAt(() => M.dels[S.selected] ? -1 : liveIndex(S.selected));
}

const atField = () => Number($('at').value);
$('edit').addEventListener('submit', e => {
	e.preventDefault();
	const hex = $('hex').value.trim().toLowerCase();
	if (!/^([0-9a-f]{2})+$/.test(hex)) return saySo('hex: two digits a gene', true);
	insertAt(atField, hex);
});
$('delete').addEventListener('click', () => deleteAt(atField));
$('pause').addEventListener('click', async () => {
	const problem = await send('PUT', '/v1/mutator', { paused: !S.verdict?.paused });
	if (problem) saySo(problem, true);
});
$('cutall').addEventListener('click', () => setLinks('cut'));
$('healall').addEventListener('click', () => setLinks('up'));

// ---- time travel

function travel(at) {
	S.at = at === null || at >= M.pos ? null : Math.max(0, at);
	history.replaceState(null, '', S.at === null ? location.pathname : '#at=' + S.at);
	dirty.strips = true;
}
function drawTime() {
	const t = $('time'), here = S.at ?? M.pos;
	t.disabled = !M.whole || !S.verdict;
	if (+t.max !== M.pos) t.max = M.pos;
	if (+t.value !== here) t.value = here;
	t.setAttribute('aria-valuetext', S.at === null ? 'live' : `op ${here} of ${M.pos}`);
	setText($('moment'), `op ${num(here)} of ${num(M.pos)}`);
	$('live').disabled = S.at === null;
	setText($('live'), S.at === null ? '● Live' : '↺ Live');
	$('insert').disabled = $('delete').disabled = S.at !== null || !S.verdict;
}
$('time').addEventListener('input', e => travel(+e.target.value));
$('live').addEventListener('click', () => travel(null));
const fromHash = () => { const m = /^#at=(\d+)$/.exec(location.hash); return m ? +m[1] : null; };
addEventListener('hashchange', () => { S.at = fromHash(); if (S.at >= M.pos) S.at = null; dirty.strips = true; });

// ---- report

$('report').addEventListener('click', async () => {
	const css = await (await fetch('/app.css')).text();
	const esc = s => s.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
	const file = document.implementation.createHTMLDocument(), from = document.querySelectorAll('canvas'); // loads nothing
	const copy = file.importNode(document.body, true);
	copy.querySelectorAll('canvas').forEach((c, i) => {
		const { clientWidth: width, clientHeight: height } = from[i];
		c.replaceWith(Object.assign(file.createElement('img'), { src: from[i].toDataURL(), width, height, alt: from[i].getAttribute('aria-label') ?? '' }));
	});
	copy.querySelectorAll('script, button, form, input, .skip, .tip, noscript').forEach(x => x.remove());
	const facts = { at: new Date(now()).toISOString(), page: location.href, pos: M.pos, moment: S.at, verdict: S.verdict,
		actors: [...S.actors.values()].map(({ vec, ...a }) => a), genome: list(G.rows.findIndex(r => r.a?.self)), story: S.story, log: S.log };
	const html = `<!doctype html><html lang="en"><meta charset="utf-8"><title>${esc(document.title)} · report</title><style>${css}#verdict{position:static}.lines{max-height:none}</style><body>${copy.innerHTML}
<section><h2>Facts</h2><p class="hint">Saved ${esc(facts.at)} from ${esc(facts.page)}</p><pre class="mono">${esc(JSON.stringify(facts, null, 1))}</pre></section></body></html>`;
	const a = el('a', { href: URL.createObjectURL(new Blob([html], { type: 'text/html' })), download: `crdt-genome-${facts.at.replace(/[:.]/g, '')}.html` });
	a.click();
	setTimeout(() => URL.revokeObjectURL(a.href), 10e3);
});

// list returns what a row shows, as hex.
function list(row) {
	return G.cols.filter((_, i) => row >= 0 && G.codes[row][i] & 1).map(e => hex2(M.val[e])).join('');
}

// ---- the loop

function draw() {
	requestAnimationFrame(draw);
	if (dirty.verdict) { dirty.verdict = false; drawVerdict(); }
	if (dirty.strips && S.actors.size) {
		dirty.strips = false;
		drawStrips();
		drawTime();
		if (S.selected >= 0) drawGene();
	}
	if (dirty.table && S.actors.size) { dirty.table = false; drawTable(); }
	if (dirty.lists) { dirty.lists = false; drawLists(); }
	if (dirty.gene) { dirty.gene = false; drawGene(); }
	const t = performance.now();
	if (S.actors.size && t - (draw.lanesAt ?? 0) > (calm.matches ? 1000 : 66)) { draw.lanesAt = t; drawLanes(); }
}

setInterval(() => { // what changes with time alone
	const t = performance.now();
	dirty.verdict = true;
	if (t - (S.sampledAt ?? 0) >= 1000) {
		S.sampledAt = t;
		for (const a of S.actors.values()) { a.lag.push(a.lacks_ops); if (a.lag.length > HISTORY) a.lag.shift(); }
		for (const lane of S.lanes.values()) while (lane.length > 1 && lane[1].t < now() - SPAN) lane.shift();
		dirty.table = true;
	}
	if (source && t - S.heardAt > SILENCE) { S.heardAt = t; down(); follow(); }
}, 250);

function restyle() {
	readLook();
	document.querySelectorAll('.key').forEach(c => {
		const g = c.getContext('2d');
		g.clearRect(0, 0, c.width, c.height);
		mark(g, +c.dataset.mark, HUES[1], 0, c.width, c.height, 2);
		if (c.dataset.mark === '0') { g.strokeStyle = look.hatch; g.setLineDash([4, 4]); g.strokeRect(1, 1, c.width - 2, c.height - 2); }
	});
	dirty.strips = true;
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', restyle);
addEventListener('resize', () => dirty.strips = true);

globalThis.observatory = { S, G, list, paint: drawStrips, get M() { return M; } }; // for the console, and for tests
S.at = fromHash();
restyle();
load();
draw();
