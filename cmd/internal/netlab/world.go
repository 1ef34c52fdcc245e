//go:build linux

package netlab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// MaxHosts is how many hosts the network has addresses for.
const MaxHosts = 200

// prefix begins the name of every namespace; then come the process id, the
// number of the world in that process, and what it is: prefix-123-1-h0.
const prefix = "cglab-"

// A World is a switch and its hosts, with the faults that are on. Its methods
// are safe for concurrent use. Close it to remove it.
type World struct {
	name  string
	hosts int

	mu     sync.Mutex // guards faults; held while they are put in place
	faults faults
}

var worlds atomic.Int64

// New makes a world with hosts 0 … n-1 on one network without faults, after it
// has removed those of processes that have ended.
func New(n int) (*World, error) {
	if n < 1 || n > MaxHosts {
		return nil, fmt.Errorf("netlab: %d hosts, want 1..%d", n, MaxHosts)
	}
	if err := sweep(); err != nil {
		return nil, err
	}
	w := &World{name: fmt.Sprintf("%s%d-%d-", prefix, os.Getpid(), worlds.Add(1)), hosts: n}
	if err := w.build(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *World) build() error {
	if err := batch("", "netns add "+w.sw()); err != nil {
		return err
	}
	commands := []string{"link add br0 type bridge", "link set br0 up"}
	for i := range w.hosts {
		if err := batch("", "netns add "+w.host(i)); err != nil {
			return err
		}
		port := fmt.Sprintf("p%d", i)
		commands = append(commands, "link add "+port+" type veth peer name eth0 netns "+w.host(i),
			"link set "+port+" master br0", "link set "+port+" up")
	}
	if err := batch(w.sw(), commands...); err != nil {
		return err
	}
	for i := range w.hosts {
		if err := batch(w.host(i), "link set lo up", "addr add "+w.IP(i).String()+"/24 dev eth0", "link set eth0 up"); err != nil {
			return err
		}
	}
	return nil
}

// IP returns the address of host i.
func (w *World) IP(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}) }

// Hosts returns the number of hosts.
func (w *World) Hosts() int { return w.hosts }

func (w *World) sw() string        { return w.name + "sw" }
func (w *World) host(i int) string { return fmt.Sprintf("%sh%d", w.name, i) }

// Command returns the command line that runs argv on host i. The process stays
// the same one, so its id and its signals are the program's.
func (w *World) Command(i int, argv []string) []string {
	return append([]string{"ip", "netns", "exec", w.host(i)}, argv...)
}

// Close ends what still runs on the hosts, and removes them.
func (w *World) Close() error {
	names, err := namespaces()
	for _, name := range names {
		if strings.HasPrefix(name, w.name) {
			err = errors.Join(err, remove(name))
		}
	}
	return err
}

// sweep removes the worlds of processes that have ended (keeps N2).
func sweep() error {
	names, err := namespaces()
	for _, name := range names {
		rest, ours := strings.CutPrefix(name, prefix)
		pid, noNumber := strconv.Atoi(strings.SplitN(rest, "-", 2)[0])
		if ours && noNumber == nil && syscall.Kill(pid, 0) != nil {
			_ = remove(name) // another process may sweep too
		}
	}
	return err
}

func namespaces() (names []string, err error) {
	out, err := run("", "ip", "netns", "list")
	for line := range strings.Lines(out) {
		names = append(names, strings.Fields(line)[0]) // "name (id: 3)"
	}
	return names, err
}

// remove kills what runs in a namespace, also what is frozen, and deletes it.
func remove(name string) error {
	out, err := run("", "ip", "netns", "pids", name)
	if err != nil {
		return err
	}
	for _, f := range strings.Fields(out) {
		if pid, err := strconv.Atoi(f); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	}
	return batch("", "netns del "+name)
}

// batch runs commands of ip in a namespace, ours if that is "".
func batch(namespace string, commands ...string) error {
	args := []string{"ip", "-batch", "-"}
	if namespace != "" {
		args = []string{"ip", "-n", namespace, "-batch", "-"}
	}
	_, err := run(strings.Join(commands, "\n")+"\n", args...)
	return err
}

// run runs a command and returns what it printed.
func run(stdin string, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, stdin, out)
	}
	return string(out), nil
}
