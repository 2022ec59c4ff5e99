package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/ingot-metal/ingot/api/client"
	"github.com/ingot-metal/ingot/bootsrv"
	"github.com/ingot-metal/ingot/lab"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/power/drivers"
	"github.com/ingot-metal/ingot/storage"
)

// devOptions are the flags of dev and show.
type devOptions struct {
	store    storeFlags
	http     string
	metrics  string
	machines int
	images   string
	full     bool
	ports    devPorts
}

// devPorts are where the development rack serves. They are kept in the folder: what was installed on a lab machine names them.
type devPorts struct {
	DHCP     string `json:"dhcp"`
	TFTP     string `json:"tftp"`
	BootHTTP string `json:"boot_http"`
}

func (o *devOptions) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.store.dir, "dir", "dev", "folder of all state; made if it is not there")
	f.StringVar(&o.store.db, "db", os.Getenv("INGOT_DB"), "postgres://…; default: SQLite in the folder (also: INGOT_DB)")
	f.StringVar(&o.http, "http", "127.0.0.1:5240", "address of the API")
	f.StringVar(&o.metrics, "metrics", "", "address of Prometheus metrics at /metrics; none by default")
	f.IntVar(&o.machines, "machines", 3, "lab machines to run")
	f.StringVar(&o.images, "images", "", "folder of real images to import (image build); stand-ins fill what is missing")
	f.BoolVar(&o.full, "full", false, "let machines boot the full environment instead of the light one")
	f.StringVar(&o.ports.DHCP, "dhcp", "", "address of DHCP for lab machines; default: a free port of 127.0.0.1")
	f.StringVar(&o.ports.TFTP, "tftp", "", "address of TFTP; default: a free port of 127.0.0.1")
	f.StringVar(&o.ports.BootHTTP, "boot-http", "", "address of the HTTP server for machines; default: a free port of 127.0.0.1")
}

func devCommand(g *globals) *cobra.Command {
	var o devOptions
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run region, rack and lab machines in one process, on a folder; no privilege, no network but loopback",
		Long: "The lab machines are switched on when all is ready, and enlist themselves. The administrator's API key is written to " +
			"admin.apikey in the folder. GET /healthz answers 200 once all is ready.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := g.log()
			if err != nil {
				return err
			}
			return runDev(cmd.Context(), o, log, g.stdout, nil)
		},
	}
	o.add(c)
	return c
}

// devSite is a development site that is ready.
type devSite struct {
	url    string // http://host:port
	apiKey string
	dir    string
	client *client.Client
	site   *lab.Site
	out    io.Writer
}

// runDev runs everything until ctx ends. after, when not nil, is called once all is ready; its error ends the site.
func runDev(ctx context.Context, o devOptions, log *slog.Logger, out io.Writer, after func(context.Context, *devSite) error) (err error) {
	started := time.Now()
	s, err := openStore(ctx, o.store, true, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r, err := newRegion(ctx, s, "admin", false)
	if err != nil {
		return err
	}
	// The listener first: whoever waits for /healthz gets 503 and not a refused connection.
	d := &devSite{dir: o.store.dir, apiKey: r.apiKey, out: out}
	opened, stages, err := r.stages(listenFlags{http: o.http, metrics: o.metrics}, log)
	if err != nil {
		return err
	}
	d.url = "http://" + dialable(opened.http)
	rack, site, err := r.devRack(ctx, o, d)
	if err != nil {
		return err
	}
	var ready atomic.Bool
	r.setReady(func() error {
		if !ready.Load() {
			return errors.New("starting")
		}
		return nil
	})
	// The machines end first: they are clients of all the rest.
	machines := []component{{name: "lab machines", run: site.Run, wait: 20 * time.Second}}
	boot := once("start", func(ctx context.Context) error {
		rev, err := s.revision(ctx)
		if err != nil {
			return err
		}
		if err := rack.WaitRevision(ctx, rev); err != nil {
			return err
		}
		ready.Store(true)
		site.PowerOnNew()
		fmt.Fprintf(out, "ready after %s: API %s/MAAS/, key in %s, %d lab machines\n",
			time.Since(started).Round(time.Millisecond), d.url, filepath.Join(o.store.dir, "admin.apikey"), len(site.Machines))
		if after == nil {
			return nil
		}
		return after(ctx, d)
	})
	all := append([][]component{append(machines, boot)}, stages...)
	all[1] = append(all[1], background("rack", rack.Run))
	return runStages(ctx, log, all...)
}

func (s *store) revision(ctx context.Context) (rev int64, err error) {
	err = s.db.Read(ctx, func(tx *storage.Tx) error {
		rev, err = tx.CurrentRevision()
		return err
	})
	return rev, err
}

// devRack imports images, seeds the lab's network and makes the rack and the machines.
func (r *region) devRack(ctx context.Context, o devOptions, d *devSite) (*bootsrv.Rack, *lab.Site, error) {
	log := r.log
	if o.images != "" {
		names, err := importImages(ctx, r.store, o.images, nil)
		if err != nil {
			return nil, nil, err
		}
		log.Info("images imported", "images", names)
	}
	standIns := filepath.Join(r.dir, "lab-images")
	if err := writeLabImages(standIns); err != nil {
		return nil, nil, fmt.Errorf("lab images: %w", err)
	}
	names, err := importMissing(ctx, r.store, standIns)
	if err != nil {
		return nil, nil, fmt.Errorf("lab images: %w", err)
	}
	if len(names) > 0 {
		log.Info("lab stand-ins imported", "images", names)
	}
	loaderDir, missing, err := labLoaders(filepath.Join(r.dir, "lab-loaders"))
	if err != nil {
		return nil, nil, fmt.Errorf("lab boot loaders: %w", err)
	}
	if len(missing) > 0 {
		log.Info("boot loaders not installed, lab machines use stand-ins", "loaders", missing)
	}
	system := provisioner.WithActor(ctx, provisioner.SystemActor())
	if o.full {
		if err := r.rules.SetConfig(system, "ingot_boot_environment", "full"); err != nil {
			return nil, nil, err
		}
	}

	hello, err := systemHello()
	if err != nil {
		return nil, nil, err
	}
	hello.Interfaces = labInterfaces()
	node, err := r.rules.RegisterRack(system, hello, storage.NodeRegionRack, "")
	if err != nil {
		return nil, nil, fmt.Errorf("register the rack: %w", err)
	}
	// In this process the SDK needs no socket.
	inside, err := client.New(client.Config{URL: d.url, APIKey: r.apiKey, HTTP: &http.Client{Transport: bootsrv.HandlerTransport(r.handler)}})
	if err != nil {
		return nil, nil, err
	}
	if err := seedLab(ctx, inside, node.SystemID, o.machines); err != nil {
		return nil, nil, err
	}
	if d.client, err = client.New(client.Config{URL: d.url, APIKey: r.apiKey}); err != nil {
		return nil, nil, err
	}

	rack, err := r.bindDevRack(ctx, o.ports, loaderDir)
	if err != nil {
		return nil, nil, err
	}
	site, err := lab.NewSite(lab.SiteConfig{Machines: o.machines, Dir: filepath.Join(r.dir, "lab-machines"), DHCP: rack.DHCPAddrs()[0], TFTP: rack.TFTPAddr(), Log: log})
	if err != nil {
		return nil, nil, fmt.Errorf("lab machines: %w", err)
	}
	d.site = site
	return rack, site, nil
}

// bindDevRack makes the rack on the ports of the flags, else those of the last run, else free ones.
func (r *region) bindDevRack(ctx context.Context, want devPorts, loaderDir string) (*bootsrv.Rack, error) {
	file := filepath.Join(r.dir, "dev-ports.json")
	var last devPorts
	if raw, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(raw, &last); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	pick := func(flag, last string) string {
		switch {
		case flag != "":
			return flag
		case last != "":
			return last
		}
		return "127.0.0.1:0"
	}
	cfg := bootsrv.Config{StateDir: filepath.Join(r.dir, "rack"), Version: version, Drivers: drivers.All(), Interfaces: labInterfaces(), LoaderDir: loaderDir,
		DHCP: nil, TFTPAddr: pick(want.TFTP, last.TFTP), HTTPAddr: pick(want.BootHTTP, last.BootHTTP), Log: r.log}
	l := labListener(pick(want.DHCP, last.DHCP))
	if _, err := netip.ParseAddrPort(l.Addr); err != nil {
		return nil, usagef("--dhcp %q: an address and port", l.Addr)
	}
	cfg.DHCP = append(cfg.DHCP, l)
	rack, err := r.localRack(ctx, cfg)
	var busy *net.OpError
	if err != nil && want == (devPorts{}) && errors.As(err, &busy) && strings.Contains(err.Error(), "in use") {
		// Somebody else has a port of the last run. Machines that are installed keep booting; one that is being installed right now fails.
		r.log.Warn("ports of the last run are taken, using others", "err", err)
		cfg.TFTPAddr, cfg.HTTPAddr, cfg.DHCP[0].Addr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
		rack, err = r.localRack(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	now := devPorts{DHCP: rack.DHCPAddrs()[0].String(), TFTP: rack.TFTPAddr().String(), BootHTTP: rack.HTTPAddr().String()}
	raw, err := json.MarshalIndent(now, "", "  ")
	if err != nil {
		return nil, err
	}
	return rack, os.WriteFile(file, append(raw, '\n'), 0o600)
}
