package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ingot-metal/ingot/api/client"
	"github.com/ingot-metal/ingot/lab"
)

func labCommand(g *globals) *cobra.Command {
	c := &cobra.Command{Use: "lab", Short: "Lab machines as a process of their own, against any region and rack on loopback"}
	c.AddCommand(labSeedCommand(g), labRunCommand(g))
	return c
}

func labSeedCommand(g *globals) *cobra.Command {
	var url, keyFile, rack string
	var machines int
	c := &cobra.Command{
		Use:   "seed",
		Short: "Make the lab's subnet in a region, with a dynamic range and DHCP by a rack",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := os.ReadFile(keyFile)
			if err != nil {
				return fmt.Errorf("--apikey-file: %w", err)
			}
			c, err := client.New(client.Config{URL: url, APIKey: strings.TrimSpace(string(key))})
			if err != nil {
				return err
			}
			return seedLab(cmd.Context(), c, rack, machines)
		},
	}
	c.Flags().StringVar(&url, "url", "http://127.0.0.1:5240", "the region's API")
	c.Flags().StringVar(&keyFile, "apikey-file", "/var/lib/ingot/admin.apikey", "file with an administrator's API key")
	c.Flags().StringVar(&rack, "rack", "", "system_id of the rack that serves DHCP")
	c.Flags().IntVar(&machines, "machines", 3, "how many machines there will be; more than a hundred get a larger subnet")
	return c
}

func labRunCommand(g *globals) *cobra.Command {
	var dir, dhcp, tftp string
	var machines, first int
	var on bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Run lab machines against a rack on loopback (ingot rack --lab, ingot dev)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := g.log()
			if err != nil {
				return err
			}
			d, err := netip.ParseAddrPort(dhcp)
			if err != nil {
				return usagef("--dhcp %q: the rack's address and port", dhcp)
			}
			t, err := netip.ParseAddrPort(tftp)
			if err != nil {
				return usagef("--tftp %q: the rack's address and port", tftp)
			}
			site, err := lab.NewSite(lab.SiteConfig{Machines: machines, First: first, Dir: dir, DHCP: d, TFTP: t, Log: log})
			if err != nil {
				return err
			}
			for _, m := range site.Machines {
				fmt.Fprintf(g.stdout, "%s %s %s BMC %s\n", m.Config().Name, m.Config().MAC, m.Config().Firmware, m.BMCAddress())
			}
			if on {
				site.PowerOnNew()
			}
			return runStages(cmd.Context(), log, []component{background("lab machines", site.Run)})
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "dir", "lab-machines", "folder of the machines' disks and power")
	f.StringVar(&dhcp, "dhcp", "", "the rack's DHCP address, host:port")
	f.StringVar(&tftp, "tftp", "", "the rack's TFTP address, host:port")
	f.IntVar(&machines, "machines", 3, "how many")
	f.IntVar(&first, "first", 1, "number of the first one")
	f.BoolVar(&on, "on", true, "switch on what the folder has never seen")
	return c
}
