package store

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"

	"crdt-genome/genome"
	"crdt-genome/store/signed"
)

// A Signing makes an actor sign what it mints, and take of others only what
// their authors have signed. See package signed.
type Signing struct {
	Key    ed25519.PrivateKey
	Roster *signed.Roster
}

// KeyPath returns where an actor's key lies.
func KeyPath(data string, actor genome.ActorID) string {
	return filepath.Join(Dir(data, actor), "sign.key")
}

// Buckets of an actor that signs. They are there only in logs of such actors;
// without them, or damaged, the log is as good as before. All that is in them
// can be had again, but for what others have signed.
//
//	signed  LSN u64 BE      a signed point, of the event that ends there:
//	                        u8 version = 1, u8 flags: bit 0 = cut, u32 LE actor, u32 LE epoch,
//	                        u64 LE seq, 64 bytes signature, u32 LE CRC-32C of key and these
//	chains  replica u64 BE  the sum over its events in segments, to go on from:
//	                        u8 version = 1, state (signed.Chain.AppendState), u32 LE CRC-32C
//
// A cut is a position at which every replica stands at a point that is kept: a
// good place for an answer to end, as nothing before it needs anything behind it,
// and all can be checked. There is one after every commit. When the tail is
// sealed, so many of them stay that no two are more than 4,096 ops or cutBytes
// apart, and for each replica the last point before each of these.
const (
	bucketSigned bucket = "signed"
	bucketChains bucket = "chains"
)

const (
	pointVersion = 1
	pointCut     = 1
	pointLen     = 1 + 1 + 4 + 4 + 8 + ed25519.SignatureSize
	// cutOps and cutBytes bound what lies between two cuts, counted as for
	// Since: what fits into an answer, so that each answer can end at one. What
	// comes at once and is larger is refused.
	cutOps   = maxReadOps
	cutBytes = maxReadBytes - 64<<10
	// signedRoom is what a point and a chain may take on the disk.
	signedRoom = 512
)

// A point is a signed point at its place in the log.
type point struct {
	lsn uint64
	cut bool
	signed.Point
}

func (p *point) put() write {
	key := lsnKey(p.lsn)
	v := []byte{pointVersion, 0}
	if p.cut {
		v[1] = pointCut
	}
	v = binary.LittleEndian.AppendUint32(v, uint32(p.Replica.Actor()))
	v = binary.LittleEndian.AppendUint32(v, uint32(p.Replica.Epoch()))
	v = binary.LittleEndian.AppendUint64(v, p.Seq)
	return write{bucketSigned, key, sumMeta(string(key), append(v, p.Sig[:]...))}
}

// decodePoint returns false for anything that put does not write.
func decodePoint(k, v []byte) (p point, ok bool) {
	if len(k) != 8 || len(v) != pointLen+4 || v[0] != pointVersion || string(sumMeta(string(k), slices.Clone(v[:pointLen]))) != string(v) {
		return p, false
	}
	p.lsn, p.cut = binary.BigEndian.Uint64(k), v[1]&pointCut != 0
	p.Replica = genome.NewReplicaID(genome.ActorID(binary.LittleEndian.Uint32(v[2:])), genome.Epoch(binary.LittleEndian.Uint32(v[6:])))
	p.Seq = binary.LittleEndian.Uint64(v[10:])
	copy(p.Sig[:], v[18:])
	return p, true
}

func putChain(r genome.ReplicaID, c *signed.Chain) write {
	key := binary.BigEndian.AppendUint64(nil, uint64(r))
	return write{bucketChains, key, sumMeta(string(key), c.AppendState([]byte{pointVersion}))}
}

// signing is what an actor that signs knows of points. It is guarded by the
// actor's mutex, and changed by the writer only.
type signing struct {
	Signing
	cluster string
	chains  map[genome.ReplicaID]*signed.Chain // of all that is logged; looked up only

	// points are those of what is not sealed, by position from the last commit
	// back. What is durable never changes: readers may keep it.
	points  []point
	durable int // points that are on the disk
	marked  int // points up to the last cut

	ops, bytes int                       // logged since the last cut
	touched    map[genome.ReplicaID]bool // logged since the last seal; never ranged over
	own        genome.ReplicaID          // minted here and not signed yet; 0: nothing
	ownLSN     uint64                    // its last event
}

func (s *signing) chain(r genome.ReplicaID) *signed.Chain {
	c := s.chains[r]
	if c == nil {
		c = signed.NewChain(s.cluster, r)
		s.chains[r] = c
	}
	return c
}

// before makes a cut if what comes next would be too far from the last one. It
// is called where every replica but our own stands at a point.
func (s *signing) before(ops, bytes int) {
	if s.ops+ops > cutOps || s.bytes+bytes > cutBytes {
		s.cut()
	}
}

// add takes note of op, which was logged and now ends the log at lsn.
func (s *signing) add(op *genome.Op, mint bool, lsn uint64) {
	if mint && s.own != op.Dot.Replica {
		s.signOwn()
		s.own = op.Dot.Replica
	}
	if !s.chain(op.Dot.Replica).Extend(op) {
		panic("store: a logged op does not follow what is signed: " + op.Dot.String())
	}
	if mint {
		s.ownLSN = lsn
	}
	s.ops, s.bytes = s.ops+1, s.bytes+opBytes+len(op.Genes)
	s.touched[op.Dot.Replica] = true
}

// room is what the next commit may write beside ops and the points that come
// with them: if it seals, the chains and points of all who are touched.
func (s *signing) room() int { return (len(s.touched) + 1) * 2 * signedRoom }

// signOwn signs what was minted here.
func (s *signing) signOwn() {
	if s.own != 0 {
		s.points = append(s.points, point{lsn: s.ownLSN, Point: s.chain(s.own).Sign(s.Key)})
		s.own = 0
	}
}

// cut marks the end of the log.
func (s *signing) cut() {
	s.signOwn()
	s.ops, s.bytes = 0, 0
	if fresh := s.points[s.marked:]; len(fresh) > 0 {
		slices.SortFunc(fresh, func(p, q point) int { return int(int64(p.lsn) - int64(q.lsn)) })
		fresh[len(fresh)-1].cut = true
		s.marked = len(s.points)
	}
}

// writes returns what a commit has to write of the points. If it seals entries,
// s holds afterwards what was kept.
func (s *signing) writes(seal bool, entries []entry) (writes []write) {
	s.cut()
	if !seal {
		for i := range s.points[s.durable:] {
			writes = append(writes, s.points[s.durable+i].put())
		}
		return writes
	}
	for i := range s.points[:s.durable] {
		writes = append(writes, write{bucketSigned, lsnKey(s.points[i].lsn), nil})
	}
	for _, p := range thin(entries, s.points) {
		writes = append(writes, p.put())
	}
	met := make(map[genome.ReplicaID]bool) // looked up only
	for i := range entries {
		if r := entries[i].op.Dot.Replica; !met[r] {
			met[r] = true
			writes = append(writes, putChain(r, s.chain(r)))
		}
	}
	return writes
}

// has reports whether there is a point at lsn.
func (s *signing) has(lsn uint64) bool {
	old := s.points[:s.marked]
	i := sort.Search(len(old), func(i int) bool { return old[i].lsn >= lsn })
	return i < len(old) && old[i].lsn == lsn || slices.ContainsFunc(s.points[s.marked:], func(p point) bool { return p.lsn == lsn })
}

// committed says that what writes returned is on the disk.
func (s *signing) committed(seal bool) {
	if seal { // readers may still have the old ones
		s.points, s.marked = nil, 0
		clear(s.touched)
	}
	s.durable = len(s.points)
}

// thin returns the points that are kept when entries, of which points are, are
// sealed.
func thin(entries []entry, points []point) (kept []point) {
	start, cut := 0, -1 // the first point that is not decided on; the last cut behind it
	ops, bytes := 0, 0  // since the last cut that is kept
	var at struct{ ops, bytes, next int }
	keep := func() {
		kept = append(kept, lastPoints(points[start:cut+1])...)
		start, cut = cut+1, -1
		ops, bytes = ops-at.ops, bytes-at.bytes
	}
	for i := range entries {
		e := &entries[i]
		ops, bytes = ops+1, bytes+e.bytes()
		if cut >= 0 && (ops > cutOps || bytes > cutBytes) {
			keep()
		}
		for ; at.next < len(points) && points[at.next].lsn <= e.last(); at.next++ {
			if points[at.next].cut {
				cut, at.ops, at.bytes = at.next, ops, bytes
			}
		}
	}
	if cut >= 0 {
		keep()
	}
	return kept
}

// lastPoints returns the last point of each replica; the last of all is a cut,
// and nothing else is one any more.
func lastPoints(points []point) (last []point) {
	met := make(map[genome.ReplicaID]bool) // looked up only
	for _, p := range slices.Backward(points) {
		if !met[p.Replica] {
			met[p.Replica] = true
			p.cut = len(last) == 0
			last = append(last, p)
		}
	}
	slices.Reverse(last)
	return last
}

// openSigning reads what the log has of signatures. What it has not is made
// again from the ops; and what this actor has minted while it did not sign, it
// signs now: it vouches for its own log.
func (a *Actor) openSigning() error {
	if a.cfg.Sign == nil {
		return nil
	}
	s := &signing{Signing: *a.cfg.Sign, cluster: a.cfg.Cluster, chains: make(map[genome.ReplicaID]*signed.Chain), touched: make(map[genome.ReplicaID]bool)}
	err := a.disk.ascend(bucketChains, func(k, v []byte) error {
		n := len(v) - 4
		if len(k) != 8 || n < 1 || v[0] != pointVersion || string(sumMeta(string(k), slices.Clone(v[:n]))) != string(v) {
			return nil // it is made again
		}
		r := genome.ReplicaID(binary.BigEndian.Uint64(k))
		if c := signed.NewChain(s.cluster, r); c.Restore(v[1:n]) == nil {
			s.chains[r] = c
		}
		return nil
	})
	if err != nil {
		return err
	}
	writes, err := a.signSealed(s)
	if err != nil {
		return err
	}
	err = a.pointsFrom(a.x.sealedEnd()+1, a.x.end(), func(p point) { s.points = append(s.points, p) })
	if err != nil {
		return err
	}
	s.durable, s.marked = len(s.points), len(s.points)
	for i := range a.x.recent {
		e := &a.x.recent[i]
		s.add(&e.op, e.op.Dot.Replica.Actor() == a.cfg.Actor && !s.covers(&e.op), e.last())
	}
	s.cut()
	for i := range s.points[s.durable:] {
		writes = append(writes, s.points[s.durable+i].put())
	}
	if a.sign = s; len(writes) == 0 {
		return nil
	}
	if err := a.disk.reserve(room(len(writes) * signedRoom)); err != nil {
		return err
	}
	// Later ones are appended, so that they stay in order.
	slices.SortFunc(s.points, func(p, q point) int { return int(int64(p.lsn) - int64(q.lsn)) })
	s.durable = len(s.points)
	return a.disk.commit(writes)
}

// covers reports whether a point of the unsealed end says something of op.
func (s *signing) covers(op *genome.Op) bool {
	for i := range slices.Backward(s.points[:s.durable]) {
		if p := &s.points[i]; p.Replica == op.Dot.Replica {
			return p.Seq >= op.Last()
		}
	}
	return false
}

// signSealed brings the chains up to the end of the segments. That is where
// they are, unless the log was written without signatures, or repaired.
func (a *Actor) signSealed(s *signing) (writes []write, err error) {
	stale := false
	for _, r := range a.x.actors {
		held := a.x.sealedHead(r).Seq
		if s.chain(r).Seq() > held { // of another log
			delete(s.chains, r)
		}
		stale = stale || s.chain(r).Seq() < held
	}
	if !stale {
		return nil, nil
	}
	for i := range a.x.segs {
		v, err := a.cache.get(&a.x.segs[i])
		if err != nil {
			return nil, err
		}
		v.each(func(_ int, e entry) bool {
			if r := e.op.Dot.Replica; e.op.Last() > s.chain(r).Seq() {
				s.before(1, e.bytes())
				s.add(&e.op, r.Actor() == a.cfg.Actor, e.last())
			}
			return true
		})
	}
	s.cut()
	for i := range s.points {
		writes = append(writes, s.points[i].put())
	}
	s.points, s.marked = nil, 0
	clear(s.touched)
	for _, r := range a.x.actors {
		if c := s.chain(r); c.Seq() > 0 {
			writes = append(writes, putChain(r, c))
		}
	}
	return writes, nil
}

// pointsFrom calls fn with the points on the disk from one position to another.
// Those that are damaged are left out: others will come.
func (a *Actor) pointsFrom(from, to uint64, fn func(point)) error {
	err := a.disk.ascendFrom(bucketSigned, lsnKey(from), func(k, v []byte) error {
		p, ok := decodePoint(k, v)
		if ok && p.lsn > to {
			return errEnough
		}
		if ok {
			fn(p)
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// checkSigning refuses a key that the others would refuse.
func (c *Config) checkSigning() error {
	if c.Sign == nil {
		return nil
	}
	public, ok := c.Sign.Key.Public().(ed25519.PublicKey)
	if !ok || c.Sign.Roster == nil {
		return errors.New("signing needs a key and a roster")
	}
	if !c.Sign.Roster.Has(c.Actor, public) {
		return &NotInRosterError{Line: signed.RosterLine(c.Actor, public)}
	}
	return nil
}

// A NotInRosterError says that the roster lacks the actor's own key: nobody
// would believe it.
type NotInRosterError struct{ Line string } // that is missing

func (e *NotInRosterError) Error() string {
	return fmt.Sprintf("the roster has not the key of this actor: %s", e.Line)
}
