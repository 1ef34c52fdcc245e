package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func newVersionCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Example: `  crdt-genome version
  crdt-genome version --json`,
		Args: wantArgs(0, 0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			if a.opts.json {
				return a.printVersion()
			}
			v := versionInfo()
			_, err := fmt.Fprintf(a.stdout, "crdt-genome %s (%s, %s)\n", v.Version, v.Go, v.Platform)
			return err
		},
	}
}

// versionReply is the JSON of the version command.
type versionReply struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionInfo() versionReply {
	return versionReply{version, revision(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
}
