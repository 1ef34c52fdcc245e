package main

import (
	"os"
	"strings"
	"testing"
)

// messages says, for each of the 36 likely mistakes that the program has words
// for, which script or test provokes it: the real cause, words and exit code.
// Those without one say why.
var messages = [36]struct{ mistake, script, test, why string }{
	{mistake: "port busy", script: "msg_listen"},
	{mistake: "address not of this machine", script: "msg_listen"},
	{mistake: "port above 65535", script: "usage"},
	{mistake: "log locked, serve", script: "msg_locked"},
	{mistake: "log locked, inspect-log", script: "msg_locked"},
	{mistake: "log of another actor", script: "msg_logs"},
	{mistake: "log of another cluster", script: "msg_logs"},
	{mistake: "actor out of range", script: "usage"},
	{mistake: "count out of range", script: "usage"},
	{mistake: "required flag missing", script: "usage"},
	{mistake: "typing error in a command or flag", script: "usage"},
	{mistake: "bad environment value", script: "usage"},
	{mistake: "no log there", script: "msg_logs"},
	{mistake: "not a log, empty file", script: "msg_logs"},
	{mistake: "record damaged", script: "msg_logs"},
	{mistake: "page damaged, file cut short", script: "msg_logs"},
	{mistake: "old copy put back", test: "TestOldCopyPutBack"},
	{mistake: "newer log format", script: "msg_logs"},
	{mistake: "newer protocol", test: "TestPeerFromElsewhere"},
	{mistake: "op of the Rust original", script: "msg_http"},
	{mistake: "malformed JSON", script: "msg_http"},
	{mistake: "gap", script: "msg_http"},
	{mistake: "same id, other content", script: "msg_http"},
	{mistake: "no gene", script: "msg_http"},
	{mistake: "peer unreachable", script: "msg_peers"},
	{mistake: "peer is not one of ours", script: "msg_peers"},
	{mistake: "no server", script: "msg_locked"},
	{mistake: "disk full", script: "msg_disk"},
	{mistake: "no permission", script: "msg_disk"},
	{mistake: "unsafe bind", script: "msg_listen"},
	{mistake: "wrong Host header", script: "msg_http"},
	{mistake: "token missing or wrong", script: "msg_token"},
	{mistake: "clock far off", test: "TestPeerFromElsewhere"},
	{mistake: "too few file descriptors", script: "msg_files"},
	{mistake: "diverged", test: "TestCompareDiverged"},
	{mistake: "all alone", script: "msg_peers"},
}

// TestMessagesAreProvoked keeps the table true.
func TestMessagesAreProvoked(t *testing.T) {
	tests, err := os.ReadFile("e2e_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range messages {
		row := i + 1
		switch {
		case m.script != "":
			if _, err := os.Stat(script(m.script)); err != nil {
				t.Errorf("row %d, %s: %v", row, m.mistake, err)
			}
		case m.test != "":
			if !strings.Contains(string(tests), "func "+m.test+"(t *testing.T)") {
				t.Errorf("row %d, %s: no test %s", row, m.mistake, m.test)
			}
		case m.why == "":
			t.Errorf("row %d, %s: nothing provokes it, and no reason is given", row, m.mistake)
		}
	}
}
