package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"crdt-genome/cmd/internal/report"
)

// sizeOf is the number in an environment variable that scripts/test.sh sets, or
// usual.
func sizeOf(t *testing.T, variable string, usual int) int {
	t.Helper()
	if os.Getenv(variable) == "" {
		return usual
	}
	n, err := strconv.Atoi(os.Getenv(variable))
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number above 0", variable, os.Getenv(variable))
	}
	return n
}

// TestManyProcesses runs processes of several actors each, which find each
// other by gossip, and then the same over a real NATS server. bench fleet fails
// unless every actor ends up with the same. In scripts/test.sh the layer
// thousand makes it 1,000 actors at the original's pace.
func TestManyProcesses(t *testing.T) {
	processes, actors, seconds := sizeOf(t, "CRDT_GENOME_PROCESSES", 4), sizeOf(t, "CRDT_GENOME_ACTORS", 3), sizeOf(t, "CRDT_GENOME_SECONDS", 1)
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
			tell(t, "fleet-%s-equal-seconds %.2f after the last of %.0f edits, %d processes of %d actors", way.name, values["equal after the last edit"], values["edits"], processes, actors)
			tell(t, "fleet-%s-cpu-ms-per-edit %.2f %.2f cores; beside them the NATS server and this test %.2f s", way.name, values["… for an edit"], values["… for each second"], (ownTime(t) - before).Seconds())
			tell(t, "fleet-%s-resident-mib %.0f largest process %.0f, not of files %.0f", way.name, values["resident memory of all"], values["… of the largest process"], values["… of all, not of files"])
			if limit := values["equal after the last edit"]; processes*actors >= 1000 && limit > goalEqual {
				t.Errorf("equal %.1f s after the last edit, want ≤ %d", limit, goalEqual)
			}
		})
	}
}

// tell tells scripts/test.sh what was measured: a figure goes to the file that it
// names.
func tell(t *testing.T, format string, args ...any) {
	t.Helper()
	line := "figure: " + fmt.Sprintf(format, args...)
	t.Log(line)
	path := os.Getenv("CRDT_GENOME_FIGURES")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
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
