package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"crdt-genome/cmd/internal/fleet"
	"crdt-genome/genome"
)

// A runner watches the actors of one run. It has one goroutine; what it asks
// the actors it asks of all at once, and waits.
type runner struct {
	a       *app
	o       runOptions
	fleet   *fleet.Fleet
	started time.Time        // when all were up
	down    map[int]downtime // actors that a fault has taken away
	cut     [][]int          // groups between which nothing passes; nil: all is well
	healAt  time.Duration    // … until then
	healed  time.Time        // when the last fault ended; zero: all is said
	what    string           // … and what it was

	reported map[int]error // ends that nobody asked for, told already
	lastLine string        // the state of the last line: a change is told at once
}

// A downtime says when an actor comes back, and from what.
type downtime struct {
	until  time.Duration // since runner.started
	paused bool          // it lives, but is frozen
}

const (
	// pollEvery is how often actors are looked at between two lines.
	pollEvery = 250 * time.Millisecond
	// askWithin bounds a look at an actor: one that takes longer counts as
	// unreachable in that line.
	askWithin = 2 * time.Second
	// respawnAfter is the pause before an actor is started that ended by itself.
	respawnAfter = time.Second
)

func (r *runner) run(ctx context.Context, faults []fault) error {
	if err := r.fleet.StartAll(ctx); err != nil {
		return startError(err)
	}
	r.started = time.Now()
	if err := r.printStart(ctx); err != nil {
		return err
	}
	if err := r.watch(ctx, faults); err != nil {
		return err
	}
	// What follows is done to its end also after a Ctrl-C: that is how a run
	// without --for ends. A second Ctrl-C ends the process.
	return r.finish(context.WithoutCancel(ctx))
}

// watch goes on until it is time to stop.
func (r *runner) watch(ctx context.Context, faults []fault) error {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	nextLine := r.o.every
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		}
		for len(faults) > 0 && faults[0].at <= r.elapsed() {
			if err := r.begin(ctx, faults[0]); err != nil {
				return err
			}
			faults = faults[1:]
		}
		if err := r.recover(ctx, r.elapsed()); err != nil {
			return err
		}
		r.noticeDeaths()
		members := r.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s := r.summary(members, judge(members))
		due := r.elapsed() >= nextLine
		if due {
			nextLine = r.elapsed().Truncate(r.o.every) + r.o.every
		}
		if due || s.state != r.lastLine || s.healed {
			if err := r.printSummary(s); err != nil {
				return err
			}
		}
		if r.o.runFor > 0 && r.elapsed() >= r.o.runFor || r.o.ops > 0 && s.Ops >= r.o.ops {
			return nil
		}
	}
}

func (r *runner) elapsed() time.Duration { return time.Since(r.started) }

// look asks every actor what it holds.
func (r *runner) look(ctx context.Context) []member {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	members := make([]member, r.o.count)
	var wg sync.WaitGroup
	for i, actor := range r.fleet.Actors() {
		wg.Go(func() {
			s := &serverSource{name: actor.URL(), client: actor.Client()}
			v, err := s.view(ctx)
			members[i] = member{name: fmt.Sprintf("actor %d", i), view: v, err: err}
		})
	}
	wg.Wait()
	return members
}

// begin does a fault to the actors.
func (r *runner) begin(ctx context.Context, f fault) error {
	if f.kind == "cut" {
		r.cut, r.healAt = f.groups, r.elapsed()+f.lasts
		r.setLinks(ctx, r.cut, true)
		return nil
	}
	for _, i := range f.actors {
		actor := r.fleet.Actor(i)
		if _, down := r.down[i]; down || !actor.Running() {
			continue
		}
		r.down[i] = downtime{until: r.elapsed() + f.lasts, paused: f.kind == "pause"}
		end := actor.Kill
		if f.kind == "pause" {
			end = func() error { return actor.Signal(syscall.SIGSTOP) }
		}
		if err := end(); err != nil {
			return err
		}
	}
	return nil
}

// recover ends what is to end at now.
func (r *runner) recover(ctx context.Context, now time.Duration) error {
	for i, d := range r.down {
		if d.until > now {
			continue
		}
		delete(r.down, i)
		if d.paused {
			if err := r.fleet.Actor(i).Signal(syscall.SIGCONT); err != nil {
				return err
			}
			r.healed, r.what = time.Now(), fmt.Sprintf("a%d went on", i)
			continue
		}
		if err := r.fleet.Actor(i).Start(ctx); err != nil {
			if ctx.Err() != nil {
				return nil // it is over anyway
			}
			return startError(err)
		}
		r.healed, r.what = time.Now(), fmt.Sprintf("a%d was started again", i)
	}
	if r.cut != nil && r.healAt <= now {
		groups := r.cut
		r.cut = nil
		r.healed, r.what = time.Now(), "the heal"
		r.setLinks(ctx, groups, false)
	}
	return nil
}

// setLinks cuts or heals every link between the groups, from both sides. An
// actor that does not answer is left out: the other side's word is enough.
func (r *runner) setLinks(ctx context.Context, groups [][]int, cut bool) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var wg sync.WaitGroup
	for i, some := range groups {
		for j, others := range groups {
			if i == j {
				continue
			}
			for _, a := range some {
				client := r.fleet.Actor(a).Client()
				wg.Go(func() {
					for _, b := range others {
						_ = client.Link(ctx, genome.ActorID(b), cut)
					}
				})
			}
		}
	}
	wg.Wait()
}

// noticeDeaths tells, once each, of actors that ended though nobody asked them
// to, and lets them come back if that is wanted.
func (r *runner) noticeDeaths() {
	for i, actor := range r.fleet.Actors() {
		err := actor.Ended()
		if err == nil {
			delete(r.reported, i)
			continue
		}
		if r.reported[i] != nil {
			continue
		}
		r.reported[i] = err
		r.a.note("note: %v", err)
		if r.o.respawn {
			r.down[i] = downtime{until: r.elapsed() + respawnAfter}
		}
	}
}

// finish brings the run to its verdict: faults end, nothing is minted any
// more, all become equal, all stop.
func (r *runner) finish(ctx context.Context) error {
	if r.o.endAll {
		if err := r.recover(ctx, time.Duration(1<<62)); err != nil {
			return err
		}
	}
	members, j := r.settle(ctx)
	stopCtx, cancel := context.WithTimeout(ctx, 2*closeTimeout)
	defer cancel()
	running := 0
	for _, actor := range r.fleet.Actors() {
		if actor.Running() {
			running++
		}
	}
	stopErr := r.fleet.StopAll(stopCtx)
	if stopErr != nil {
		r.a.note("note: %v", stopErr)
		running -= len(strings.Split(stopErr.Error(), "\n"))
	}
	return r.printVerdict(members, j, max(running, 0))
}

// pauseAll stops the mutations of the actors that are not paused yet. One that
// does not answer mints nothing, or is asked again.
func (r *runner) pauseAll(ctx context.Context, paused []bool) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var wg sync.WaitGroup
	for i, actor := range r.fleet.Actors() {
		if !paused[i] {
			wg.Go(func() { paused[i] = actor.Client().Mutator(ctx, true) == nil })
		}
	}
	wg.Wait()
}

// settle stops the mutations and waits until all are equal, or that cannot
// become true any more, or the time is up. The last look is the one that counts.
func (r *runner) settle(ctx context.Context) ([]member, judgement) {
	deadline := time.Now().Add(r.o.settle)
	paused := make([]bool, r.o.count)
	for {
		r.pauseAll(ctx, paused)
		members := r.look(ctx)
		j := judge(members)
		if j.word != wordBehind || time.Now().After(deadline) || r.hopeless(members, j) {
			return members, j
		}
		time.Sleep(pollEvery)
	}
}

// hopeless reports whether waiting is of no use: those that answer are equal,
// and the others have no process any more.
func (r *runner) hopeless(members []member, j judgement) bool {
	up := 0
	for i, m := range members {
		if m.err == nil {
			up++
		} else if r.fleet.Actor(i).Running() {
			return false
		}
	}
	return j.equal == up
}

// A runSummary is one line about all actors.
type runSummary struct {
	Event   string    `json:"event"` // "summary"
	Time    time.Time `json:"time"`
	Up      int       `json:"up"`
	Of      int       `json:"of"`
	Ops     uint64    `json:"ops"`
	Genes   int       `json:"genes"`
	Verdict string    `json:"verdict"` // converged, behind, diverged or partitioned
	Equal   int       `json:"equal"`
	Text    string    `json:"text"`

	state  string // what a person must not miss: how many are up, cut, diverged
	up     string // "4 up, a1 killed"
	healed bool   // all are equal for the first time after a fault
}

func (r *runner) summary(members []member, j judgement) runSummary {
	s := runSummary{Event: "summary", Time: time.Now().UTC(), Of: j.of, Ops: j.ops, Genes: j.genes, Equal: j.equal, Verdict: strings.ToLower(j.word)}
	var away []string
	for i, m := range members {
		d, fault := r.down[i]
		switch {
		case m.err == nil:
			s.Up++
		case fault && d.paused:
			away = append(away, fmt.Sprintf("a%d paused", i))
		case fault:
			away = append(away, fmt.Sprintf("a%d killed", i))
		default:
			away = append(away, fmt.Sprintf("a%d away", i))
		}
	}
	if len(away) > 3 {
		away = append(away[:3], fmt.Sprintf("%d more", len(away)-3))
	}
	s.up = strings.Join(append([]string{fmt.Sprintf("%d up", s.Up)}, away...), ", ")
	if r.cut != nil {
		s.up += ", cut " + groupNames(r.cut)
	}
	s.state = s.up
	if j.word == wordDiverged {
		s.state += " " + j.word
	}
	s.Text = r.summaryText(j, &s)
	return s
}

// summaryText says what stands after the verdict of a line.
func (r *runner) summaryText(j judgement, s *runSummary) string {
	if r.cut != nil && j.word == wordBehind {
		s.Verdict = strings.ToLower(wordPartitioned)
		return groupNames(r.cut) + ", " + strings.Join(j.lagged[:min(len(j.lagged), 4)], "; ")
	}
	text := fmt.Sprintf("%d of %d", j.equal, j.of)
	switch {
	case j.word == wordConverged && !r.healed.IsZero():
		s.healed = true
		text += fmt.Sprintf(", %.1f s after %s", time.Since(r.healed).Seconds(), r.what)
		r.healed = time.Time{}
	case j.word == wordBehind && j.worst != "":
		text += " equal, worst: " + j.worst
	case j.word == wordBehind:
		text += " equal"
	case j.word == wordDiverged:
		text += fmt.Sprintf(" equal; actors %d and %d hold the same ops, but not the same genome", j.pair[0], j.pair[1])
	}
	return text
}

// wordPartitioned is what run says instead of BEHIND while links are cut. It
// is no verdict: at the end there are no faults any more.
const wordPartitioned = "PARTITIONED"

func (r *runner) printSummary(s runSummary) error {
	r.lastLine = s.state
	if r.a.opts.json {
		return r.a.printJSON(s)
	}
	word := strings.ToUpper(s.Verdict)
	_, err := fmt.Fprintf(r.a.stdout, "%s  %-18s ops %-6d genes %-5d %s%*s %s\n", s.Time.Local().Format(time.TimeOnly), s.up, s.Ops, s.Genes,
		r.a.verdict(word), max(len(wordPartitioned)-len(word), 0), "", s.Text)
	return err
}

// runStart is the first JSON line of run.
type runStart struct {
	Event  string     `json:"event"` // "start"
	Time   time.Time  `json:"time"`
	Actors []runActor `json:"actors"`
}

type runActor struct {
	Actor int    `json:"actor"`
	URL   string `json:"url"`
	Log   string `json:"log"`
	Ops   uint64 `json:"ops"` // that it started with, and a few more; 0 also if it was slow to answer
	PID   int    `json:"pid"`
}

func (r *runner) printStart(ctx context.Context) error {
	start := runStart{Event: "start", Time: r.started.UTC()}
	t := newTable("ACTOR", "URL", "LOG", "OPS")
	for i, m := range r.look(ctx) {
		actor, ops := r.fleet.Actor(i), "" // one that is slow to answer is shown without
		row := runActor{i, actor.URL() + "/", filepath.Join(actor.Dir, "log.db"), m.view.version.Ops(), actor.PID()}
		if m.err == nil {
			ops = thousands(row.Ops)
		}
		start.Actors = append(start.Actors, row)
		t.row(fmt.Sprint(i), row.URL, row.Log, ops)
	}
	if r.a.opts.json {
		return r.a.printJSON(start)
	}
	if err := t.print(r.a.stdout); err != nil {
		return err
	}
	_, err := fmt.Fprintf(r.a.stdout, "page   %s   (each actor serves it)\n", start.Actors[0].URL)
	return err
}

// runVerdict is the last JSON line of run.
type runVerdict struct {
	Event          string  `json:"event"` // "verdict"
	Stopped        int     `json:"stopped_cleanly"`
	ElapsedSeconds float64 `json:"elapsed_s"`
	Exit           int     `json:"exit"`
	compareReply
}

func (r *runner) printVerdict(members []member, j judgement, stopped int) error {
	text := j.sentence()
	if j.word == wordConverged {
		text = fmt.Sprintf("%d of %d actors, %s, %s, digest %v", j.equal, j.of, plural(j.ops, "op"), plural(uint64(j.genes), "gene"), j.digest)
	}
	if j.word == wordDiverged {
		text = fmt.Sprintf("%s and %s hold the same ops, but not the same genome: crdt-genome compare %s says more",
			members[j.pair[0]].name, members[j.pair[1]].name, r.o.data)
	}
	if r.a.opts.json {
		for i, actor := range r.fleet.Actors() {
			members[i].view.where = actor.URL()
		}
		v := runVerdict{"verdict", stopped, r.elapsed().Seconds(), exitOfWord[j.word], compareReplyOf(members, j, text)}
		if err := r.a.printJSON(v); err != nil {
			return err
		}
		return exitWith(exitOfWord[j.word])
	}
	fmt.Fprintf(r.a.stdout, "stopping … %d stopped cleanly\n\n%s  %s\n", stopped, r.a.verdict(j.word), text)
	return exitWith(exitOfWord[j.word])
}

// cutHint separates "message\nhint: what to do".
func cutHint(text string) (msg, hint string, ok bool) {
	lines := strings.Split(text, "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "hint: ") })
	if i < 0 {
		return text, "", false
	}
	return strings.Join(lines[:i], "\n"), strings.TrimPrefix(lines[i], "hint: "), true
}
