//go:build linux

package netlab

import (
	"fmt"
	"slices"
	"strings"
)

// faults is all that is wrong with a network at a time.
type faults struct {
	cut  map[[2]int]bool // from, to: no packet arrives
	loss int             // percent of the packets that arrive nowhere
	down map[int]bool    // the link of that host is pulled
	slow map[int]string  // what that host sends is limited: "64kbit"
}

// Cut drops every packet from each host of from to each host of to, that way
// only.
func (w *World) Cut(from, to []int) error {
	return w.change(func(f *faults) {
		for _, a := range from {
			for _, b := range to {
				if a != b {
					f.cut[[2]int{a, b}] = true
				}
			}
		}
	})
}

// Split drops every packet between the hosts of a and all others.
func (w *World) Split(a []int) error {
	var b []int
	for i := range w.hosts {
		if !slices.Contains(a, i) {
			b = append(b, i)
		}
	}
	if err := w.Cut(a, b); err != nil {
		return err
	}
	return w.Cut(b, a)
}

// Lose drops that share of the packets, at random, wherever they arrive.
func (w *World) Lose(percent int) error {
	return w.change(func(f *faults) { f.loss = percent })
}

// Pull takes the cable of host i out.
func (w *World) Pull(i int) error {
	return w.change(func(f *faults) { f.down[i] = true })
}

// Slow limits what host i sends, to a rate as tc writes it: "64kbit".
func (w *World) Slow(i int, rate string) error {
	return w.change(func(f *faults) { f.slow[i] = rate })
}

// Heal ends all faults.
func (w *World) Heal() error {
	return w.change(func(f *faults) { *f = faults{} })
}

// change puts the changed faults in place. When it returns they all are.
func (w *World) change(edit func(*faults)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.faults
	f := faults{cut: map[[2]int]bool{}, loss: was.loss, down: map[int]bool{}, slow: map[int]string{}}
	for k := range was.cut {
		f.cut[k] = true
	}
	for k := range was.down {
		f.down[k] = true
	}
	for k, v := range was.slow {
		f.slow[k] = v
	}
	edit(&f)
	w.faults = f
	for i := range w.hosts {
		if err := w.filter(i, was); err != nil {
			return err
		}
		if err := w.link(i, was); err != nil {
			return err
		}
	}
	return nil
}

// filter replaces the rules of host i at once, if they have changed.
func (w *World) filter(i int, was faults) error {
	rules := w.rules(i, w.faults)
	if rules == w.rules(i, was) {
		return nil
	}
	_, err := run(rules, w.Command(i, []string{"nft", "-f", "-"})...)
	return err
}

func (w *World) rules(i int, f faults) string {
	var b strings.Builder
	b.WriteString("add table inet lab\nflush table inet lab\ntable inet lab {\n chain in {\n  type filter hook input priority 0;\n")
	for from := range w.hosts {
		if f.cut[[2]int{from, i}] {
			fmt.Fprintf(&b, "  iifname eth0 ip saddr %v drop\n", w.IP(from))
		}
	}
	if f.loss > 0 {
		fmt.Fprintf(&b, "  iifname eth0 numgen random mod 100 < %d drop\n", f.loss)
	}
	b.WriteString(" }\n}\n")
	return b.String()
}

// link brings cable and rate of host i to what they shall be.
func (w *World) link(i int, was faults) error {
	f := w.faults
	if f.down[i] != was.down[i] {
		state := "up"
		if f.down[i] {
			state = "down"
		}
		if err := batch(w.sw(), fmt.Sprintf("link set p%d %s", i, state)); err != nil {
			return err
		}
	}
	if f.slow[i] == was.slow[i] {
		return nil
	}
	args := []string{"tc", "-n", w.host(i), "qdisc", "del", "dev", "eth0", "root"}
	if f.slow[i] != "" {
		args = []string{"tc", "-n", w.host(i), "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", f.slow[i], "burst", "4kb", "latency", "400ms"}
	}
	_, err := run("", args...)
	return err
}

// Apart reports whether hosts a and b cannot exchange a word: a packet is
// dropped one way or the other, or a cable is out.
func (w *World) Apart(a, b int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.faults
	return f.cut[[2]int{a, b}] || f.cut[[2]int{b, a}] || f.down[a] || f.down[b]
}
