package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ingot-metal/ingot/bootsrv"
	"github.com/ingot-metal/ingot/bootsrv/dhcp"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/power/drivers"
	"github.com/ingot-metal/ingot/storage"
)

// rackFlags say where a rack serves machines.
type rackFlags struct {
	interfaces []string
	dhcp       bool
	tftp       string
	http       string
	loaders    string
	cache      string
	cacheBytes int64
}

func (f *rackFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringSliceVar(&f.interfaces, "interface", nil, "network interfaces to answer DHCP on; none: DHCP is left to others")
	fl.StringVar(&f.tftp, "tftp", ":69", "address of the TFTP server; empty: none")
	fl.StringVar(&f.http, "boot-http", ":5248", "address of the HTTP server for machines")
	fl.StringVar(&f.loaders, "loaders", "", "folder with boot loaders that win over the packages'")
	fl.StringVar(&f.cache, "cache", "", "folder of cached images; default: cache in the folder of the rack's state")
	fl.Int64Var(&f.cacheBytes, "cache-bytes", 20<<30, "bound of the cache")
}

// config turns the flags into a rack's configuration.
func (f *rackFlags) config(stateDir string, log *slog.Logger) (bootsrv.Config, error) {
	c := bootsrv.Config{StateDir: stateDir, CacheDir: f.cache, CacheBytes: f.cacheBytes, Version: version, Drivers: drivers.All(),
		TFTPAddr: f.tftp, HTTPAddr: f.http, LoaderDir: f.loaders, Log: log}
	for _, name := range f.interfaces {
		if _, err := net.InterfaceByName(name); err != nil {
			return c, fmt.Errorf("--interface %s: %w", name, err)
		}
		c.DHCP = append(c.DHCP, dhcp.Listener{Interface: name})
	}
	return c, nil
}

func rackCommand(g *globals) *cobra.Command {
	var f rackFlags
	var dir, regionURL, regionHTTP, fingerprint, secretFile, hostname, metrics string
	var dhcpLab string
	c := &cobra.Command{
		Use:   "rack",
		Short: "Run a rack controller: DHCP, TFTP, HTTP boot and power for the machines of its networks",
		Long: "A rack enrols once, with the region's fingerprint and the enrolment secret that the region prints at its start. " +
			"Afterwards it knows its region by what it keeps in its folder, and serves its machines even while the region is away.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := g.log()
			if err != nil {
				return err
			}
			if regionURL == "" {
				return usagef("--region: the region's rack link, https://host:5250")
			}
			cfg, err := f.config(dir, log)
			if err != nil {
				return err
			}
			cfg.RegionURL, cfg.RegionHTTP, cfg.Fingerprint, cfg.Hostname = regionURL, regionHTTP, fingerprint, hostname
			if secretFile != "" {
				b, err := os.ReadFile(secretFile)
				if err != nil {
					return fmt.Errorf("--secret-file: %w", err)
				}
				cfg.Secret = strings.TrimSpace(string(b))
			} else {
				cfg.Secret = os.Getenv("INGOT_RACK_SECRET")
			}
			if dhcpLab != "" {
				if err := labRack(&cfg, dhcpLab); err != nil {
					return err
				}
			}
			return runRack(cmd.Context(), cfg, metrics, log, g.stdout)
		},
	}
	f.add(c)
	fl := c.Flags()
	fl.StringVar(&dir, "dir", "/var/lib/ingot-rack", "folder of the rack's identity, snapshot, leases and unsent reports")
	fl.StringVar(&regionURL, "region", os.Getenv("INGOT_REGION"), "the region's rack link, https://host:5250 (also: INGOT_REGION)")
	fl.StringVar(&regionHTTP, "region-http", os.Getenv("INGOT_REGION_HTTP"), "the region's API, http://host:5240: machines reach it through this rack (also: INGOT_REGION_HTTP)")
	fl.StringVar(&fingerprint, "fingerprint", os.Getenv("INGOT_REGION_FINGERPRINT"), "SHA-256 of the region's authority; needed to enrol (also: INGOT_REGION_FINGERPRINT)")
	fl.StringVar(&secretFile, "secret-file", "", "file with the enrolment secret; needed to enrol (also: INGOT_RACK_SECRET)")
	fl.StringVar(&hostname, "hostname", "", "this rack's name; default: the system's host name")
	fl.StringVar(&metrics, "metrics", "", "address of Prometheus metrics at /metrics")
	fl.StringVar(&dhcpLab, "lab", "", "serve lab machines: answer DHCP on this loopback address, host:port, to where packets come from")
	return c
}

// labRack makes a rack serve machines that share its loopback interface: it says that it has an address in the lab's subnet.
func labRack(c *bootsrv.Config, addr string) error {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || !ap.Addr().IsLoopback() {
		return usagef("--lab %q: an address and port of the loopback interface", addr)
	}
	c.DHCP = []dhcp.Listener{labListener(addr)}
	c.Interfaces = labInterfaces()
	return nil
}

func runRack(ctx context.Context, cfg bootsrv.Config, metrics string, log *slog.Logger, out io.Writer) error {
	r, err := bootsrv.New(cfg)
	if err != nil {
		return err
	}
	printRack(out, r)
	front := []component{background("rack", r.Run)}
	if metrics != "" {
		l, err := listen("--metrics", metrics)
		if err != nil {
			return err
		}
		front = append(front, httpComponent("metrics", l, metricsHandler(nil), log))
	}
	return runStages(ctx, log, front)
}

func printRack(out io.Writer, r *bootsrv.Rack) {
	if a := r.HTTPAddr(); a.IsValid() {
		fmt.Fprintf(out, "rack: HTTP %s\n", a)
	}
	if a := r.TFTPAddr(); a.IsValid() {
		fmt.Fprintf(out, "rack: TFTP %s\n", a)
	}
	for _, a := range r.DHCPAddrs() {
		fmt.Fprintf(out, "rack: DHCP %s\n", a)
	}
}

// localRack makes the rack inside a region's process: the same client, over a transport that calls the region's handler.
func (r *region) localRack(ctx context.Context, cfg bootsrv.Config) (*bootsrv.Rack, error) {
	hello, err := systemHello()
	if err != nil {
		return nil, err
	}
	if cfg.Hostname != "" {
		hello.Hostname = cfg.Hostname
	}
	cfg.Hostname = hello.Hostname
	if cfg.Interfaces != nil {
		hello.Interfaces = cfg.Interfaces
	}
	node, err := r.rules.RegisterRack(provisioner.WithActor(ctx, provisioner.SystemActor()), hello, storage.NodeRegionRack, "")
	if err != nil {
		return nil, fmt.Errorf("register the rack: %w", err)
	}
	cfg.Transport = bootsrv.HandlerTransport(r.link.Trusted(node.SystemID))
	cfg.RegionHandler = r.handler
	cfg.Blobs = r.content.Open
	return bootsrv.New(cfg)
}

func allCommand(g *globals) *cobra.Command {
	var sf storeFlags
	var lf listenFlags
	var rf rackFlags
	c := &cobra.Command{
		Use:   "all",
		Short: "Run region and rack in one process, for a real network",
		Long: "Without --interface, DHCP is left to the network's own server, which then has to name this rack as next-server " +
			"(docs/real-network.md). DHCP and TFTP need privileged ports: run as root, or with CAP_NET_BIND_SERVICE and CAP_NET_RAW.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := g.log()
			if err != nil {
				return err
			}
			return runAll(cmd.Context(), sf, lf, rf, log, g.stdout)
		},
	}
	sf.add(c)
	sf.addMirrors(c)
	lf.add(c, true)
	rf.add(c)
	return c
}

func runAll(ctx context.Context, sf storeFlags, lf listenFlags, rf rackFlags, log *slog.Logger, out io.Writer) (err error) {
	s, err := openStore(ctx, sf, sf.db == "", log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r, err := newRegion(ctx, s, lf.admin, true)
	if err != nil {
		return err
	}
	r.importImages = true
	cfg, err := rf.config(sf.dir+"/rack", log)
	if err != nil {
		return err
	}
	rack, err := r.localRack(ctx, cfg)
	if err != nil {
		return err
	}
	o, stages, err := r.stages(lf, log)
	if err != nil {
		return err
	}
	stages[0] = append(stages[0], background("rack", rack.Run))
	stages[1] = append(stages[1], once("ready", func(ctx context.Context) error {
		if err := rack.WaitRevision(ctx, 0); err != nil {
			return err
		}
		r.setReady(func() error { return nil })
		return nil
	}))
	fmt.Fprintf(out, "API http://%s/MAAS/, administrator's key in %s/admin.apikey\n", dialable(o.http), sf.dir)
	printRack(out, rack)
	return runStages(ctx, log, stages...)
}
