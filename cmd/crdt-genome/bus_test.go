package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// TestRunOverBus runs real actors over a real NATS server. Its password is in
// nobody's arguments.
func TestRunOverBus(t *testing.T) {
	s := jetStream(t, func(o *natsserver.Options) { o.Username, o.Password = "genome", "not-for-all" })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	data := filepath.Join(t.TempDir(), "data")
	url := strings.Replace(s.ClientURL(), "//", "//genome:not-for-all@", 1)
	cmd := exec.CommandContext(ctx, program(t), "run", "--count", "3", "--base", "0", "--data", data, "--ops", "60", "--mutate-max", "50ms")
	cmd.Env = append(os.Environ(), "CRDT_GENOME_BUS="+url)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nCONVERGED  3 of 3") {
		t.Errorf("run: %v\n%s", err, out)
	}
	if v, err := s.Varz(nil); err != nil || v.InMsgs == 0 {
		t.Errorf("the server had no messages: %v", err)
	}
	jsz, err := s.Jsz(&natsserver.JSzOptions{})
	if err != nil || jsz.Messages == 0 || jsz.Streams != 1 {
		t.Errorf("JetStream: %+v, %v; want one stream with messages", jsz, err)
	}
	o := nodeOptions{bus: busOptions{url: url, creds: "file", replicas: 3}}
	if args := strings.Join(o.args(), " "); strings.Contains(args, "not-for-all") || !strings.Contains(args, "--bus-replicas 3 --bus-creds file") {
		t.Errorf("an actor's arguments: %s", args)
	}
	if out, err := exec.CommandContext(ctx, program(t), "serve", "-a", "0", "-c", "1", "-b", "0", "--data", data, "--bus", "nats://bad host").CombinedOutput(); err == nil || !strings.Contains(string(out), "error: --bus: ") {
		t.Errorf("a bad URL: %v\n%s", err, out)
	}
}
