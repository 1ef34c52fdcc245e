package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"crdt-genome/cmd/internal/report"
	"crdt-genome/store/figures"
)

// TestManyProcesses runs processes of several actors each, which find each
// other by gossip, and then the same over a real NATS server. bench fleet fails
// unless every actor ends up with the same. In scripts/test.sh the layer
// thousand makes it 1,000 actors at the original's pace.
func TestManyProcesses(t *testing.T) {
	processes, actors, seconds := figures.Size(t, "CRDT_GENOME_PROCESSES", 4), figures.Size(t, "CRDT_GENOME_ACTORS", 3), figures.Size(t, "CRDT_GENOME_SECONDS", 1)
	pace := "200ms"
	if processes*actors >= 1000 {
		pace = "20s"
	}
	fanout := "2" // fewer than the others, so that they pass ops on
	if processes > 8 {
		fanout = "6"
	}
	server := jetStream(t, nil)
	for _, way := range []struct {
		name string
		args []string
	}{
		{"mesh", nil},
		{"rings", []string{"--fanout", fanout}},
		{"bus", []string{"--bus", server.ClientURL()}},
	} {
		t.Run(way.name, func(t *testing.T) {
			before := ownTime(t)
			args := append([]string{"bench", "fleet", "--json", "--processes", strconv.Itoa(processes), "--actors", strconv.Itoa(actors),
				"--time", fmt.Sprintf("%ds", seconds), "--mutate-max", pace, "--dir", t.TempDir()}, way.args...)
			cmd := exec.CommandContext(t.Context(), program(t), args...)
			var said strings.Builder
			cmd.Stderr = &said
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %v\n%s", args, err, said.String())
			}
			var reply report.Report
			if err := json.Unmarshal(out, &reply); err != nil {
				t.Fatalf("%v in %s", err, out)
			}
			values := map[string]float64{}
			for _, f := range reply.Rows {
				values[f.Name] = f.Median
			}
			for _, name := range []string{"edits", "CPU of all", "resident memory of all"} {
				if values[name] <= 0 {
					t.Errorf("%s: %v in %s", name, values[name], out)
				}
			}
			if way.name == "bus" {
				if v, err := server.Varz(nil); err != nil || v.InMsgs == 0 {
					t.Errorf("the server had no messages: %v", err)
				}
			}
			if posts := values["POSTs"]; (posts > 0) != (way.name != "bus") || values["… that failed"] > 0 && processes*actors < 1000 {
				t.Errorf("%v POSTs, %v failed", posts, values["… that failed"])
			}
			figures.Tell(t, "fleet-%s-equal-seconds %.2f after the last of %.0f edits, %d processes of %d actors", way.name, values["equal after the last edit"], values["edits"], processes, actors)
			figures.Tell(t, "fleet-%s-cpu-ms-per-edit %.2f %.2f cores; beside them the NATS server and this test %.2f s", way.name, values["… for an edit"], values["… for each second"], (ownTime(t) - before).Seconds())
			figures.Tell(t, "fleet-%s-resident-mib %.0f largest process %.0f, not of files %.0f", way.name, values["resident memory of all"], values["… of the largest process"], values["… of all, not of files"])
			if limit := values["equal after the last edit"]; processes*actors >= 1000 && limit > goalEqual {
				t.Errorf("equal %.1f s after the last edit, want ≤ %d", limit, goalEqual)
			}
		})
	}
}

// ownTime is the CPU time of this process.
func ownTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// jetStream starts a NATS server with JetStream.
func jetStream(t *testing.T, adapt func(*natsserver.Options)) *natsserver.Server {
	t.Helper()
	o := &natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir()}
	if adapt != nil {
		adapt(o)
	}
	s, err := natsserver.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not start")
	}
	return s
}
