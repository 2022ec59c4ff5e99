package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/content"
	"github.com/ingot-metal/ingot/provisioner/jobs"
	"github.com/ingot-metal/ingot/provisioner/power/drivers"
	"github.com/ingot-metal/ingot/server"
	"github.com/ingot-metal/ingot/server/metadata"
	"github.com/ingot-metal/ingot/server/rackapi"
	"github.com/ingot-metal/ingot/storage"
)

// storeFlags say where an installation keeps its state.
type storeFlags struct {
	dir     string
	db      string
	mirrors []string
}

func (f *storeFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "dir", "/var/lib/ingot", "folder of the installation's state")
	c.Flags().StringVar(&f.db, "db", os.Getenv("INGOT_DB"), "postgres://… for several regions; otherwise SQLite in the folder (also: INGOT_DB)")
}

// addMirrors adds the flag of a region that runs.
func (f *storeFlags) addMirrors(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.mirrors, "image-mirror", nil, "folder below which boot sources may be (file://FOLDER/…), for places without a network; may be given several times")
}

func (f *storeFlags) dsn() (string, error) {
	switch {
	case f.db == "":
		return "sqlite:" + filepath.Join(f.dir, "ingot.db"), nil
	case strings.HasPrefix(f.db, "postgres://"), strings.HasPrefix(f.db, "postgresql://"), strings.HasPrefix(f.db, "sqlite:"):
		return f.db, nil
	}
	return "", usagef("--db: postgres://… or sqlite:/path")
}

// store is an opened installation: database, blobs and rules.
type store struct {
	dir     string
	db      *storage.DB
	content *content.Store
	rules   *provisioner.Service
	log     *slog.Logger
	lock    *os.File
}

// openStore opens the installation in f.dir. exclusive keeps a second process from running on the same SQLite file.
func openStore(ctx context.Context, f storeFlags, exclusive bool, log *slog.Logger) (_ *store, err error) {
	dsn, err := f.dsn()
	if err != nil {
		return nil, err
	}
	for _, m := range f.mirrors {
		if !filepath.IsAbs(m) {
			return nil, usagef("--image-mirror %q: an absolute path", m)
		}
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, err
	}
	s := &store{dir: f.dir, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if exclusive {
		if s.lock, err = lockDir(f.dir); err != nil {
			return nil, err
		}
	}
	if s.db, err = storage.Open(ctx, dsn, storage.Options{Log: log}); err != nil {
		return nil, err
	}
	if s.content, err = content.Open(filepath.Join(f.dir, "content")); err != nil {
		return nil, err
	}
	s.rules = provisioner.New(provisioner.Config{DB: s.db, Log: log, Content: s.content, Power: drivers.All(), DataDir: f.dir,
		Images: provisioner.ImageConfig{MirrorDirs: f.mirrors}})
	return s, nil
}

func (s *store) close() error {
	var errs []error
	if s.content != nil {
		errs = append(errs, s.content.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// region is a region controller that is about to run.
type region struct {
	*store
	server  *server.Server
	handler http.Handler
	link    *rackapi.API
	pki     *rackapi.PKI
	apiKey  string
	// importImages says that images are imported from their mirrors by themselves; a lab asks no mirror unless somebody does.
	importImages bool

	mu    sync.Mutex
	ready func() error
}

// newRegion assembles the region over an opened store and makes the first administrator.
func newRegion(ctx context.Context, s *store, admin string, withPKI bool) (*region, error) {
	r := &region{store: s}
	var err error
	if r.apiKey, _, err = s.rules.Bootstrap(ctx, admin, ""); err != nil {
		return nil, fmt.Errorf("first administrator: %w", err)
	}
	if withPKI {
		if r.pki, err = rackapi.OpenPKI(filepath.Join(s.dir, "pki"), nil); err != nil {
			return nil, err
		}
	}
	r.link = rackapi.New(rackapi.Config{P: s.rules, PKI: r.pki, Log: s.log})
	r.server, err = server.New(server.Config{
		Provisioner: s.rules, Log: s.log, Subversion: version, Ready: r.isReady,
		Mounts: []server.Mount{{Prefix: "/MAAS/metadata/", Handler: metadata.New(metadata.Config{Provisioner: s.rules, Log: s.log})}},
	})
	if err != nil {
		return nil, err
	}
	r.handler = r.server.Handler()
	return r, nil
}

// isReady is what /healthz answers.
func (r *region) isReady() error {
	r.mu.Lock()
	ready := r.ready
	r.mu.Unlock()
	if ready == nil {
		return errors.New("starting")
	}
	return ready()
}

func (r *region) setReady(f func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready = f
}

// workers are the region's own long-lived parts.
func (r *region) workers() []component {
	tasks := append(r.rules.PeriodicTasks(), jobs.Task{Name: "sweep-content", Every: time.Hour, Run: func(ctx context.Context) error {
		_, err := r.rules.SweepContent(ctx)
		return err
	}})
	if r.importImages {
		tasks = append(tasks, jobs.Task{Name: "import-images", Every: time.Minute, Run: r.rules.ImportWhenDue})
	}
	return []component{
		background("lifecycle", r.rules.RunLifecycle),
		background("jobs", (&jobs.Runner{DB: r.db, Queues: []string{"region"}, Worker: "region-" + rand.Text(), Handlers: r.rules.JobHandlers(), Parallel: 2,
			Log: r.log}).Run),
		background("periodic", (&jobs.Periodic{Tasks: tasks, Log: r.log}).Run),
	}
}

// linkEnd ends what racks wait for, so that listeners can shut down: it belongs to the first stage.
func (r *region) linkEnd() component {
	return background("rack link waits", func(ctx context.Context) error {
		<-ctx.Done()
		r.link.Close()
		return nil
	})
}

// listenFlags are the addresses that a region serves on.
type listenFlags struct {
	http     string
	rackLink string
	metrics  string
	admin    string
}

func (f *listenFlags) add(c *cobra.Command, link bool) {
	c.Flags().StringVar(&f.http, "http", ":5240", "address of the API and the metadata service")
	c.Flags().StringVar(&f.metrics, "metrics", "", "address of Prometheus metrics at /metrics, for example 127.0.0.1:5239; none by default")
	c.Flags().StringVar(&f.admin, "admin", "admin", "name of the first administrator, whose API key is written to admin.apikey in the folder")
	if link {
		c.Flags().StringVar(&f.rackLink, "rack-link", ":5250", "address of the link for racks (mutual TLS)")
	}
}

func listen(name, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

func regionCommand(g *globals) *cobra.Command {
	var sf storeFlags
	var lf listenFlags
	c := &cobra.Command{
		Use:   "region",
		Short: "Run a region controller; racks are processes of their own (ingot rack)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := g.log()
			if err != nil {
				return err
			}
			return runRegion(cmd.Context(), sf, lf, log, g.stdout)
		},
	}
	sf.add(c)
	sf.addMirrors(c)
	lf.add(c, true)
	return c
}

func runRegion(ctx context.Context, sf storeFlags, lf listenFlags, log *slog.Logger, out io.Writer) (err error) {
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
	hello, err := systemHello()
	if err != nil {
		return err
	}
	if _, err := s.rules.RegisterRegion(provisioner.WithActor(ctx, provisioner.SystemActor()), hello); err != nil {
		return fmt.Errorf("register the region: %w", err)
	}
	listeners, stages, err := r.stages(lf, log)
	if err != nil {
		return err
	}
	r.setReady(func() error { return nil })
	fmt.Fprintf(out, "region: API http://%s/MAAS/\n", dialable(listeners.http))
	fmt.Fprintf(out, "racks join with: ingot rack --region https://%s --fingerprint %s --secret-file FILE\n", dialable(listeners.link), r.pki.Fingerprint())
	fmt.Fprintf(out, "the secret is in %s; the administrator's API key in %s\n", filepath.Join(sf.dir, "pki", "rack-secret"), filepath.Join(sf.dir, "admin.apikey"))
	return runStages(ctx, log, stages...)
}

// opened are a region's bound addresses.
type opened struct{ http, link, metrics net.Addr }

// stages opens the listeners and returns the region's parts: listeners, then workers.
func (r *region) stages(lf listenFlags, log *slog.Logger) (o opened, stages [][]component, err error) {
	var closers []io.Closer
	defer func() {
		if err != nil {
			for _, c := range closers {
				c.Close()
			}
		}
	}()
	front := []component{r.linkEnd()}
	l, err := listen("--http", lf.http)
	if err != nil {
		return o, nil, err
	}
	closers = append(closers, l)
	o.http = l.Addr()
	front = append(front, httpComponent("api", l, r.handler, log))
	if lf.rackLink != "" && r.pki != nil {
		l, err := listen("--rack-link", lf.rackLink)
		if err != nil {
			return o, nil, err
		}
		closers = append(closers, l)
		o.link = l.Addr()
		front = append(front, serverComponent("rack link", l, &http.Server{Handler: r.link, TLSConfig: r.pki.TLS()}, true, log))
	}
	if lf.metrics != "" {
		l, err := listen("--metrics", lf.metrics)
		if err != nil {
			return o, nil, err
		}
		closers = append(closers, l)
		o.metrics = l.Addr()
		front = append(front, httpComponent("metrics", l, metricsHandler(r.db), log))
	}
	return o, [][]component{front, r.workers()}, nil
}

// systemHello is how a region presents itself among the controllers.
func systemHello() (api.RackHello, error) {
	h, err := os.Hostname()
	if err != nil {
		return api.RackHello{}, err
	}
	name, _, _ := strings.Cut(strings.ToLower(h), ".")
	return api.RackHello{Hostname: name, Architecture: goArch(), Version: version, Interfaces: []api.RackInterface{}}, nil
}

// dialable is an address as somebody on this machine reaches it.
func dialable(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return ""
	}
	if t.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", fmt.Sprint(t.Port))
	}
	return t.String()
}

func healthcheckCommand(g *globals) *cobra.Command {
	var addr string
	var wait time.Duration
	c := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running region whether it is ready; the exit status answers",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), max(wait, 5*time.Second))
			defer cancel()
			for {
				err := healthy(ctx, addr)
				if err == nil {
					_, err = fmt.Fprintln(g.stdout, "ready")
					return err
				}
				if wait == 0 {
					return err
				}
				select {
				case <-ctx.Done():
					return err
				case <-time.After(100 * time.Millisecond):
				}
			}
		},
	}
	c.Flags().StringVar(&addr, "http", "127.0.0.1:5240", "address of the API")
	c.Flags().DurationVar(&wait, "wait", 0, "ask again until it is ready, at most this long")
	return c
}

func healthy(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/healthz", nil)
	if err != nil {
		return usagef("--http %q: host:port", addr)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, err := io.ReadAll(io.LimitReader(res.Body, 500))
		return errors.Join(fmt.Errorf("not ready: %s %s", res.Status, strings.TrimSpace(string(b))), err)
	}
	return nil
}
