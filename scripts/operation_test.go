package scripts

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"crdt-genome/httpapi"
	"crdt-genome/store"
)

// served returns the names of all metrics of an actor that has a peer and has
// seen an op, a refusal and a request.
func served(t *testing.T) map[string]bool {
	t.Helper()
	node, err := httpapi.Start(t.Context(), httpapi.Config{
		Store:  store.Config{Data: t.TempDir()},
		Listen: "127.0.0.1:0",
		Mutate: httpapi.MutateConfig{Off: true},
		Peers:  []httpapi.Peer{{Actor: 1, URL: "http://127.0.0.1:1"}}, // nobody listens there
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	c := httpapi.NewClient(node.URL())
	if _, err := c.Edit(t.Context(), httpapi.EditRequest{Insert: &httpapi.InsertRequest{Hex: "2a"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Edit(t.Context(), httpapi.EditRequest{Insert: &httpapi.InsertRequest{At: 9, Hex: "2a"}}); err == nil {
		t.Fatal("an insert beyond the end was taken")
	}
	resp, err := http.Get(node.URL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for line := range strings.SplitSeq(string(text), "\n") {
		name, _, _ := strings.Cut(line, "{")
		name, _, _ = strings.Cut(name, " ")
		names[name] = true
	}
	return names
}

var metric = regexp.MustCompile(`\b(genome|process|go)_[a-z_]+`)

// TestMonitoringNames: alert rules and dashboard ask only for what is served.
func TestMonitoringNames(t *testing.T) {
	names := served(t)
	if !names["genome_build_info"] {
		t.Fatalf("/metrics has no genome_build_info, only %d names", len(names))
	}
	for _, file := range []string{"alerts.yml", "dashboard.json"} {
		data, err := os.ReadFile(filepath.Join("monitoring", file))
		if err != nil {
			t.Fatal(err)
		}
		found := metric.FindAllString(string(data), -1)
		if len(found) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range found {
			if !names[name] {
				t.Errorf("%s asks for %s, which no actor serves", file, name)
			}
		}
	}
}

// TestAlerts: the alerts that somebody relies on are there.
func TestAlerts(t *testing.T) {
	data, err := os.ReadFile("monitoring/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"genome_divergence_total[10m]) > 0", "genome_peer_lag_seconds > 60\n        for: 5m\n", "genome_store_writable == 0\n"} {
		if !strings.Contains(string(data), want) {
			t.Errorf("alerts.yml has no rule with %q", want)
		}
	}
}

// TestDashboard: it is JSON, and each panel asks for something.
func TestDashboard(t *testing.T) {
	data, err := os.ReadFile("monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range d.Panels {
		if len(p.Targets) == 0 || p.Title == "" || seen[p.ID] {
			t.Errorf("panel %d %q: no title, no target or a number used twice", p.ID, p.Title)
		}
		seen[p.ID] = true
	}
	if len(d.Panels) < 10 {
		t.Errorf("only %d panels", len(d.Panels))
	}
}

// TestUnit: the unit starts a command line that exists, and never starts again
// what cannot succeed.
func TestUnit(t *testing.T) {
	data, err := os.ReadFile("systemd/crdt-genome@.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := map[string]string{}
	for line := range strings.SplitSeq(string(data), "\n") {
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			unit[key] = value
		}
	}
	if got, want := unit["RestartPreventExitStatus"], "3 4 5 9 64"; got != want {
		t.Errorf("RestartPreventExitStatus=%s, want %s", got, want)
	}
	if unit["Type"] != "notify" {
		t.Errorf("Type=%s, want notify", unit["Type"])
	}
	args := strings.Fields(strings.ReplaceAll(unit["ExecStart"], "%i", "0"))
	if len(args) < 2 || args[0] != "/usr/local/bin/crdt-genome" {
		t.Fatalf("ExecStart=%s", unit["ExecStart"])
	}
	cmd := exec.Command("go", slices.Concat([]string{"run", "./cmd/crdt-genome"}, args[1:], []string{"--help"})...)
	cmd.Dir = ".."
	help, err := cmd.CombinedOutput() // flags before --help are read, too
	if err != nil {
		t.Fatalf("%s --help: %v\n%s", unit["ExecStart"], err, help)
	}
	env, err := os.ReadFile("systemd/crdt-genome.env")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range variable.FindAllStringSubmatch(string(env), -1) {
		if flag := "--" + strings.ReplaceAll(strings.ToLower(m[1]), "_", "-") + " "; !strings.Contains(string(help), flag) {
			t.Errorf("crdt-genome.env sets CRDT_GENOME_%s, but serve has no flag %s", m[1], flag)
		}
	}
}

var variable = regexp.MustCompile(`(?m)^CRDT_GENOME_([A-Z_]+)=`)
