package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// A Machine says where a report was made: figures of two machines, or of a
// busy and an idle one, say little about each other.
type Machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"` // that the process may use
	OS       string `json:"os"`
	Kernel   string `json:"kernel,omitempty"`
	Go       string `json:"go"`
	Governor string `json:"governor,omitempty"` // of the CPU's frequency
	Load     string `json:"load,omitempty"`     // of the last minute, when the run began
}

// ThisMachine describes this machine as far as it can be found out.
func ThisMachine() Machine {
	load, _, _ := strings.Cut(line("/proc/loadavg"), " ")
	return Machine{
		CPU:      cpuName(),
		Cores:    runtime.GOMAXPROCS(0),
		OS:       runtime.GOOS + "/" + runtime.GOARCH,
		Kernel:   line("/proc/sys/kernel/osrelease"),
		Go:       runtime.Version(),
		Governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
		Load:     load,
	}
}

// String is the machine in one line.
func (m Machine) String() string {
	parts := []string{m.CPU, plural(m.Cores, "core"), m.OS}
	for _, p := range [][2]string{{"kernel ", m.Kernel}, {"", m.Go}, {"governor ", m.Governor}, {"load ", m.Load}} {
		if p[1] != "" {
			parts = append(parts, p[0]+p[1])
		}
	}
	return strings.Join(parts, " · ")
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", one, "s")
}

func cpuName() string {
	for l := range strings.Lines(text("/proc/cpuinfo")) {
		if name, value, _ := strings.Cut(l, ":"); strings.TrimSpace(name) == "model name" {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return "unknown CPU"
}

// line returns the first line of a file of the system, "" if there is none.
func line(path string) string {
	l, _, _ := strings.Cut(text(path), "\n")
	return l
}

func text(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(data)
}
