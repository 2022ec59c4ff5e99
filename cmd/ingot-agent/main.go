// Command ingot-agent runs on a machine that is being enlisted, commissioned, installed or erased: as init of the light environment,
// or started by cloud-init in a full one ("ingot-agent run"). Everything it does is in package agent.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/ingot-metal/ingot/agent"
)

const usage = `usage:
  ingot-agent run [--config-url URL] [--no-power]   carry out this boot's task (in a full environment)
  ingot-agent inventory                             print what the region would be told about this machine
  ingot-agent sync --config FILE                    report the inventory of an installed system (hardware sync)
  ingot-agent hardware-test NAME [--PARAMETER=VALUE ...]   run one of the tests that need no package
`

func main() {
	if os.Getpid() == 1 && filepath.Base(os.Args[0]) == "init" { // the first process of a container is not the first of a machine
		agent.Init()
		return
	}
	if filepath.Base(os.Args[0]) == "modprobe" { // the kernel of the light environment wants a module
		if err := agent.Modprobe(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "modprobe:", err)
			os.Exit(1)
		}
		return
	}
	cmd := ""
	if len(os.Args) > 1 {
		cmd = os.Args[1]
	}
	var err error
	switch cmd {
	case "worker":
		err = agent.Worker(os.Stdout)
	case "report-crash":
		err = agent.WorkerCrash()
	case "run":
		err = run(os.Args[2:])
	case "inventory", "": // without arguments it prints the inventory, as MAAS's machine-resources program does
		var inv map[string]any
		if inv, err = agent.Inventory("/"); err == nil {
			e := json.NewEncoder(os.Stdout)
			e.SetIndent("", " ")
			err = e.Encode(inv)
		}
	case "sync":
		fs := flag.NewFlagSet("sync", flag.ExitOnError)
		config := fs.String("config", "", "cloud-config with the machine's credentials")
		_ = fs.Parse(os.Args[2:]) // exits itself
		err = agent.Sync(context.Background(), *config, agent.Config{})
	case "hardware-test":
		os.Exit(agent.HardwareTest(context.Background(), os.Args[2:], os.Stdout))
	case "help", "-h", "--help":
		fmt.Print(usage)
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ingot-agent:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	configURL := fs.String("config-url", "", "cloud-config-url; default: from the kernel's command line")
	noPower := fs.Bool("no-power", false, "leave the machine up whatever the task says")
	if err := fs.Parse(args); err != nil {
		return err
	}
	cl, err := agent.FindConfigURL("/")
	if err != nil {
		return err
	}
	if *configURL != "" {
		cl.ConfigURL = *configURL
	}
	if cl.ConfigURL == "" {
		return fmt.Errorf("no --config-url, and the kernel's command line has no cloud-config-url")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out, err := agent.Run(ctx, agent.Config{ConfigURL: cl.ConfigURL, BootIF: cl.BootIF})
	if *noPower {
		return err
	}
	if perr := agent.End(ctx, out, func(f string, a ...any) { fmt.Fprintf(os.Stderr, f+"\n", a...) }); perr != nil && err == nil {
		err = perr
	}
	return err
}
