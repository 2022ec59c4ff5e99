// Command ingot is the server: region, rack, both in one process, a lab of virtual machines, and the administration of an
// installation. It reads flags, files and signals and wires the other packages together; it decides nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ingot-metal/ingot/cmd/ingot/cli"
)

// version is set by the build (-X main.version=…).
var version = "0.1.0-dev"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once: whoever sends it does not want to wait for the orderly end.
	context.AfterFunc(ctx, stop)
	root := command(stdout, stderr)
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(stderr, "ingot: "+err.Error())
		var u usageError
		if errors.As(err, &u) {
			return 2
		}
		return 1
	}
	return 0
}

// usageError is a mistake in flags or arguments.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// globals are the flags of every command.
type globals struct {
	logLevel  string
	logFormat string
	stdout    io.Writer
	stderr    io.Writer
}

func (g *globals) log() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(g.logLevel)); err != nil {
		return nil, usagef("--log-level %q: debug, info, warn or error", g.logLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	switch g.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(g.stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(g.stderr, o)), nil
	}
	return nil, usagef("--log-format %q: text or json", g.logFormat)
}

func command(stdout, stderr io.Writer) *cobra.Command {
	g := &globals{stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:           "ingot",
		Short:         "Bare metal as a service, on MAAS's API",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVar(&g.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&g.logFormat, "log-format", "text", "text or json")
	root.AddCommand(
		devCommand(g), showCommand(g), allCommand(g), regionCommand(g), rackCommand(g),
		adminCommand(g), imageCommand(g), exportCommand(g), importCommand(g), labCommand(g), healthcheckCommand(g), versionCommand(g),
	)
	cli.Add(root, func(err error) error { return usageError{err} }) // the commands that talk to a server's API
	return root
}

func versionCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			goVersion := runtime.Version()
			if b, ok := debug.ReadBuildInfo(); ok {
				goVersion = b.GoVersion
			}
			_, err := fmt.Fprintf(g.stdout, "ingot %s (%s, %s/%s)\n", version, goVersion, runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
