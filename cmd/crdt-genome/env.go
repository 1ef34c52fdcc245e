package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// envPrefix begins the names of all our variables. GENOME_ alone is taken by
// scripts of bioinformatics.
const envPrefix = "CRDT_GENOME_"

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// applyEnv gives every flag that the command line left alone the value of its
// variable: flag before environment before default.
func (a *app) applyEnv(cmd *cobra.Command) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || err != nil || f.Name == "help" || f.Name == "version" {
			return
		}
		value, ok := a.env(envName(f.Name))
		if !ok || value == "" {
			return
		}
		if e := cmd.Flags().Set(f.Name, value); e != nil {
			err = usageError("", "%s=%q: %s", envName(f.Name), value, notA(f.Value.Type(), e))
		}
	})
	return err
}

// notA says what a flag of the type wants, in a person's words.
func notA(typ string, err error) string {
	switch typ {
	case "uint32", "uint64", "uint":
		return "not a number from 0 up"
	case "int":
		return "not a number"
	case "uints", "uintSlice":
		return "not numbers such as 0,2"
	case "duration":
		return `not a duration such as "5s" or "200ms"`
	case "bool":
		return "not true or false"
	}
	return err.Error()
}
