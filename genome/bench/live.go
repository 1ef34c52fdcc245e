package bench

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"crdt-genome/genome"
	"crdt-genome/genome/internal/list"
)

// A Live is a session of several people who write at the same time: what each
// does, and when each hears of what the others did.
type Live struct {
	Name   string
	Agents int
	Steps  []Step
	Edits  []Edit
	Text   []byte
	End    []byte

	local, heard int // steps of each kind
}

// A Step is a stretch of edits, Edits[From:To], that an agent makes itself, or
// hears of.
type Step struct {
	Agent    uint32
	Heard    bool
	From, To uint32
}

// ReadLive reads a concurrent trace in the JSON form of josephg/editing-traces
// ({kind, endContent, numAgents, txns:[{parents, agent, patches}]}), gzipped
// or not. The positions of a transaction refer to the text that its parents
// made together, so its agent must have heard of exactly these; an agent who
// worked on two branches at once is refused. In the end everybody hears of
// everything.
func ReadLive(name string, r io.Reader) (*Live, error) {
	data, err := readAll(r)
	if err != nil {
		return nil, fmt.Errorf("read trace %s: %w", name, err)
	}
	var file liveFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("read trace %s: %w", name, err)
	}
	if file.Kind != "concurrent" || file.NumAgents < 1 || file.NumAgents > maxAgents {
		return nil, fmt.Errorf("read trace %s: not a concurrent trace of 1 to %d agents", name, maxAgents)
	}
	l := &Live{Name: name, Agents: file.NumAgents, End: []byte(file.EndContent)}
	if err := l.schedule(file.Txns); err != nil {
		return nil, fmt.Errorf("read trace %s: %w", name, err)
	}
	return l, nil
}

// maxAgents bounds the agents of a concurrent trace.
const maxAgents = 64

type liveFile struct {
	Kind       string
	EndContent string
	NumAgents  int
	Txns       []liveTxn
}

type liveTxn struct {
	Parents []int
	Agent   int
	Patches [][3]any
}

// schedule orders what every agent does and hears. Versions are how many
// transactions of each agent are known.
func (l *Live) schedule(txns []liveTxn) error {
	var (
		versions = make([][]int, len(txns)) // with the transaction itself
		states   = make([][]int, l.Agents)
		authored = make([][]Step, l.Agents)
	)
	for i := range states {
		states[i] = make([]int, l.Agents)
	}
	for i, t := range txns {
		if t.Agent < 0 || t.Agent >= l.Agents {
			return fmt.Errorf("transaction %d: no agent %d", i, t.Agent)
		}
		at := make([]int, l.Agents)
		for _, p := range t.Parents {
			if p < 0 || p >= i {
				return fmt.Errorf("transaction %d: parent %d is not before it", i, p)
			}
			for a, n := range versions[p] {
				at[a] = max(at[a], n)
			}
		}
		if err := l.hear(t.Agent, states[t.Agent], at, authored); err != nil {
			return fmt.Errorf("transaction %d: %w", i, err)
		}
		step := Step{Agent: uint32(t.Agent), From: uint32(len(l.Edits))}
		for _, p := range t.Patches {
			e, ins, err := patch(p)
			if err != nil {
				return fmt.Errorf("transaction %d: %w", i, err)
			}
			e.Off, e.Ins = uint32(len(l.Text)), uint32(len(ins))
			l.Edits, l.Text = append(l.Edits, e), append(l.Text, ins...)
		}
		step.To = uint32(len(l.Edits))
		l.Steps = append(l.Steps, step)
		l.local++
		authored[t.Agent] = append(authored[t.Agent], step)
		states[t.Agent][t.Agent]++
		versions[i] = slices.Clone(states[t.Agent])
	}
	all := make([]int, l.Agents)
	for a := range all {
		all[a] = len(authored[a])
	}
	for a := range states {
		if err := l.hear(a, states[a], all, authored); err != nil {
			return err
		}
	}
	return nil
}

// hear lets an agent hear of what it lacks to be at a version, in the order of
// the trace: nothing comes before what it builds on.
func (l *Live) hear(agent int, state, at []int, authored [][]Step) error {
	heard := len(l.Steps)
	for a, n := range at {
		if state[a] > n {
			return errors.New("its agent had heard of more than its parents say")
		}
		for _, s := range authored[a][state[a]:n] {
			l.Steps = append(l.Steps, Step{uint32(agent), true, s.From, s.To})
			l.heard++
		}
		state[a] = n
	}
	slices.SortFunc(l.Steps[heard:], func(s, t Step) int { return cmp.Compare(s.From, t.From) })
	return nil
}

// LiveCases returns the cases of a session: every edit is made on its agent's
// copy, by index, and applied to each other agent's copy, decoded and one op at a
// time, when the trace says that this agent heard of it. "One copy" is what the
// first agent's process has to do: its own edits local, all others remote. The
// others do the work of all copies in one run: of a session of two, each edit
// once local and once remote. Ops are the edits made, each counted once.
func LiveCases(l *Live) []Case {
	group := l.Name
	name := fmt.Sprintf("live, %d agents, %d edits made and %d heard of", l.Agents, l.local, l.heard)
	return []Case{
		{group, "list live, one copy", len(l.Edits), Timed, l.prepareOne, checkText(l.End)},
		{group, "lists " + name, len(l.Edits), Timed, ready(l.onLists), l.check},
		{group, "genomes " + name, len(l.Edits), Timed, ready(l.onGenomes), l.check},
	}
}

func (l *Live) check(outcome any) (int, error) {
	for _, copy := range outcome.([]any) {
		if _, err := checkText(l.End)(copy); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func (l *Live) id(agent int) genome.ReplicaID { return genome.NewReplicaID(genome.ActorID(agent), 1) }

// A liveOp is an op of an edit on bare lists, which all number replicas alike.
type liveOp struct {
	flatOp
	rep uint32
}

// A liveRun is one run on bare lists: what each edit became.
type liveRun struct {
	*Live
	ops   []liveOp
	first []int // op of each edit, and one more
}

func (l *Live) newRun() *liveRun {
	return &liveRun{l, make([]liveOp, 0, 2*len(l.Edits)), make([]int, len(l.Edits)+1)}
}

// newList returns an empty list that numbers agent i as replica i+1.
func (l *Live) newList() *list.List {
	to := list.New()
	for i := range l.Agents {
		to.Replica(uint64(l.id(i)))
	}
	return to
}

// hear applies the ops of a step.
func (r *liveRun) hear(to *list.List, s Step) {
	for i := r.first[s.From]; i < r.first[s.To]; i++ {
		if o := &r.ops[i]; o.delete {
			to.Delete(o.ref, o.n)
		} else {
			to.Insert(o.rep, o.ref, o.side, r.Text[o.from:o.to])
		}
	}
}

// do makes the edits of a step.
func (r *liveRun) do(to *list.List, s Step) {
	emit := func(ref list.Ref, n uint32, _ bool) {
		r.ops = append(r.ops, liveOp{flatOp{delete: true, ref: ref, n: n}, 0})
	}
	for i := s.From; i < s.To; i++ {
		r.first[i] = len(r.ops)
		e := r.Edits[i]
		if e.Del > 0 {
			to.DeleteAt(int(e.Pos), int(e.Del), emit)
		}
		if e.Ins > 0 {
			ref, side := to.InsertAt(s.Agent+1, int(e.Pos), r.Text[e.Off:e.Off+e.Ins])
			r.ops = append(r.ops, liveOp{flatOp{ref: ref, side: side, from: e.Off, to: e.Off + e.Ins}, s.Agent + 1})
		}
		r.first[i+1] = len(r.ops)
	}
}

func (l *Live) onLists() any { _, copies := l.all(); return copies }

// all runs the session on all copies.
func (l *Live) all() (*liveRun, any) {
	r := l.newRun()
	lists := make([]*list.List, l.Agents)
	for i := range lists {
		lists[i] = l.newList()
	}
	for _, s := range l.Steps {
		if s.Heard {
			r.hear(lists[s.Agent], s)
		} else {
			r.do(lists[s.Agent], s)
		}
	}
	return r, anySlice(lists)
}

// prepareOne makes the others' ops, for a run of the first agent's copy alone.
func (l *Live) prepareOne() (func() any, error) {
	others, _ := l.all()
	var steps []Step
	for _, s := range l.Steps {
		if s.Agent == 0 {
			steps = append(steps, s)
		}
	}
	return func() any {
		own := l.newRun()
		to := l.newList()
		for _, s := range steps {
			if s.Heard {
				others.hear(to, s)
			} else {
				own.do(to, s)
			}
		}
		return to
	}, nil
}

func (l *Live) onGenomes() any {
	genomes := make([]*genome.Genome, l.Agents)
	for i := range genomes {
		genomes[i] = newGenome(l.id(i))
	}
	ops := make([]genome.Op, 0, 2*len(l.Edits))
	first := make([]int, len(l.Edits)+1) // op of each edit
	for _, s := range l.Steps {
		g := genomes[s.Agent]
		if s.Heard {
			for _, op := range ops[first[s.From]:first[s.To]] {
				if res, err := g.Apply(op); err != nil || res.Parked {
					panic(fmt.Sprint("bench: op not applied: ", err))
				}
			}
			continue
		}
		for i := s.From; i < s.To; i++ {
			first[i] = len(ops)
			e := l.Edits[i]
			if e.Del > 0 {
				out, _ := g.Delete(int(e.Pos), int(e.Del))
				ops = append(ops, out...)
			}
			if e.Ins > 0 {
				op, _ := g.Insert(int(e.Pos), l.Text[e.Off:e.Off+e.Ins])
				ops = append(ops, op)
			}
			first[i+1] = len(ops)
		}
	}
	return anySlice(genomes)
}

func anySlice[T any](s []T) (out []any) {
	for _, v := range s {
		out = append(out, v)
	}
	return out
}
