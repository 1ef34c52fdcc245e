package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A fault is one thing that run does to its actors on purpose.
type fault struct {
	kind   string // kill, pause or cut
	actors []int  // kill, pause: whom
	groups [][]int
	at     time.Duration // since all were up
	lasts  time.Duration
}

// faultLasts is how long a fault lasts that says nothing of it.
var faultLasts = map[string]time.Duration{"kill": time.Second, "pause": 5 * time.Second, "cut": 10 * time.Second}

const faultsHelp = `--faults takes steps separated by ";", each KIND WHO at TIME [for DURATION]:
  kill 1,2 at 18s            kill -9 actors 1 and 2, start them again 1 s later
  pause 3 at 5s for 10s      freeze actor 3 as a machine without power is frozen
  cut 0,1,2|3,4 at 5s        no request passes between the two groups for 10 s`

// parseFaults reads --faults, in the order of time.
func parseFaults(spec string, count int) ([]fault, error) {
	var all []fault
	for step := range strings.SplitSeq(spec, ";") {
		words := strings.Fields(step)
		if len(words) == 0 {
			continue
		}
		f, err := parseFault(words, count)
		if err != nil {
			return nil, usageError(faultsHelp, "--faults %q: %v", strings.Join(words, " "), err)
		}
		all = append(all, f)
	}
	slices.SortStableFunc(all, func(a, b fault) int { return cmp.Compare(a.at, b.at) })
	return all, nil
}

func parseFault(words []string, count int) (f fault, err error) {
	f.kind = words[0]
	f.lasts = faultLasts[f.kind]
	switch {
	case f.lasts == 0:
		return f, fmt.Errorf("%q is no kind of fault: kill, pause or cut", f.kind)
	case len(words) != 4 && len(words) != 6, words[2] != "at", len(words) == 6 && words[4] != "for":
		return f, fmt.Errorf("want %s WHO at TIME [for DURATION]", f.kind)
	}
	if f.at, err = parsePositive(words[3]); err != nil {
		return f, err
	}
	if len(words) == 6 {
		if f.lasts, err = parsePositive(words[5]); err != nil {
			return f, err
		}
	}
	seen := map[int]bool{}
	for group := range strings.SplitSeq(words[1], "|") {
		actors, err := parseActors(group, count, seen)
		if err != nil {
			return f, err
		}
		f.groups, f.actors = append(f.groups, actors), append(f.actors, actors...)
	}
	if (f.kind == "cut") != (len(f.groups) > 1) {
		if f.kind == "cut" {
			return f, fmt.Errorf("cut takes two groups or more, written 0,1|2")
		}
		return f, fmt.Errorf("%s takes actors, not groups: 0,1,2", f.kind)
	}
	return f, nil
}

func parsePositive(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf(`%q is not a duration such as "5s"`, s)
	}
	return d, nil
}

// parseActors reads "0,3-5"; an actor must be in one group only.
func parseActors(s string, count int, seen map[int]bool) (actors []int, err error) {
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, ok := strings.Cut(part, "-")
		if !ok {
			hi = lo
		}
		first, err1 := strconv.Atoi(lo)
		last, err2 := strconv.Atoi(hi)
		if err1 != nil || err2 != nil || first < 0 || last < first || last >= count {
			return nil, fmt.Errorf("%q does not name actors 0..%d", part, count-1)
		}
		for i := first; i <= last; i++ {
			if seen[i] {
				return nil, fmt.Errorf("actor %d is named twice", i)
			}
			seen[i] = true
			actors = append(actors, i)
		}
	}
	return actors, nil
}

// groupNames writes groups as "{0,1} {2}".
func groupNames(groups [][]int) string {
	var out []string
	for _, g := range groups {
		var names []string
		for _, i := range g {
			names = append(names, strconv.Itoa(i))
		}
		out = append(out, "{"+strings.Join(names, ",")+"}")
	}
	return strings.Join(out, " ")
}
