package httpapi

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// maxReaderCost is what a stream whose reader takes nothing may cost this
// machine: memory of the process and of the kernel.
const maxReaderCost = 256 << 10

// TestStalledReaderCost opens as many streams of the whole log as there may be,
// over connections from which nothing is read, waits until all are stuck, and
// divides what they cost.
func TestStalledReaderCost(t *testing.T) {
	n := alone(t, func(c *Config) { c.tune.stall, c.Mutate.Off = 10*time.Minute, true })
	fillLog(t, n, 40_000) // some 250 bytes of text each: more than any buffer takes
	before := processMemory()
	for range maxStreams {
		stallReader(t, n)
	}
	var kernel uint64
	stuck := 0
	eventually(t, func() bool {
		stuck, kernel = sendQueues(t, n)
		return stuck == maxStreams
	}, func() string { return fmt.Sprintf("%d of %d streams are stuck", stuck, maxStreams) })
	process := processMemory() - min(before, processMemory())
	each := (process + kernel) / maxStreams
	t.Logf("%d stalled readers: %d KiB of the process and %d KiB of the kernel each", maxStreams, process/maxStreams>>10, kernel/maxStreams>>10)
	if each > maxReaderCost {
		t.Errorf("a stalled reader costs %d KiB, want at most %d", each>>10, maxReaderCost>>10)
	}
}

// fillLog gives n that many ops of a stranger's.
func fillLog(t *testing.T, n *Node, ops int) {
	t.Helper()
	g := genome.NewFromConfig(genome.Config{Self: genome.NewReplicaID(100, 1), NoHistory: true})
	for made := 0; made < ops; {
		var b genome.Block
		for ; made < ops && len(b.Ops) < genome.MaxBatchOps; made++ {
			op, err := g.Insert(made*7919%(g.Len()+1), []byte{byte(made)})
			if err != nil {
				t.Fatal(err)
			}
			b.Ops = append(b.Ops, op)
		}
		if _, err := n.Actor().Receive(t.Context(), store.Source{Via: store.ViaPost}, b); err != nil {
			t.Fatal(err)
		}
	}
}

// stallReader asks for the stream and reads nothing.
func stallReader(t *testing.T, n *Node) {
	t.Helper()
	c, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "GET /v1/changes?since=0 HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", n.Addr()); err != nil {
		t.Fatal(err)
	}
}

// processMemory is what the process has in use after a collection.
func processMemory() uint64 {
	runtime.GC()
	runtime.GC() // what the first one's finalizers let go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// sendQueues returns how many streams wait for their readers, each in a write
// to its connection, and what memory the kernel has given to the queues.
func sendQueues(t *testing.T, n *Node) (stuck int, memory uint64) {
	t.Helper()
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "stallingWriter).Write") && strings.Contains(g, "waitWrite") {
			stuck++
		}
	}
	n.conns.mu.Lock()
	defer n.conns.mu.Unlock()
	for nc := range n.conns.open {
		raw, err := bare(nc).(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { memory += uint64(queued(t, fd)) }); err != nil {
			t.Fatal(err)
		}
	}
	return stuck, memory
}

// queued is the memory of a socket's send queue: see SK_MEMINFO_WMEM_QUEUED in
// linux/sock_diag.h.
func queued(t *testing.T, fd uintptr) uint32 {
	const wmemQueued = 5
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	if _, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		t.Errorf("SO_MEMINFO: %v", errno)
	}
	return info[wmemQueued]
}
