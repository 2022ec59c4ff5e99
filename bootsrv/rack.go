package bootsrv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/dhcp"
	"github.com/ingot-metal/ingot/bootsrv/files"
	"github.com/ingot-metal/ingot/bootsrv/httpboot"
	"github.com/ingot-metal/ingot/bootsrv/loaders"
	"github.com/ingot-metal/ingot/bootsrv/tftp"
	"github.com/ingot-metal/ingot/bootsrv/view"
)

const (
	snapshotWait = 30 * time.Second
	helloEvery   = time.Minute
	// minPoll is the least pause between two snapshots; a large one that takes long to index makes it longer, up to maxPoll.
	minPoll = 2 * time.Millisecond
	maxPoll = time.Second
)

// Rack is a rack controller. Make it with New, which binds its sockets, and Run it.
type Rack struct {
	c      Config
	holder view.Holder
	store  *snapshotStore
	cache  *cache
	spool  *spool
	leases *dhcp.Store
	link   atomic.Pointer[link]

	dhcp     []*dhcp.Server
	tftp     *tftp.Server
	httpLn   net.Listener
	httpSrv  *http.Server
	httpPort uint16
	closers  []io.Closer
}

// New loads what the last run left and binds the sockets. It does not need the region.
func New(c Config) (_ *Rack, err error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("rack: %w", err)
	}
	if err := c.defaults(); err != nil {
		return nil, fmt.Errorf("rack: %w", err)
	}
	if err := os.MkdirAll(c.StateDir, 0o750); err != nil {
		return nil, fmt.Errorf("rack: %w", err)
	}
	r := &Rack{c: c}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	r.store = newSnapshotStore(c.StateDir, &r.holder)
	if err := r.store.load(); err != nil {
		// The region has a new one; to refuse to start would help nobody.
		c.Log.Error("snapshot on disk not used", "error", err)
	}
	if r.cache, err = openCache(c.CacheDir, c.CacheBytes, c.Log); err != nil {
		return nil, fmt.Errorf("rack: cache: %w", err)
	}
	r.cache.shared = c.Blobs
	r.cache.size = func(sha string) (int64, bool) {
		content, ok := r.holder.View().Content(sha)
		return content.Size, ok
	}
	r.cache.fetch = func(ctx context.Context, sha string, offset int64) (io.ReadCloser, error) {
		l := r.link.Load()
		if l == nil {
			return nil, errNoLink
		}
		return l.content(ctx, sha, offset)
	}
	if r.spool, err = openSpool(filepath.Join(c.StateDir, "spool"), c.Log, c.MaxBackoff); err != nil {
		return nil, fmt.Errorf("rack: spool: %w", err)
	}
	if r.leases, err = dhcp.OpenStore(filepath.Join(c.StateDir, "leases")); err != nil {
		return nil, fmt.Errorf("rack: leases: %w", err)
	}
	r.closers = append(r.closers, r.leases)
	return r, r.bind()
}

var errNoLink = errors.New("the region is not reached yet")

// bind opens the sockets of the protocols.
func (r *Rack) bind() error {
	c := &r.c
	if c.HTTPAddr != "" {
		ln, err := net.Listen("tcp", c.HTTPAddr)
		if err != nil {
			return fmt.Errorf("rack: boot http server: %w", err)
		}
		r.httpLn = httpboot.Listener(ln)
		r.closers = append(r.closers, ln)
		r.httpPort = ln.Addr().(*net.TCPAddr).AddrPort().Port()
	}
	if c.HTTPPort != 0 {
		r.httpPort = c.HTTPPort
	}
	fsrv := &files.Server{Source: &r.holder, Loaders: loaders.Find(loaders.Options{Dir: c.LoaderDir}), Blobs: r.cache, HTTPPort: r.httpPort,
		Who: func(a netip.Addr) string { return r.leases.MAC(a, c.Now()) }, OnStep: r.onStep, Now: c.Now}
	if r.httpLn != nil {
		region, tr, err := c.regionHTTP()
		if err != nil {
			return err
		}
		r.httpSrv = httpboot.New(httpboot.Config{Files: fsrv, Region: region, Transport: tr, Log: c.Log}).Server()
	}
	if c.TFTPAddr != "" {
		var err error
		if r.tftp, err = tftp.Bind(tftp.Config{Addr: c.TFTPAddr, Files: fsrv, Log: c.Log}); err != nil {
			return fmt.Errorf("rack: %w", err)
		}
	}
	if len(c.DHCP) > 0 {
		h := dhcp.NewHandler(dhcp.Config{Source: &r.holder, Store: r.leases, HTTPPort: r.httpPort, HasLoader: fsrv.HasLoader, Lease: c.LeaseTime,
			PXELease: c.PXELeaseTime, OnLease: r.onLease, OnStep: r.onStep, Log: c.Log, Now: c.Now})
		for _, l := range c.DHCP {
			s, err := h.Bind(l)
			if err != nil {
				return fmt.Errorf("rack: %w", err)
			}
			r.dhcp = append(r.dhcp, s)
		}
	}
	return nil
}

// regionHTTP is how machines reach the region through this rack.
func (c *Config) regionHTTP() (*url.URL, http.RoundTripper, error) {
	if c.RegionHandler != nil {
		return &url.URL{Scheme: "http", Host: "region.in-process"}, HandlerTransport(c.RegionHandler), nil
	}
	if c.RegionHTTP == "" {
		return nil, nil, nil
	}
	u, err := url.Parse(strings.TrimSuffix(c.RegionHTTP, "/"))
	if err != nil {
		return nil, nil, fmt.Errorf("RegionHTTP: %w", err)
	}
	return u, transport(nil), nil
}

func (r *Rack) close() {
	for _, c := range r.closers {
		_ = c.Close()
	}
	if r.cache != nil {
		r.cache.close()
	}
}

// HTTPAddr is the bound address of the boot HTTP server, invalid without one.
func (r *Rack) HTTPAddr() netip.AddrPort {
	if r.httpLn == nil {
		return netip.AddrPort{}
	}
	return r.httpLn.Addr().(*net.TCPAddr).AddrPort()
}

// TFTPAddr is the bound address of the TFTP server, invalid without one.
func (r *Rack) TFTPAddr() netip.AddrPort {
	if r.tftp == nil {
		return netip.AddrPort{}
	}
	return r.tftp.Addr()
}

// DHCPAddrs are the bound addresses of the DHCP listeners, in the order of Config.DHCP.
func (r *Rack) DHCPAddrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range r.dhcp {
		out = append(out, s.Addr())
	}
	return out
}

// View is what the rack serves from now.
func (r *Rack) View() *view.View { return r.holder.View() }

// WaitRevision returns once the rack serves from a snapshot that is at least as new; with 0, from any.
func (r *Rack) WaitRevision(ctx context.Context, revision int64) error {
	return r.store.waitRevision(ctx, revision)
}

// Flushed says whether the region has all reports.
func (r *Rack) Flushed() bool { return r.spool.empty() }

// Run serves until the context ends or something cannot go on. Without the region it serves from the snapshot that it has.
func (r *Rack) Run(ctx context.Context) error {
	defer r.close()
	g, gctx := errgroup.WithContext(ctx)
	for _, s := range r.dhcp {
		g.Go(func() error { return s.Run(gctx) })
	}
	if r.tftp != nil {
		g.Go(func() error { return r.tftp.Run(gctx) })
	}
	if r.httpSrv != nil {
		g.Go(func() error { return serveHTTP(gctx, r.httpSrv, r.httpLn) })
	}
	g.Go(func() error {
		r.store.keep(gctx, func(err error) { r.c.Log.Error("snapshot not kept on disk", "error", err) })
		return nil
	})
	g.Go(func() error { return r.runLink(gctx) })
	err := g.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// serveHTTP serves until the context ends, then gives open transfers a moment.
func serveHTTP(ctx context.Context, srv *http.Server, ln net.Listener) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if srv.Shutdown(sctx) != nil {
			_ = srv.Close()
		}
	})
	err := srv.Serve(ln)
	if !stop() {
		<-stopped
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("rack: boot http server: %w", err)
}

// runLink reaches the region, enrolling if need be, and then keeps the snapshot, works and reports.
func (r *Rack) runLink(ctx context.Context) error {
	b := backoff{max: r.c.MaxBackoff}
	for {
		l, err := connect(ctx, &r.c, r.c.hello(r.httpPort))
		if err == nil {
			r.link.Store(l)
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var le *linkError
		if errors.Is(err, errNotEnrolled) || errors.As(err, &le) && le.Status < 500 && le.Status != 429 {
			// No or a wrong secret, a refused host name: asking again would not help, but serving what is on disk does.
			if !r.store.loaded() {
				return fmt.Errorf("rack: %w", err)
			}
		}
		r.c.Log.Error("region not reached", "region", r.c.RegionURL, "error", err)
		if b.wait(ctx) != nil {
			return ctx.Err()
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	r.spool.post = func(ctx context.Context, raw json.RawMessage) error { return r.link.Load().report(ctx, raw) }
	g.Go(func() error { r.spool.run(gctx); return nil })
	g.Go(func() error { return r.follow(gctx) })
	g.Go(func() error {
		e := &executor{link: r.link.Load, drivers: r.c.Drivers, opts: r.c.Power, slots: r.c.Jobs, ready: r.store.waitRevision, max: r.c.MaxBackoff, log: r.c.Log,
			images: r.fetchImages}
		return e.run(gctx)
	})
	g.Go(func() error { return r.reportCache(gctx) })
	return g.Wait()
}

// follow says hello and takes in snapshots. Whatever fails, it says hello again: the region may have been restarted.
func (r *Rack) follow(ctx context.Context) error {
	l := r.link.Load()
	b := backoff{max: r.c.MaxBackoff}
	var said api.RackHello
	var saidAt time.Time
	greet := func() error {
		h := r.c.hello(r.httpPort)
		if !saidAt.IsZero() && time.Since(saidAt) < helloEvery && reflect.DeepEqual(h, said) {
			return nil
		}
		if err := l.hello(ctx, h); err != nil {
			return err
		}
		said, saidAt = h, time.Now()
		return nil
	}
	// A whole snapshot first: the numbers on disk may be those of a region that has since been restored from a backup.
	since, away := int64(-1), false
	for ctx.Err() == nil {
		err := greet()
		var snap api.Snapshot
		var ok bool
		if err == nil {
			snap, ok, err = l.snapshot(ctx, since, snapshotWait)
		}
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			switch {
			case away:
			case refused(err, http.StatusUnauthorized):
				r.c.Log.Error("region no longer accepts this rack, serving what is known", "error", err)
			default:
				r.c.Log.Warn("region is away, serving what is known", "error", err)
			}
			away, saidAt = true, time.Time{}
			_ = b.wait(ctx)
			continue
		}
		if away {
			r.c.Log.Info("region is back")
		}
		away = false
		b.reset()
		if !ok {
			continue
		}
		begin := time.Now()
		if err := r.store.apply(snap); err != nil {
			r.c.Log.Error("snapshot not usable", "error", err)
			since = -1
			_ = b.wait(ctx)
			continue
		}
		since = snap.Revision
		for _, p := range r.holder.View().Problems {
			r.c.Log.Warn("part of the snapshot not usable", "problem", p)
		}
		_ = pause(ctx, min(max(minPoll, 5*time.Since(begin)), maxPoll)) // however fast a large site changes, to follow it stays cheap
	}
	return ctx.Err()
}

// onStep spools a boot step.
func (r *Rack) onStep(st view.Step) {
	b := api.BootStep{At: st.Time, Kind: string(st.Kind), MAC: st.MAC, SystemID: st.SystemID, Protocol: st.Protocol, Path: st.Path, Method: st.Method,
		Purpose: st.Purpose, Arch: st.Arch, VLANID: st.VLANID, Relayed: st.Relayed, Detail: st.Detail}
	if st.Client.IsValid() {
		b.Client = st.Client.String()
	}
	if st.Rack.IsValid() {
		b.Rack = st.Rack.String()
	}
	r.spool.addBoot(b)
}

// onLease spools what happened to a dynamic address.
func (r *Rack) onLease(e dhcp.LeaseEvent) {
	l := api.LeaseReport{At: e.Time, IP: e.Addr.String(), MAC: e.MAC, Hostname: e.Hostname, SubnetID: e.SubnetID}
	switch e.Action {
	case "commit":
		l.Expires = e.Time.Add(e.Lease)
	case "decline":
		return // nobody has the address
	default:
		l.Released = true
	}
	r.spool.addLease(l)
}

// Prefetch brings content into the cache ahead of the first machine that asks.
func (r *Rack) Prefetch(ctx context.Context, sha256 string) error {
	f, err := r.cache.Open(ctx, sha256)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("content %s is not in the snapshot: %w", sha256, err)
	}
	if err != nil {
		return err
	}
	return f.Close()
}
