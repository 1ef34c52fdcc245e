package fleet

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// program is the package of the actors' program.
const program = "crdt-genome/cmd/crdt-genome"

// Build compiles the program into dir and returns its path. args are further
// arguments of go build, such as -race. It works from any folder of the module.
func Build(ctx context.Context, dir string, args ...string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "crdt-genome")
	args = append(append([]string{"build", "-o", binary}, args...), program)
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return binary, nil
}
