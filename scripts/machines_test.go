package scripts

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestThreeMachines types the steps of README.md that take a user to three
// machines. A network namespace stands for each machine, with the addresses
// that the README has.
func TestThreeMachines(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	cannot := func(format string, args ...any) {
		t.Helper()
		if os.Getenv("CI") == "true" {
			t.Fatalf(format, args...)
		}
		t.Skipf(format, args...)
	}
	if os.Getuid() != 0 {
		cannot("not root: no network namespaces")
	}
	for _, tool := range []string{"bash", "ip", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			cannot("%s is not installed", tool)
		}
	}
	root, text := readme(t)
	_, section, ok := strings.Cut(text, "\n### From one machine to three\n")
	if !ok {
		t.Fatal("README.md no longer says how to use three machines")
	}
	section, _, _ = strings.Cut(section, "\n#")
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "./cmd/crdt-genome")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))

	run := func(name string, args ...string) error {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
		}
		return nil
	}
	// A hub that is a network of its own, and three machines on it.
	prefix := fmt.Sprintf("cg3-%d-", os.Getpid())
	hub := prefix + "hub"
	machines := []string{prefix + "a", prefix + "b", prefix + "c"}
	for _, ns := range append([]string{hub}, machines...) {
		if err := run("ip", "netns", "add", ns); err != nil {
			cannot("%v", err)
		}
		t.Cleanup(func() { _ = run("ip", "netns", "del", ns) })
	}
	must := func(args ...string) {
		t.Helper()
		if err := run("ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	must("-n", hub, "link", "add", "bridge", "type", "bridge")
	must("-n", hub, "link", "set", "bridge", "up")
	for i, ns := range machines {
		port := fmt.Sprintf("port%d", i)
		must("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns)
		must("-n", hub, "link", "set", port, "master", "bridge", "up")
		must("-n", ns, "addr", "add", fmt.Sprintf("10.77.0.%d/24", i+1), "dev", "eth0")
		must("-n", ns, "link", "set", "eth0", "up")
		must("-n", ns, "link", "set", "lo", "up")
	}

	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), typedLimit)
	defer cancel()
	command := func(ns, script string) *exec.Cmd {
		script = strings.ReplaceAll(script, "scripts/", root+"/scripts/")
		cmd := exec.CommandContext(ctx, "ip", "netns", "exec", ns, "bash", "-euo", "pipefail", "-c", script)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = 10 * time.Second
		return cmd
	}
	var output string
	servers := 0
	for _, b := range blocks(section) {
		switch {
		case b.lang == "text":
			first, _, _ := strings.Cut(b.text, " ")
			if !strings.HasPrefix(output, first) {
				t.Errorf("the README shows %q, but this was printed:\n%s", first, output)
			}
		case b.background:
			log, err := os.Create(filepath.Join(dir, fmt.Sprintf("server-%d.log", servers)))
			if err != nil {
				t.Fatal(err)
			}
			cmd := command(machines[servers], "exec "+b.text)
			cmd.Stdout, cmd.Stderr = log, log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			servers++
			t.Cleanup(func() {
				_ = cmd.Process.Signal(os.Interrupt)
				_ = cmd.Wait() // it was interrupted
				if said, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
					t.Logf("%s:\n%s", b.text, said)
				}
				log.Close()
			})
		default:
			// What is asked too early says so: members are found one by one.
			var out bytes.Buffer
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
				out.Reset()
				cmd := command(machines[2], b.text)
				cmd.Stdout, cmd.Stderr = &out, &out
				err := cmd.Run()
				enough := servers == 0 || strings.Contains(out.String(), "3 members") || strings.Contains(out.String(), "3 of 3")
				if err == nil && enough {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s: %v\n%s", b.text, err, out.String())
				}
			}
			output = out.String()
			t.Logf("%s%s", b.text, output)
		}
	}
	if servers != len(machines) {
		t.Errorf("%d servers were started, want 3", servers)
	}
}
