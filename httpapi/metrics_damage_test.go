package httpapi

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDamageMetrics damages a record of node 1's log for good. Its next start
// counts it, and keeps what came after it in quarantine until node 0, which
// has made all that, is back.
func TestDamageMetrics(t *testing.T) {
	l := newLab(t, 2, nil)
	a, b := l.start(0), l.start(1)
	lost := []byte("a record that will be damaged beyond what a checksum can mend")
	mustInsert(t, a, 0, 1, 2)
	l.waitEqual()
	mustInsert(t, a, 2, lost...)
	l.waitEqual()
	mustInsert(t, a, 2+len(lost), 3, 4, 5) // needs the record before it
	l.waitEqual()
	wantMetric(t, b, "genome_log_corrupt_records_total", 0)
	wantMetric(t, b, "genome_quarantined_ops", 0)
	l.stop(1)
	l.stop(0)

	damageRecord(t, l.dirs[1], lost)
	b = l.start(1)
	wantMetric(t, b, "genome_log_corrupt_records_total", 1)
	wantMetric(t, b, "genome_quarantined_ops", 3)
	for _, part := range []string{`"event":"log_damaged"`, `"lost":true`, `"event":"log_repaired"`} {
		if !strings.Contains(l.logs[1].String(), part) {
			t.Errorf("no %s in the log:\n%s", part, l.logs[1])
		}
	}

	l.start(0)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if v, ok := metric(t, b, "genome_quarantined_ops"); ok && v == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("ops are still in quarantine: %+v", b.actor.Shortage())
		}
	}
	l.waitEqual()
	wantMetric(t, b, "genome_log_corrupt_records_total", 1)
}

// damageRecord overwrites genes wherever a stopped actor's log has them, and
// removes the checkpoints, so that all is replayed.
func damageRecord(t *testing.T, data string, genes []byte) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(data, "actor-*", "log.db"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("logs: %v, %v", logs, err)
	}
	b, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, genes) {
		t.Fatal("the log has the genes in another form")
	}
	if err := os.WriteFile(logs[0], bytes.ReplaceAll(b, genes, make([]byte, len(genes))), 0o600); err != nil {
		t.Fatal(err)
	}
	checkpoints, err := filepath.Glob(filepath.Join(filepath.Dir(logs[0]), "ckpt-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checkpoints {
		if err := os.Remove(c); err != nil {
			t.Fatal(err)
		}
	}
}
