package main

import "github.com/spf13/cobra"

func newAppraiseEventlog() *cobra.Command { return &cobra.Command{Use: "eventlog"} }
