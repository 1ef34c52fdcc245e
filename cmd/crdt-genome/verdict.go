package main

import (
	"fmt"
	"slices"
	"strings"

	"crdt-genome/genome"
)

// The three verdicts, as words that scripts grep for.
const (
	wordConverged = "CONVERGED"
	wordBehind    = "BEHIND"
	wordDiverged  = "DIVERGED"
)

var exitOfWord = map[string]int{wordConverged: exitOK, wordBehind: exitUndecided, wordDiverged: exitNo}

// A member is one of the replicas to be judged: a view, or why there is none.
type member struct {
	name string // "actor 2"
	view view
	err  error
}

// A judgement is what comparing members gave.
type judgement struct {
	word  string
	equal int // members that hold the same as most others do
	of    int
	ops   uint64 // of all members together
	genes int    // of the equal ones
	// The digest of the equal ones.
	digest genome.Digest
	all    genome.Version // what any member holds
	common genome.Version // what every reachable member holds
	lagged []string       // who lacks what, or does not answer
	worst  string         // the one that lacks most, short
	pair   [2]int         // if diverged: two that hold the same ops
}

// judge compares members. It is CONVERGED only if every one answered and all
// hold the same ops and the same genome; DIVERGED if two hold the same ops but
// not the same genome.
func judge(members []member) judgement {
	j := judgement{word: wordConverged, of: len(members)}
	groups := map[genome.Digest][]int{} // by vector and digest
	byVector := map[uint64]int{}        // some member with that vector
	first := true
	for i, m := range members {
		if m.err != nil {
			j.word = wordBehind
			continue
		}
		v := m.view.version
		j.all = j.all.Merge(v)
		if j.common = j.common.Common(v); first {
			j.common, first = v, false
		}
		key := m.view.digest ^ genome.Digest(v.Hash())
		groups[key] = append(groups[key], i)
	}
	j.ops = j.all.Ops()
	j.pickLargest(members, groups)
	if j.equal < j.of {
		j.word = wordBehind
	}
	for i, m := range members {
		if m.err != nil {
			continue
		}
		other, ok := byVector[m.view.version.Hash()]
		if ok && members[other].view.digest != m.view.digest && members[other].view.version.Equal(m.view.version) {
			j.word, j.pair = wordDiverged, [2]int{other, i}
		}
		if !ok {
			byVector[m.view.version.Hash()] = i
		}
	}
	j.tellLagged(members)
	return j
}

// pickLargest notes the largest group of equal members; of groups of one size
// the one with the most ops.
func (j *judgement) pickLargest(members []member, groups map[genome.Digest][]int) {
	var best []int
	for _, g := range groups {
		a, b := len(g), len(best)
		if a == b {
			a, b = int(members[g[0]].view.version.Ops()), int(members[best[0]].view.version.Ops())
			if a == b { // the order of a map must not show
				a, b = best[0], g[0]
			}
		}
		if a > b {
			best = g
		}
	}
	if len(best) > 0 {
		v := members[best[0]].view
		j.equal, j.genes, j.digest = len(best), v.genes, v.digest
	}
}

// tellLagged fills in who lacks what of the ops that any member holds.
func (j *judgement) tellLagged(members []member) {
	n := newNames(j.all)
	var most uint64
	var whats []string // what is to be said, in the order of the members
	who := map[string][]string{}
	say := func(name, what string) {
		if who[what] == nil {
			whats = append(whats, what)
		}
		who[what] = append(who[what], name)
	}
	for _, m := range members {
		if m.err != nil {
			say(m.name, "is unreachable ("+shortWhy(m.err)+")")
			continue
		}
		lacks := m.view.version.Lacks(j.all)
		if ops := countOps(lacks); ops > 0 {
			say(m.name, fmt.Sprintf("lacks %s: %s", plural(ops, "op"), spans(n, lacks)))
			if ops > most {
				most, j.worst = ops, fmt.Sprintf("a%d lacks %s (%s)", m.view.actor, thousands(ops), spans(n, lacks))
			}
		}
	}
	for _, what := range whats {
		j.lagged = append(j.lagged, together(who[what], what))
	}
}

// together says of several members what holds for each: "actors 0, 1 lack …".
func together(names []string, what string) string {
	if len(names) == 1 {
		return names[0] + " " + what
	}
	var numbers []string
	for _, name := range names {
		if number, ok := strings.CutPrefix(name, "actor "); ok {
			numbers = append(numbers, number)
		}
	}
	all := strings.Join(names, ", ")
	if len(numbers) == len(names) {
		all = "actors " + strings.Join(numbers, ", ")
	}
	verb, rest, _ := strings.Cut(what, " ")
	return all + " " + map[string]string{"lacks": "lack", "is": "are"}[verb] + " " + rest
}

func countOps(ranges []genome.Range) (n uint64) {
	for _, r := range ranges {
		n += r.To - r.From + 1
	}
	return n
}

// spans writes the first few ranges.
func spans(n names, ranges []genome.Range) string {
	var out []string
	for _, r := range ranges[:min(len(ranges), 5)] {
		out = append(out, n.span(r))
	}
	if len(ranges) > 5 {
		out = append(out, fmt.Sprintf("… %d more", len(ranges)-5))
	}
	return strings.Join(out, " ")
}

// shortWhy is the reason of an error of ours, without what stands around it.
func shortWhy(err error) string {
	s := classify(err).msg
	if i := strings.LastIndex(s, ": "); i >= 0 {
		s = s[i+2:]
	}
	return s
}

// sentence says in words what follows the verdict.
func (j *judgement) sentence() string {
	switch j.word {
	case wordConverged:
		return fmt.Sprintf("%d of %d hold the same %s and the same %s", j.equal, j.of, plural(j.ops, "op"), plural(uint64(j.genes), "gene"))
	case wordBehind:
		some := slices.Clone(j.lagged[:min(len(j.lagged), 4)])
		if len(j.lagged) > 4 {
			some = append(some, fmt.Sprintf("and %d more", len(j.lagged)-4))
		}
		return fmt.Sprintf("%d of %d equal; %s", j.equal, j.of, strings.Join(some, "; "))
	}
	return "same ops, other genome"
}

// nameMembers gives members the names of their actors where these tell them
// apart, else that of where they were read.
func nameMembers(members []member) {
	seen := map[genome.ActorID]int{}
	for _, m := range members {
		if m.err == nil {
			seen[m.view.actor]++
		}
	}
	for i := range members {
		if m := &members[i]; m.err == nil && seen[m.view.actor] == 1 {
			m.name = fmt.Sprintf("actor %d", m.view.actor)
		} else {
			m.name = m.view.where
		}
	}
}
