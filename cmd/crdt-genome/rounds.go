package main

import "github.com/spf13/cobra"

func newRoundsCmd(a *app) *cobra.Command { return &cobra.Command{Use: "rounds", Hidden: true, Run: func(*cobra.Command, []string) {}} }
