// Package httpboot is the rack's HTTP server for machines: boot configurations, loaders, images with ranges, the agent, and the
// way to the region's /MAAS/ for machines that can reach nobody else. Firmware and boot loaders are poor HTTP clients: no
// redirects, no chunked bodies, HTTP/1.0, doubled slashes and backslashes in paths.
package httpboot

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/bootsrv/bootcfg"
	"github.com/ingot-metal/ingot/bootsrv/files"
)

// Config is what the handler needs.
type Config struct {
	Files *files.Server
	// Rack is the address that boot files name as the rack's; invalid: the one that the client connected to.
	Rack netip.Addr
	// Region is the region's base URL, "http://region:5240", and Transport reaches it. Without a transport /MAAS/ answers 503.
	Region    *url.URL
	Transport http.RoundTripper
	Log       *slog.Logger
}

// Handler serves the rack's HTTP port.
type Handler struct {
	c     Config
	proxy *httputil.ReverseProxy
}

// New returns the handler.
func New(c Config) *Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{c: c}
	if c.Transport != nil && c.Region != nil {
		h.proxy = &httputil.ReverseProxy{
			Transport: c.Transport,
			Rewrite: func(p *httputil.ProxyRequest) {
				p.SetURL(c.Region)
				// A machine must not be able to name another's address, so what it sent of these is dropped.
				p.SetXForwarded()
				p.Out.Host = c.Region.Host
			},
			ErrorHandler: h.proxyError,
			ErrorLog:     slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
		}
	}
	return h
}

// Server returns an http.Server with limits that slow firmware stays within and a silent stranger does not.
func (h *Handler) Server() *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 20 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(h.c.Log.Handler(), slog.LevelDebug),
	}
}

// ServeHTTP answers. There is no mux in front of it: a mux answers an unclean path with a redirect, which firmware does not follow.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := bootcfg.CleanPath(r.URL.Path)
	if p == "MAAS" || strings.HasPrefix(p, "MAAS/") {
		h.region(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		fail(w, http.StatusMethodNotAllowed, "method not allowed")
		return
	}
	start := time.Now()
	f, err := h.c.Files.Open(r.Context(), files.Request{
		Path: r.URL.Path, Query: r.URL.Query(), Protocol: bootcfg.HTTP, Client: remote(r), Rack: h.rack(r),
	})
	if err != nil {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			h.c.Log.Debug("http file not found", "path", p, "client", r.RemoteAddr, "error", err)
			fail(w, http.StatusNotFound, "not found")
		case r.Context().Err() != nil:
		default:
			h.c.Log.Warn("http file not served", "path", p, "client", r.RemoteAddr, "error", err)
			w.Header().Set("Retry-After", "5")
			fail(w, http.StatusServiceUnavailable, "not available now")
		}
		return
	}
	defer f.Close()
	hd := w.Header()
	switch {
	case f.Text:
		hd.Set("Content-Type", "text/plain; charset=utf-8")
		hd.Set("Cache-Control", "no-store")
	default:
		hd.Set("Content-Type", contentType(p))
		if f.ETag != "" {
			hd.Set("Etag", f.ETag)
		}
	}
	if rg := r.Header.Get("Range"); r.Method == http.MethodGet && (rg == "" || strings.HasPrefix(rg, "bytes=0-")) {
		h.c.Files.Served(f)
	}
	if f.Size == 0 {
		// ServeContent leaves the length of nothing to the server, which closes HTTP/1.0 connections instead of saying 0.
		hd.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return
	}
	// ServeContent does ranges, conditions, HEAD and, for a file of the operating system, sendfile.
	http.ServeContent(w, r, "", time.Time{}, content(f))
	h.c.Log.Info("http file served", "path", p, "client", r.RemoteAddr, "method", r.Method, "range", r.Header.Get("Range"), "duration", time.Since(start))
}

// content unwraps the file: the response writer recognizes an *os.File only bare.
func content(f *files.File) io.ReadSeeker { return f.ReadSeeker }

// contentType is application/efi for what UEFI HTTP boot loads: some firmware looks at it.
func contentType(p string) string {
	if strings.HasSuffix(p, ".efi") {
		return "application/efi"
	}
	return "application/octet-stream"
}

func fail(w http.ResponseWriter, code int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text+"\n")
}

func remote(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// rack is the address that the client connected to. The Host header is not asked: GRUB's lacks the port, and anybody can write one.
func (h *Handler) rack(r *http.Request) netip.Addr {
	if h.c.Rack.IsValid() {
		return h.c.Rack
	}
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

func (h *Handler) region(w http.ResponseWriter, r *http.Request) {
	if h.proxy == nil {
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, "the region is not known yet")
		return
	}
	if clean := "/" + bootcfg.CleanPath(r.URL.Path); clean != r.URL.Path {
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawPath = clean, ""
	}
	h.proxy.ServeHTTP(w, r)
}

func (h *Handler) proxyError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // the machine hung up
	}
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		fail(w, http.StatusRequestEntityTooLarge, "request body too large")
		return
	}
	h.c.Log.Warn("region not reached for a machine", "path", r.URL.Path, "client", r.RemoteAddr, "error", err)
	w.Header().Set("Retry-After", "5")
	var ne net.Error
	if errors.As(err, &ne) || errors.Is(err, io.EOF) {
		fail(w, http.StatusServiceUnavailable, "the region is away")
		return
	}
	fail(w, http.StatusBadGateway, "the region did not answer")
}
